"""What all jobs of one client and kind share, and the three ports the rest of the library plugs into.

No port knows how the others work, and this package knows none: the journal implements `Recorder`, the scheduler
implements `Waker`, the webhook receiver implements `Hints`, a client wires them into its `JobKind`s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import msgspec

from mirage_async.wire import Call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mirage_async._clock import Clock
    from mirage_async.exceptions import WaitedFor
    from mirage_async.jobs._job import Job
    from mirage_async.models import Pace
    from mirage_async.wire import Report

__all__ = ["Hints", "Intent", "JobKind", "NullHints", "NullRecorder", "Recorder", "Waker"]

T = TypeVar("T")


class Intent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is about to be sent for a job, as far as the job itself does not say.

    Attributes:
        account: an alias of provider, address and key that tells nothing of the key.
        call: the request.
        blocking: the provider answers with the pictures themselves, and gives no id.
        announced: the provider is given an address to call back.
        deadline: monotonic seconds; a purchase made after it would be of no use to who asked for it.
        own_key: the caller chose the job's key, under which nobody else may buy.
    """

    account: str
    call: Call
    blocking: bool
    announced: bool
    deadline: float
    own_key: bool = False

    def __repr__(self) -> str:
        return f"<Intent {self.call!r}>"


class Recorder(Protocol):
    """Keeps what was paid for beyond the life of this process.

    `intended` raises to forbid a purchase that could not be recorded. The later ones are told about facts: what they
    raise is logged and never withholds a result.
    """

    def intended(self, job: Job[Any], intent: Intent) -> Awaitable[None]:
        """Wait until it is durable that the purchase may be sent from now on.

        Cancelling that may or may not undo it; `withdrawn` is called then.
        """
        ...

    async def withdrawn(self, job: Job[Any]) -> None:
        """Return once it is durable that what was sent last, or was to be sent, has bought nothing."""

    def accepted(self, job: Job[Any]) -> Awaitable[None]:
        """Wait until the provider's id is durable."""
        ...

    def settled(self, job: Job[Any], outcome: object) -> Awaitable[None]:
        """Wait until the outcome, a result or an error, is durable."""
        ...

    def handed_over(self, job: Job[Any]) -> None:
        """Note that a waiter has taken the outcome; need not be durable at once."""


class NullRecorder:
    """Records nothing: what a client without a journal uses."""

    __slots__ = ()

    async def intended(self, job: Job[Any], intent: Intent) -> None:
        """Allow every purchase."""

    async def withdrawn(self, job: Job[Any]) -> None:
        """Forget the refusal."""

    async def accepted(self, job: Job[Any]) -> None:
        """Forget the id."""

    async def settled(self, job: Job[Any], outcome: object) -> None:
        """Forget the outcome."""

    def handed_over(self, job: Job[Any]) -> None:
        """Forget the hand-over."""


class Waker(Protocol):
    """Asks the provider about jobs when it is time to."""

    def watch(self, job: Job[Any], deadline: float, *, at_once: bool = False) -> None:
        """Begin asking about `job`, or extend the wait for it.

        Args:
            job: an accepted job.
            deadline: monotonic seconds; nobody asks after it, and the job's waiters are told.
            at_once: make the first status call now instead of after the usual first interval.
        """

    def look_before(self, job: Job[Any], end: float, since: float) -> None:
        """Ask about `job` now, unless it was asked about since then, or will be in time before `end`, which is near."""

    def wake(self, job: Job[Any]) -> None:
        """Ask about `job` now, because a hint says it has changed."""

    def forget(self, job: Job[Any]) -> None:
        """Stop asking about `job`; harmless when nobody does."""

    def waits_for(self, job: Job[Any]) -> WaitedFor:
        """Return what an accepted job waits for now: its own end, or a turn to be asked about."""
        ...


class Hints(Protocol):
    """Hears of jobs from elsewhere than the provider's status call, and has those woken that are said to have changed.

    What it hears is never believed; it only says when asking is worth it.
    """

    def accepted(self, job: Job[Any], deadline: float) -> bool:
        """Note that `job` can be asked about from now on, until `deadline` (monotonic seconds).

        Returns:
            Whether a hint about it came before, so that it is to be asked about at once.
        """
        ...

    def patience(self, job: Job[Any]) -> float:
        """Return for how many seconds asking is not worth it, because a hint is to be expected; 0.0 where none is.

        It is asked before the first status call and after each that found the job unfinished.
        """
        ...

    def ended(self, job: Job[Any]) -> None:
        """Note that nobody works on `job` any more, for whatever reason; harmless for a job never heard of."""


class NullHints:
    """Hears nothing: what a client without a webhook receiver uses."""

    __slots__ = ()

    def accepted(self, job: Job[Any], deadline: float) -> bool:  # noqa: ARG002 - hears nothing, so knows nothing
        """Know of no hint."""
        return False

    def patience(self, job: Job[Any]) -> float:  # noqa: ARG002 - same
        """Expect no hint."""
        return 0.0

    def ended(self, job: Job[Any]) -> None:
        """Forget the end."""


_NO_HINTS: Hints = NullHints()


class JobKind(Generic[T]):
    """What the jobs of one client and kind have in common; a job holds one reference to it.

    Args:
        provider: the provider's name.
        name: "image" or "avatar".
        pace: what the provider's document suggests about asking.
        clock: the client's clock.
        recorder: keeps what was paid for.
        waker: asks the provider.
        look: makes one status call for a job and returns the report, or raises a `MirageError`.
        redeem: turns the report of a finished job into the value its waiters get.
        ended: told synchronously when nobody works on the job any more, for whatever reason.
        account: where the scheduler keeps the limits of the provider account; opaque here.
        hints: hears of jobs from elsewhere.
        check_loop: raises what somebody is to be told who waits in an event loop where nothing will ever wake him.
    """

    __slots__ = (
        "account",
        "check_loop",
        "clock",
        "ended",
        "hints",
        "look",
        "name",
        "pace",
        "provider",
        "recorder",
        "redeem",
        "waker",
    )

    def __init__(
        self,
        *,
        provider: str,
        name: str,
        pace: Pace,
        clock: Clock,
        recorder: Recorder,
        waker: Waker,
        look: Callable[[Job[T]], Awaitable[Report]],
        redeem: Callable[[Job[T], Report], Awaitable[T]],
        ended: Callable[[Job[T]], None],
        account: Any,
        hints: Hints = _NO_HINTS,
        check_loop: Callable[[], object] = bool,
    ) -> None:
        self.check_loop = check_loop
        self.provider = provider
        self.name = name
        self.pace = pace
        self.clock = clock
        self.recorder = recorder
        self.waker = waker
        self.look = look
        self.redeem = redeem
        self.ended = ended
        self.account = account
        self.hints = hints

    def __repr__(self) -> str:
        return f"<JobKind {self.provider} {self.name}>"
