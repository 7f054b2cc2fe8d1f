"""Webhook deliveries: who is told that a job has ended, how often, and what goes wrong with that on purpose."""

from __future__ import annotations

import asyncio
import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from mirage_async.sandbox.faults.rules import Occasion
from mirage_async.sandbox.posting import RefusedError, post

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from mirage_async.sandbox.faults.fault import Fault
    from mirage_async.sandbox.faults.flaws import Point
    from mirage_async.sandbox.faults.rules import FaultRules
    from mirage_async.sandbox.jobs import Job
    from mirage_async.sandbox.world import World

__all__ = ["Deliveries", "Delivery", "DeliveryAttempt", "DeliveryState"]

_T = TypeVar("_T")

_MOST_KEPT = 10_000
_MOST_AT_ONCE = 200  # a process may have open files for a thousand or so, and its receiver may be the same process
_WRONG_TOKEN = "a-token-nobody-gave"  # noqa: S105 - it opens nothing, that is its purpose
_FIRST_SUCCESS = 200
_FIRST_FAILURE = 300

DeliveryState: TypeAlias = Literal["waiting", "delivered", "given_up", "withheld", "refused"]
"""How far a delivery has come: it will be attempted, was accepted, was attempted often enough, was ordered never to be
attempted, or must not be attempted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAttempt:
    """One attempt to deliver.

    Attributes:
        at: when it began, in seconds on the sandbox's monotonic clock.
        status: HTTP status of the receiver's answer, None when there was none.
        error: why there was none; "" when there was one.
    """

    at: float
    status: int | None
    error: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the receiver took it, which it says with any 2xx."""
        return self.status is not None and _FIRST_SUCCESS <= self.status < _FIRST_FAILURE


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The news that one job has ended, as it stands at one moment. It never shows the token.

    Attributes:
        id: its number, counted from 1.
        job_id: the job that ended.
        url: where it goes, as the client gave it.
        state: how far it has come.
        attempts: what was tried, oldest first.
        reason: why it is "refused", otherwise "".
        fault: what went wrong with it on purpose, "" when nothing did.
    """

    id: int
    job_id: str
    url: str
    state: DeliveryState
    attempts: tuple[DeliveryAttempt, ...]
    reason: str
    fault: str


@dataclass(slots=True, kw_only=True, eq=False)
class _Parcel:
    id: int
    url: str
    job: Job = field(repr=False)
    token: str | None = field(repr=False)
    fault: Fault | None = None
    early: Fault | None = None
    state: DeliveryState = "waiting"
    reason: str = ""
    attempts: list[DeliveryAttempt] = field(default_factory=list[DeliveryAttempt])
    # Set once its first attempt is over, or nothing can be expected of it for now.
    tried: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def flaw(self) -> str | None:
        return None if self.fault is None else self.fault.flaw

    @property
    def never_goes(self) -> bool:
        return self.fault is not None and (self.flaw == "undelivered" or self.fault.stall == math.inf)

    def view(self) -> Delivery:
        return Delivery(
            id=self.id,
            job_id=self.job.id,
            url=self.url,
            state=self.state,
            attempts=tuple(self.attempts),
            reason=self.reason,
            fault=" ".join(str(fault) for fault in (self.early, self.fault) if fault is not None),
        )


class Deliveries:
    """Announces the ends of jobs to the webhooks that were given with them.

    The token is sent back as Mirako documents it, and what is said is the provider's own affair. Nobody says how often
    it tries; the attempts and the pause between them are modelled on the public behaviour of the RunPod back end.
    Redirects are not followed, the environment's proxies are not used, and nothing is sent to an address
    outside this machine and its private network.

    Args:
        world: whose jobs are announced.
        faults: where the faults of deliveries wait.
        announce: returns what is said of a job that has ended, by provider.
        attempts: how often a delivery is tried until a receiver answers with 2xx.
        interval: seconds of the sandbox's clock between two attempts, and how long a delivery that shall be
            overtaken waits for that.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        world: World,
        faults: FaultRules,
        *,
        announce: Mapping[str, Callable[[World, Job], Awaitable[bytes]]],
        attempts: int,
        interval: float,
    ) -> None:
        if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
            raise ValueError(f"webhook_attempts must be a whole number from 1, got {attempts!r}")
        if isinstance(interval, bool) or not 0 < interval < math.inf:
            raise ValueError(f"webhook_interval must be more than 0 seconds, got {interval!r}")
        self._world = world
        self._faults = faults
        self._announce = announce
        self._attempts = attempts
        self._interval = interval
        self._parcels: dict[int, _Parcel] = {}
        self._ids = itertools.count(1)
        self._made = 0
        self._held: asyncio.Event | None = None
        self._lines = asyncio.Semaphore(_MOST_AT_ONCE)
        self._running: set[asyncio.Task[Any]] = set()
        self._stopped = False
        world.on_end = self._job_ended
        world.before_reply = self._before_reply

    def __repr__(self) -> str:
        waiting = sum(parcel.state == "waiting" for parcel in self._parcels.values())
        return f"<{type(self).__name__} {self._made} made, {waiting} waiting>"

    @property
    def made(self) -> int:
        """How many were accepted, each counted once."""
        return self._made

    def view(self) -> list[Delivery]:
        """Return the latest 10,000, oldest first."""
        return [parcel.view() for parcel in self._parcels.values()]

    async def redeliver(self, delivery_id: int) -> DeliveryAttempt:
        """Make one more attempt now, with nothing wrong about it.

        An attempt goes on when its caller is cancelled.

        Raises:
            ValueError: there is no such delivery.
            RuntimeError: the sandbox was reset or left.
        """
        parcel = self._parcels.get(delivery_id)
        if parcel is None:
            raise ValueError(f"no delivery {delivery_id!r} among the {len(self._parcels)} that are kept")
        if not self._stopped:
            task = self._spawn(self._attempt(parcel, parcel.token))
            await asyncio.wait([task])
            if not task.cancelled():
                return task.result()
        raise RuntimeError(f"delivery {delivery_id} was called off: the sandbox was reset or left")

    def clear(self) -> None:
        """Forget them all, call off what is under way, and count from 1 again."""
        self._call_off()
        self._parcels.clear()
        self._ids = itertools.count(1)
        self._made = 0
        self._held = None

    async def stop(self) -> None:
        """Call off what is under way, wait until it has ended, and begin nothing any more."""
        self._stopped = True
        self._call_off()
        await asyncio.gather(*self._running, return_exceptions=True)
        for parcel in self._parcels.values():
            if parcel.state == "waiting":
                parcel.state = "given_up"

    def _call_off(self) -> None:
        for task in self._running:
            task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def _job_ended(self, job: Job) -> None:
        """Begin to deliver the news of a job, if anybody wants them."""
        webhook = job.notes.get("webhook")
        if webhook is None or self._stopped:
            return
        fault = self._fault_at("webhook", job)
        parcel = _Parcel(id=next(self._ids), job=job, url=webhook["url"], token=webhook["auth_token"], fault=fault)
        self._parcels[parcel.id] = parcel
        if len(self._parcels) > _MOST_KEPT:
            del self._parcels[next(iter(self._parcels))]
        if parcel.never_goes:
            parcel.state = "withheld"
            parcel.tried.set()
        else:
            # A task that is called off before its first step never gets to set anything itself.
            self._spawn(self._deliver(parcel)).add_done_callback(lambda _: parcel.tried.set())

    async def _before_reply(self, job: Job) -> None:
        """Let the news arrive before the submit reply does, if that was ordered."""
        fault = None if job.notes.get("webhook") is None else self._fault_at("early", job)
        if fault is None:
            return
        self._world.workshop.end(job, job.destiny)
        parcel = next((parcel for parcel in reversed(self._parcels.values()) if parcel.job is job), None)
        if parcel is not None:
            parcel.early = fault
            await parcel.tried.wait()

    def _fault_at(self, point: Point, job: Job) -> Fault | None:
        """Return what goes wrong here; a prompt may also have ordered what means nothing to a delivery."""
        occasion = Occasion(
            operation=f"{job.provider}.webhook", points=frozenset({point}), prompt=job.prompt, job_id=job.id
        )
        fault = self._faults.take(occasion)
        return fault if fault is not None and (fault.point == point or fault.stall is not None) else None

    async def _deliver(self, parcel: _Parcel) -> None:
        await self._hold_back(parcel)
        token = _WRONG_TOKEN if parcel.flaw == "wrong-token" else parcel.token
        for turn in range(self._attempts):
            if turn:
                await self._pause(parcel, self._interval)
            # Somebody may have delivered it by hand meanwhile.
            if parcel.state == "waiting":
                await self._attempt(parcel, token)
            if parcel.state != "waiting":
                break
        else:
            parcel.state = "given_up"
        if parcel.flaw == "duplicate" and parcel.state == "delivered":
            await self._attempt(parcel, token)

    async def _hold_back(self, parcel: _Parcel) -> None:
        """Wait for what was ordered: some seconds, or for another delivery to go first.

        Only one is held back at a time, so that of two that shall be overtaken the second overtakes the first.
        """
        if parcel.fault is not None and parcel.fault.stall is not None:
            # A clock that jumped past the end of the job has waited that much already.
            due = parcel.job.ended_at + parcel.fault.stall
            await self._pause(parcel, due - self._world.clock.monotonic())
        elif parcel.flaw == "reordered" and self._held is None:
            held = self._held = asyncio.Event()
            clock = self._world.clock
            timer = clock.call_at(clock.monotonic() + self._interval, held.set)
            parcel.tried.set()
            try:
                await held.wait()
            finally:
                timer.cancel()
                # After a reset another one may be in its place.
                self._held = None if self._held is held else self._held

    async def _pause(self, parcel: _Parcel, seconds: float) -> None:
        parcel.tried.set()
        await self._world.clock.sleep(seconds)

    async def _attempt(self, parcel: _Parcel, token: str | None) -> DeliveryAttempt:
        """Make one attempt and note what came of it; one that is refused does not count as any."""
        with self._world.clock.at_work():
            async with self._lines:
                at = self._world.clock.monotonic()
                try:
                    attempt = await _sent(
                        parcel, token, at=at, body=await self._announce[parcel.job.provider](self._world, parcel.job)
                    )
                except RefusedError as refusal:
                    parcel.reason = str(refusal)
                    parcel.state = "refused" if parcel.state == "waiting" else parcel.state
                    return DeliveryAttempt(at=at, status=None, error=parcel.reason)
        parcel.attempts.append(attempt)
        if attempt.accepted:
            self._note_success(parcel)
        return attempt

    def _note_success(self, parcel: _Parcel) -> None:
        self._made += parcel.state != "delivered"
        parcel.state, parcel.reason = "delivered", ""
        if self._held is not None:
            self._held.set()


async def _sent(parcel: _Parcel, token: str | None, *, at: float, body: bytes) -> DeliveryAttempt:
    try:
        return DeliveryAttempt(at=at, status=await post(parcel.url, token=token, body=body))
    except ConnectionError as problem:
        return DeliveryAttempt(at=at, status=None, error=str(problem))
