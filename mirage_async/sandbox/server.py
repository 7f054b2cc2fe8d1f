"""The sandbox itself: one port, one HTTP server, and everything a person can do with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from aiohttp import web

from mirage_async.sandbox.accounts import Accounts
from mirage_async.sandbox.clock import VirtualClock
from mirage_async.sandbox.control.routes import add_control
from mirage_async.sandbox.dialects.registry import PROVIDERS
from mirage_async.sandbox.durations import Durations
from mirage_async.sandbox.exchange import Exchange, Route
from mirage_async.sandbox.faults.places import WEBHOOK
from mirage_async.sandbox.faults.rules import FaultRules
from mirage_async.sandbox.honesty import BEHAVIOURS
from mirage_async.sandbox.httplog import HTTP_LOGGER
from mirage_async.sandbox.jobs import Station
from mirage_async.sandbox.progress import Progress
from mirage_async.sandbox.requestlog import RequestLog, SeenRequest, select, transcript_of
from mirage_async.sandbox.webhooks import Deliveries
from mirage_async.sandbox.world import World

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from mirage_async._clock import Clock
    from mirage_async.sandbox.accounts import AccountView
    from mirage_async.sandbox.durations import DurationsSetting
    from mirage_async.sandbox.faults.fault import Fault
    from mirage_async.sandbox.faults.places import Place
    from mirage_async.sandbox.faults.rules import FaultRule
    from mirage_async.sandbox.honesty import Behaviour
    from mirage_async.sandbox.jobs import Job, JobView
    from mirage_async.sandbox.progress import ProgressSetting
    from mirage_async.sandbox.webhooks import Delivery, DeliveryAttempt

__all__ = ["Sandbox", "Statistics"]

_MAX_BODY_BYTES = 64 * 2**20
_KEEP_ALIVE = 5.0  # seconds, as Node's servers have it; longer, and node-fetch keeps its process alive that long
_BACKLOG = 4096
_SHUTDOWN = 0.05
_MOST_PORTS = 65535
_PATH_NAME = re.compile(r"\{(\w+)\}")
# The router's own pattern stops at braces, too, which a client may send.
_ANYTHING_BUT_SLASHES = r"{\1:[^/]+}"
_BAD_ENDS = {"failed": Station.FAILED, "cancelled": Station.CANCELLED, "timed_out": Station.TIMED_OUT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Figures of one moment.

    Attributes:
        requests: requests per operation; those without one count as "unknown".
        purchases: POSTs whose work was done and charged, per provider.
        open_jobs: jobs that have not ended.
        faults_waiting: faults that no request has met yet; one that strikes for ever counts once.
        deliveries: deliveries to webhooks that were accepted, each counted once.
    """

    requests: Mapping[str, int]
    purchases: Mapping[str, int]
    open_jobs: int
    faults_waiting: int
    deliveries: int


