"""The sandbox itself: one port, one HTTP server, and the way of a request through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from aiohttp import web

from mirage_async._clock import SystemClock
from mirage_async.sandbox.dialects.registry import PROVIDERS
from mirage_async.sandbox.durations import Durations, DurationsSetting
from mirage_async.sandbox.exchange import Exchange, Route
from mirage_async.sandbox.faults.fault import Fault, FaultQueues
from mirage_async.sandbox.requestlog import RequestLog, SeenRequest
from mirage_async.sandbox.world import World

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from mirage_async._clock import Clock
    from mirage_async.sandbox.jobs import JobView

__all__ = ["Sandbox", "Statistics"]

_MAX_BODY_BYTES = 64 * 2**20
_KEEP_ALIVE = 5.0  # seconds, as Node's servers have it; longer, and node-fetch keeps its process alive that long
_BACKLOG = 4096
_SHUTDOWN = 0.05
_MOST_PORTS = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Figures of one moment.

    Attributes:
        requests: requests per operation; those without one count as "unknown".
        purchases: POSTs whose work was done and charged, per provider.
        open_jobs: jobs that have not ended.
        faults_waiting: faults that no request has met yet.
    """

    requests: Mapping[str, int]
    purchases: Mapping[str, int]
    open_jobs: int
    faults_waiting: int


class Sandbox:
    """Mirako, Miragic, Mira and Milady on one local port, with real pictures and trouble on demand.

    Use it as an async context manager. It accepts any key that is not empty, keeps everything in memory, never opens a
    connection of its own, and does the same again when run again with the same seed.

    Args:
        port: TCP port, 0 for any free one.
        seed: decides ids, durations and pictures without a seed of their own.
        strict: enforce every documented rule, and name it in the error. The default also takes the documented examples
            that break the documents' own rules.
        durations: seconds that work takes: a number for everything, or a mapping by "provider" or "provider.kind" (the
            kinds are "image" and "avatar") to a number or a (low, high) range. None: images 1-3 s, avatars 4 s. The
            first quarter is spent queued.
        host: address to listen on.
        clock: where time comes from; None for the system's.
        link_lifetime: seconds a Miragic result link works.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        seed: int = 0,
        strict: bool = False,
        durations: DurationsSetting = None,
        host: str = "127.0.0.1",
        clock: Clock | None = None,
        link_lifetime: float = 600.0,
    ) -> None:
        if not 0 <= port <= _MOST_PORTS:
            raise ValueError(f"port must be 0 to {_MOST_PORTS}, got {port!r}")
        if not link_lifetime > 0:
            raise ValueError(f"link_lifetime must be more than 0 seconds, got {link_lifetime!r}")
        self._host = host
        self._port = port
        self._clock = clock or SystemClock()
        kinds = [f"{provider.name}.{kind}" for provider in PROVIDERS for kind in provider.kinds]
        self._world = World(
            clock=self._clock,
            seed=seed,
            strict=strict,
            durations=Durations(durations, seed=seed, kinds=kinds),
            link_lifetime=link_lifetime,
        )
        self._log = RequestLog()
        self._faults = FaultQueues([operation.name for provider in PROVIDERS for operation in provider.operations])
        self._exchange = Exchange(self._world, self._log, self._faults)
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        runner = web.AppRunner(
            self._application(),
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=_KEEP_ALIVE,
            shutdown_timeout=_SHUTDOWN,
        )
        await runner.setup()
        try:
            # A thousand clients may connect in one turn of the loop; a full backlog would reset some of them.
            await web.TCPSite(runner, self._host, self._port, backlog=_BACKLOG).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        self._world.url = f"http://{self._host}:{runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Nobody waits for a stalled request or an unfinished picture.
        await self._exchange.stop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        # A last request may have come in between.
        await self._exchange.stop()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.url or 'not started'}: {len(self._log)} requests, "
            f"{self._world.jobs.count_open()} open jobs, {len(self._faults)} faults waiting>"
        )

    @property
    def url(self) -> str:
        """Where it listens, for example "http://127.0.0.1:49152"; "" before it was started."""
        return self._world.url

    @property
    def base_urls(self) -> dict[str, str]:
        """The base URL of each provider, by name."""
        return {provider.name: self.url for provider in PROVIDERS}

    @property
    def requests(self) -> list[SeenRequest]:
        """Every request so far, in order of arrival; a copy."""
        return self._log.all()

    @property
    def jobs(self) -> Mapping[str, JobView]:
        """Every job, avatar and blocking purchase by id, oldest first, each as it stands when it is looked up."""
        return self._world.jobs

    def statistics(self) -> Statistics:
        """Return the figures of this moment."""
        return Statistics(
            requests=self._log.count(),
            purchases=dict(self._world.purchases),
            open_jobs=self._world.jobs.count_open(),
            faults_waiting=len(self._faults),
        )

    def fail(self, operation: str, *faults: Fault) -> None:
        """Let the next requests to `operation` fail, one for each of `faults` and in their order.

        Raises:
            ValueError: there is no such operation, or no fault was given.
        """
        self._faults.add(operation, *faults)

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=_MAX_BODY_BYTES)
        for provider in PROVIDERS:
            for operation in provider.operations:
                for path in operation.paths:
                    resource = application.router.add_resource(path)
                    resource.add_route(operation.method, self._handler(Route(provider, operation)))
                    resource.add_route("*", self._handler(Route(provider, None, allowed=operation.method)))
        application.router.add_route("*", "/{path:.*}", self._handler(None))
        return application

    def _handler(self, route: Route | None) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._exchange.serve(request, route)

        return handle