class Sandbox:
    """Mirako, Miragic, Mira and Milady on one local port, with real pictures and trouble on demand.

    Use it as an async context manager. It accepts any key that is not empty, keeps everything in memory, and does the
    same again when run again with the same seed. The only connections it opens are deliveries to the webhooks its
    clients named, and those only to addresses of this machine or its private network.

    Everything its methods do can also be asked of it over HTTP, under `/_sandbox/`.

    Args:
        port: TCP port, 0 for any free one.
        seed: decides ids, durations and pictures without a seed of their own.
        strict: enforce every documented rule, and name it in the error. The default also takes the documented examples
            that break the documents' own rules.
        durations: seconds that work takes: a number, a (low, high) range, a `Lognormal` or a `ColdStart` for
            everything, or a mapping to these by "provider", "provider.kind" (the kinds are "image" and "avatar") or
            "provider:model". None: images 1-3 s, avatars 4 s. The first quarter is spent queued.
        host: address to listen on; "0.0.0.0" for all of this machine's, as in a container. Links in answers lead to the
            host that a client asked for.
        clock: the clock to follow; None for the system's. See `Sandbox.clock`.
        link_lifetime: seconds a Miragic result link works.
        workers: how many jobs a provider works on at a time, the others waiting in a queue: a number for each
            provider, or a mapping by provider. None: no limit.
        progress: what ends a job. "time", or None: its duration. A number: that status call. "manual": `finish_job` and
            `fail_job` alone. Or a mapping to these by "provider" or "provider.kind".
        webhook_attempts: how often a delivery to a webhook is tried until it is answered with 2xx.
        webhook_interval: seconds between two of these, above 0.

    Raises:
        ValueError: an argument is out of range.
        RuntimeError: it is entered a second time.
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
        workers: int | Mapping[str, int] | None = None,
        progress: ProgressSetting = None,
        webhook_attempts: int = 3,
        webhook_interval: float = 10.0,
    ) -> None:
        if not 0 <= port <= _MOST_PORTS:
            raise ValueError(f"port must be 0 to {_MOST_PORTS}, got {port!r}")
        if not link_lifetime > 0:
            raise ValueError(f"link_lifetime must be more than 0 seconds, got {link_lifetime!r}")
        self._host = host
        self._port = port
        self._clock = VirtualClock(clock)
        self._kinds = kinds = [f"{provider.name}.{kind}" for provider in PROVIDERS for kind in provider.kinds]
        self._world = World(
            clock=self._clock,
            seed=seed,
            strict=strict,
            durations=Durations(durations, seed=seed, kinds=kinds),
            progress=Progress(progress, kinds=kinds),
            workers=_workers(workers),
            accounts=Accounts(self._clock, {provider.name: provider.price for provider in PROVIDERS}),
            link_lifetime=link_lifetime,
        )
        self._log = RequestLog()
        self._faults = FaultRules(_operations(), seed=seed)
        self._deliveries = Deliveries(
            self._world,
            self._faults,
            announce={provider.name: provider.announce for provider in PROVIDERS if provider.announce is not None},
            attempts=webhook_attempts,
            interval=webhook_interval,
        )
        self._exchange = Exchange(self._world, self._log, self._faults)
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        if self._world.url:
            raise RuntimeError("a sandbox can be entered once; make another one")
        runner = web.AppRunner(
            self._application(),
            access_log=None,
            logger=HTTP_LOGGER,
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
        self._world.url = f"http://{_reachable(self._host)}:{runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Nobody waits for a stalled request or an unfinished picture.
        await self._exchange.stop()
        await self._deliveries.stop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        # A last request may have come in between.
        await self._exchange.stop()
        self._clock.close()

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
    def clock(self) -> VirtualClock:
        """Its time: `freeze`, `advance`, `auto_advance` and `resume` it."""
        return self._clock

    @property
    def requests(self) -> list[SeenRequest]:
        """The latest requests, up to 100,000, in order of arrival; a copy."""
        return self._log.all()

    def find_requests(self, **filters: Any) -> list[SeenRequest]:
        """Return the requests that have all that is given.

        Args:
            filters: any of provider, operation, method, status, job_id, prompt (text it contains) and after (a number).

        Raises:
            TypeError: there is no such filter.
        """
        return select(self._log.all(), **filters)

    def transcript(self) -> list[dict[str, Any]]:
        """Return what was asked and answered, for JSON.

        Two runs that did the same with one seed have the same if their clocks were frozen at the same date, as by
        `clock.freeze(at=1.75e9)`: answers tell dates and progress.
        """
        return transcript_of(self._log.all(), self.url)

    @property
    def jobs(self) -> Mapping[str, JobView]:
        """Every open job, avatar and blocking purchase, and the latest 100,000 that ended, by id, oldest first.

        Each is shown as it stands when it is looked up.
        """
        self._world.workshop.catch_up()
        return self._world.jobs

    def finish_job(self, job_id: str) -> None:
        """Let a job be done now, whatever it waits for.

        Raises:
            ValueError: there is no such job, or it has ended.
        """
        self._end(job_id, Station.DONE, "")

    def fail_job(
        self, job_id: str, reason: str = "", *, end: Literal["failed", "cancelled", "timed_out"] = "failed"
    ) -> None:
        """Let a job come to a bad end now.

        Args:
            job_id: the provider's name for it.
            reason: what it says of itself.
            end: which end, where the provider has more than one word for it.

        Raises:
            ValueError: there is no such job or end, or it has ended.
        """
        if end not in _BAD_ENDS:
            raise ValueError(f"end must be one of {', '.join(_BAD_ENDS)}; got {end!r}")
        self._end(job_id, _BAD_ENDS[end], reason)

    def statistics(self) -> Statistics:
        """Return the figures of this moment."""
        self._world.workshop.catch_up()
        return Statistics(
            requests=self._log.count(),
            purchases=dict(self._world.purchases),
            open_jobs=self._world.jobs.count_open(),
            faults_waiting=len(self._faults),
            deliveries=self._deliveries.made,
        )

    def fail(
        self,
        operation: str,
        *faults: Fault | str,
        times: int | None = 1,
        probability: float = 1.0,
        prompt: str = "",
    ) -> list[int]:
        """Let the next requests to `operation` fail, one for each of `faults` and in their order.

        Args:
            operation: such as "miragic.create"; "miragic.*" is every operation of a provider, "*" every one there is.
            faults: faults, or their names as in a prompt: "429:2", "reset-after", "no-image".
            times: how often each strikes; None for ever.
            probability: the share of requests that it strikes, above 0 to 1; which ones follows from the seed.
            prompt: text that a request's prompt must contain.

        Returns:
            The numbers of the rules, for `remove_fault`.

        Raises:
            ValueError: there is no such operation or fault, no fault was given, or an argument is out of range.
        """
        return self._faults.add(operation, *faults, times=times, probability=probability, prompt=prompt)

    @property
    def faults(self) -> list[FaultRule]:
        """The faults that wait, oldest first; a copy. Those that stand in prompts are not among them."""
        return self._faults.view()

    def remove_fault(self, rule_id: int) -> None:
        """Take back one fault.

        Raises:
            ValueError: there is none of that number.
        """
        if not self._faults.remove(rule_id):
            raise ValueError(f"no fault {rule_id!r} waits; waiting: {[rule.id for rule in self.faults]}")

    def clear_faults(self) -> None:
        """Take back all of them."""
        self._faults.clear()

    def set_durations(self, durations: DurationsSetting) -> None:
        """Let work that begins from now on take that long; see the class."""
        self._world.durations.set(durations)

    def set_progress(self, progress: ProgressSetting) -> None:
        """Let work that begins from now on end that way; see the class."""
        self._world.progress.set(progress)

    def set_workers(self, workers: int | Mapping[str, int] | None) -> None:
        """Let so many jobs be worked on at a time from now on; see the class."""
        limits = _workers(workers)
        for provider in PROVIDERS:
            self._world.workshop.set_workers(provider.name, limits.get(provider.name))

    def set_all(self, **settings: Any) -> None:
        """Change several of durations, progress and workers, or nothing when one of the values is wrong; see the class.

        Raises:
            TypeError: there is no such setting.
            ValueError: a value is out of range.
        """
        checks: dict[str, Callable[[Any], object]] = {
            "durations": lambda value: Durations(value, seed=0, kinds=self._kinds),
            "progress": lambda value: Progress(value, kinds=self._kinds),
            "workers": _workers,
        }
        for name, value in settings.items():
            if name not in checks:
                raise TypeError(f"unknown setting {name!r}; known: {', '.join(checks)}")
            checks[name](value)
        for name, value in settings.items():
            getattr(self, f"set_{name}")(value)

    def set_credits(self, provider: str, credits_left: float | None, *, key: str | None = None) -> None:
        """Let keys of a provider spend so many credits; a purchase they do not suffice for is answered with 402.

        A picture costs 1, Milady's 0.02.

        Args:
            provider: its name.
            credits_left: 0 or more; None for any number.
            key: one key only, whose own it stays; None for every key without an amount of its own, each with that many.

        Raises:
            ValueError: there is no such provider, or the amount is out of range.
        """
        self._world.accounts.set_credits(provider, credits_left, key=key)

    def set_rate_limit(
        self, provider: str, requests: int | None, *, seconds: float = 60.0, key: str | None = None
    ) -> None:
        """Let each key make so many requests in so many seconds, and answer 429 with Retry-After to the rest.

        Answers then carry `X-RateLimit-Limit`, `-Remaining`, `-Reset` and `-Policy`.

        Args:
            provider: its name.
            requests: 1 or more; None for no limit.
            seconds: more than 0, up to a day.
            key: one key only; None for every key without a limit of its own.

        Raises:
            ValueError: there is no such provider, or a number is out of range.
        """
        self._world.accounts.set_rate_limit(provider, requests, seconds=seconds, key=key)

    @property
    def accounts(self) -> list[AccountView]:
        """What each key has asked for, spent and left."""
        return self._world.accounts.view()

    @property
    def honesty(self) -> tuple[Behaviour, ...]:
        """What it does, and whether a provider says so, public sources do, or nobody does."""
        return BEHAVIOURS + tuple(one for provider in PROVIDERS for one in provider.behaviours)

    @property
    def deliveries(self) -> list[Delivery]:
        """The latest deliveries to webhooks, up to 10,000, oldest first, each as it stands now; a copy."""
        self._world.workshop.catch_up()
        return self._deliveries.view()

    async def redeliver(self, delivery_id: int) -> DeliveryAttempt:
        """Make one more attempt of a delivery now, whatever went wrong with it before, and return what came of it.

        An attempt goes on when its caller is cancelled.

        Raises:
            ValueError: there is no such delivery.
            RuntimeError: the sandbox was reset or left.
        """
        return await self._deliveries.redeliver(delivery_id)

    def reset(self, scope: Literal["all", "state", "rules"] = "all") -> None:
        """Begin anew.

        Args:
            scope: "state" forgets jobs, links, requests, deliveries and the bill, and the next ids are the first again;
                "rules" takes back faults, credits and limits; "all" does both. Settings and the clock stay as they are.

        Raises:
            ValueError: there is no such scope.
        """
        if scope not in ("all", "state", "rules"):
            raise ValueError(f'scope must be "all", "state" or "rules", got {scope!r}')
        if scope != "rules":
            self._world.clear()
            self._log.clear()
            self._deliveries.clear()
        if scope != "state":
            self._faults.clear()
            self._world.accounts.clear_rules()

    def _end(self, job_id: str, station: Station, reason: str) -> None:
        job = self._job(job_id)
        if not self._world.workshop.end(job, station, reason=reason):
            raise ValueError(f"job {job_id!r} has ended: it is {self.jobs[job_id].status}")

    def _job(self, job_id: str) -> Job:
        job = self._world.jobs.get_job(job_id)
        if job is None:
            raise ValueError(f"no job {job_id!r} among the {len(self._world.jobs)} there are")
        return job

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=_MAX_BODY_BYTES)
        add_control(application, self, self._world, host=self._host)
        for provider in PROVIDERS:
            for operation in provider.operations:
                for path in operation.paths:
                    resource = application.router.add_resource(_PATH_NAME.sub(_ANYTHING_BUT_SLASHES, path))
                    resource.add_route(operation.method, self._handler(Route(provider, operation)))
                    allowed = operation.method
                    if operation.stage == "picture":
                        resource.add_route("HEAD", self._handler(Route(provider, operation)))
                        allowed = f"{allowed}, HEAD"
                    resource.add_route("*", self._handler(Route(provider, None, allowed=allowed)))
        application.router.add_route("*", "/{path:(?s:.*)}", self._handler(None))
        return application

    def _handler(self, route: Route | None) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._exchange.serve(request, route)

        return handle


def _reachable(host: str) -> str:
    """Return a host by which a client on this machine reaches what listens on `host`, fit for a URL."""
    local = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"[{local}]" if ":" in local else local


def _operations() -> dict[str, Place]:
    """Return what each operation can show of the faults there are, by name."""
    places = {operation.name: operation.place for one in PROVIDERS for operation in one.operations}
    return places | {f"{provider.name}.webhook": WEBHOOK for provider in PROVIDERS if provider.announce}


def _workers(setting: int | Mapping[str, int] | None) -> dict[str, int]:
    """Return checked numbers by provider; who is not in it has no limit."""
    names = [provider.name for provider in PROVIDERS]
    given = dict(setting or {}) if setting is None or isinstance(setting, Mapping) else dict.fromkeys(names, setting)
    for name, number in given.items():
        if name not in names:
            raise ValueError(f"workers: unknown provider {name!r}; known: {', '.join(names)}")
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"workers must be whole numbers from 1, got {number!r} for {name}")
    return given
