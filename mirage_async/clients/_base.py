"""What every client offers besides its provider's own methods: options, attaching to jobs, closing."""

from __future__ import annotations

import abc
import copy
import os
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypedDict

import msgspec

from mirage_async._transport import Endpoint, is_loopback
from mirage_async.clients._buyer import Terms
from mirage_async.clients._desk import Desk
from mirage_async.clients._runtime import Runtime
from mirage_async.exceptions import ConfigurationError, InputError
from mirage_async.jobs import Job, JobKind, new_job, read_token
from mirage_async.models import JobStatus
from mirage_async.scheduler import Limits
from mirage_async.wire import passed_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Unpack

    import aiohttp

    from mirage_async.journal import Entry
    from mirage_async.models import Generation, ImageRequest
    from mirage_async.scheduler import Scheduler
    from mirage_async.wire import Reply

__all__ = ["ClientOptions", "MissingKeyError", "ProviderClient", "SharedOptions", "check_options"]

LONGEST_TIMEOUT = 3600.0  # seconds


class MissingKeyError(ConfigurationError):
    """Of the ways to be misconfigured the one a command line calls a matter of authentication."""


class SharedOptions(TypedDict, total=False):
    """What one client and its copies may set differently; see `ProviderClient`."""

    base_url: str | None
    timeout: float | None
    limits: Limits | None
    max_retry_after: float
    resend_uncertain: bool


class ClientOptions(SharedOptions, total=False):
    """All keyword options of a client; the additional ones belong to the pool and cannot differ between copies."""

    proxy: str | None
    session: aiohttp.ClientSession | None
    scheduler: Scheduler | None


class Codec(Protocol):
    """What is common to the codec modules of all providers."""

    @property
    def BASE_URL(self) -> str:  # noqa: N802 - a constant of the module
        """The provider's own address."""
        ...

    @property
    def credential(self) -> Callable[[str], tuple[str, str]]:
        """Turns a key into the header that carries it."""
        ...


class ProviderClient(abc.ABC):
    """The part all clients share. Use one as `async with Client() as client`, or call `aclose()` yourself.

    A client may be made anywhere; it belongs to the event loop it is first used in.

    Args:
        api_key: the key; None reads the environment (the class says which variables). An address on this machine, such
            as a sandbox's, needs none.
        base_url: the provider's address; None reads `<NAME>_BASE_URL`, then `MIRAGE_SANDBOX_URL`, then takes the
            provider's own.
        timeout: seconds to wait for one answer, up to 3600; None takes 60, or where the provider draws while we wait
            180 (Milady 210).
        limits: what may go on at once on this account.
        max_retry_after: the longest wait, in seconds, a refusal for load (429) may ask for before a purchase is given
            up; 0 to 3600.
        resend_uncertain: send a purchase again although it may have been bought already. Off by default: it can make
            you pay twice.
        proxy: address of an HTTP proxy for everything this client sends.
        session: your own `aiohttp.ClientSession` for the API calls; it is never closed here.
        scheduler: decides when to ask about jobs; None learns how long they take, with `AdaptiveInterval`, and goes by
            the provider's document until then.

    Raises:
        ConfigurationError: no key, or an address that is none.
        InputError: an option out of range.
    """

    provider: ClassVar[str]
    key_variables: ClassVar[tuple[str, ...]]
    codec: Codec  # set by the class; modules cannot be class variables to a type checker
    answer_timeout: ClassVar[float] = 180.0  # seconds, for requests the provider answers with the finished picture
    documents_failure: ClassVar[bool] = False  # whether the provider's document says what a 500 means
    readers: ClassVar[Mapping[tuple[str, bool], Callable[[Reply], Any]]]
    """What reads the answer to a purchase, by kind of job and whether the answer is the pictures themselves."""
    max_images: ClassVar[int] = 1  # the most pictures one request may ask for

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float | None = None,
        limits: Limits | None = None,
        max_retry_after: float = 60.0,
        resend_uncertain: bool = False,
        proxy: str | None = None,
        session: aiohttp.ClientSession | None = None,
        scheduler: Scheduler | None = None,
    ) -> None:
        shared: SharedOptions = {
            "base_url": base_url,
            "timeout": timeout,
            "limits": limits,
            "max_retry_after": max_retry_after,
            "resend_uncertain": resend_uncertain,
        }
        runtime = Runtime(scheduler=scheduler, session=session, proxy=proxy)
        self._set_up(api_key, runtime, shared, owns_runtime=True)

    @classmethod
    def within(cls, runtime: Runtime, api_key: str | None, options: SharedOptions) -> Self:
        """Make a client that shares the parts of a hub and leaves closing them to it."""
        client = cls.__new__(cls)
        client._set_up(api_key, runtime, options, owns_runtime=False)  # noqa: SLF001 - a client under construction
        return client

    def _set_up(self, api_key: str | None, runtime: Runtime, options: SharedOptions, *, owns_runtime: bool) -> None:
        base_url = self._base_url(options.get("base_url"))
        terms = Terms(
            timeout=_timeout(options.get("timeout")),
            max_retry_after=_max_retry_after(options.get("max_retry_after", 60.0)),
            resend_uncertain=_resend_uncertain(options.get("resend_uncertain", False)),
            answer_timeout=self.answer_timeout,
            failure_is_documented=self.documents_failure,
        )
        limits = _limits(options.get("limits"))
        endpoint = Endpoint(base_url, self.codec.credential(self._key(api_key, base_url)))
        ledger = runtime.ledger(self.provider, endpoint, limits, otherwise=limits)
        self._owns_runtime = owns_runtime
        self._desk = Desk(runtime, provider=self.provider, endpoint=endpoint, terms=terms, ledger=ledger)
        self._kinds: dict[str, JobKind[Any]] = self._make_kinds(self._desk)

    def _make_kinds(self, desk: Desk) -> dict[str, JobKind[Any]]:  # noqa: ARG002 - for subclasses
        """Return the kinds of job one can attach to; a provider that answers with the picture has none."""
        return {}

    @classmethod
    def _base_url(cls, given: str | None) -> str:
        variables = (f"{cls.provider.upper()}_BASE_URL", "MIRAGE_SANDBOX_URL")
        return given or next((value for name in variables if (value := os.environ.get(name))), cls.codec.BASE_URL)

    @classmethod
    def _key(cls, given: str | None, base_url: str) -> str:
        key = next((value for name in cls.key_variables if (value := os.environ.get(name))), None)
        key = key if given is None else given
        if key is None:
            if is_loopback(base_url):
                return "sandbox"
            msg = f"no {cls.provider} key: set {' or '.join(cls.key_variables)}, or pass api_key"
            raise MissingKeyError(msg, provider=cls.provider)
        return key

    async def __aenter__(self) -> Self:
        """Return the client; nothing is opened before the first request."""
        self._desk.check_open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the client."""
        await self.aclose()

    async def aclose(self) -> None:
        """Stop asking and close the pool, unless it belongs to a hub, another client or the caller.

        Waiters of unfinished jobs and later calls get `ClosedError` with the job's token. Requests that may cost money
        and are on the wire get two seconds to bring home their id. Nothing is cancelled at the provider. May be called
        twice. A client that is dropped without it while jobs are being watched is never collected.
        """
        if self._owns_runtime:
            await self._desk.runtime.aclose()

    def with_options(self, *, api_key: str | None = None, **options: Unpack[SharedOptions]) -> Self:
        """Return a cheap copy with some options changed; it shares the connection pool and is not closed by itself.

        A key at an address is one account, however many copies use it: one set of limits, pauses and unfinished jobs.
        A copy with another key or address is of another account, whose limits start as those of this one. A copy with
        other limits is as well: what it does is counted apart, but what the provider asks of one holds for both, since
        the key is the same: they pause together and then go on gently. For other limits for everybody there is
        `set_limits`.

        Raises:
            ConfigurationError: an address that is none.
            InputError: an option out of range.
            ClosedError: the client is closed.
        """
        unknown = sorted(options.keys() - SharedOptions.__annotations__)
        if unknown:
            known = ", ".join(["api_key", *SharedOptions.__annotations__])
            msg = f"with_options() has no option {unknown[0]!r}; a copy may change {known}"
            raise TypeError(msg)
        desk = self._desk
        desk.check_open()
        base_url = options.get("base_url") or str(desk.endpoint.base_url)
        if api_key is None:
            endpoint = desk.endpoint.moved(base_url)
        else:
            endpoint = Endpoint(base_url, self.codec.credential(api_key))
        if endpoint.same_as(desk.endpoint):
            endpoint = desk.endpoint
        terms = desk.terms
        if "timeout" in options:
            terms = msgspec.structs.replace(terms, timeout=_timeout(options["timeout"]))
        if "max_retry_after" in options:
            terms = msgspec.structs.replace(terms, max_retry_after=_max_retry_after(options["max_retry_after"]))
        if "resend_uncertain" in options:
            terms = msgspec.structs.replace(terms, resend_uncertain=_resend_uncertain(options["resend_uncertain"]))
        ledger = desk.ledger
        if endpoint is not desk.endpoint or "limits" in options:
            limits = _limits(options["limits"]) if "limits" in options else None
            ledger = desk.runtime.ledger(self.provider, endpoint, limits, otherwise=ledger.account.limits)
        twin = copy.copy(self)
        # The copy is under construction here, so its private parts are ours to set.
        twin._owns_runtime = False  # noqa: SLF001
        twin._desk = Desk(  # noqa: SLF001
            desk.runtime, provider=self.provider, endpoint=endpoint, terms=terms, ledger=ledger
        )
        twin._kinds = twin._make_kinds(twin._desk)  # noqa: SLF001
        return twin

    @property
    def desk(self) -> Desk:
        """Where the client buys and asks; for the library itself."""
        return self._desk

    def keyed(self, key: str) -> Self:
        """Return a copy that buys once, under a caller's own key; the hub calls this."""
        twin, desk = copy.copy(self), self._desk
        # The copy is under construction here, so its private parts are ours to set.
        twin._owns_runtime = False  # noqa: SLF001
        twin._desk = Desk(  # noqa: SLF001
            desk.runtime,
            provider=self.provider,
            endpoint=desk.endpoint,
            terms=desk.terms,
            ledger=desk.ledger,
            key=key,
        )
        twin._kinds = twin._make_kinds(twin._desk)  # noqa: SLF001
        return twin

    def kind_of(self, entry: Entry) -> JobKind[Any] | None:
        """Return the kind of a job in the journal, None for one that this version does not know; the hub calls this."""
        return self._desk.answers if entry.blocking else self._kinds.get(entry.kind)

    async def listed_ids(self, entries: Sequence[Entry]) -> Mapping[str, str]:  # noqa: ARG002 - for subclasses
        """Return by key the ids of those purchases of unknown end that the provider lists; the hub calls this.

        Raises:
            MirageError: the provider could not be asked.
        """
        return {}

    def set_limits(self, limits: Limits) -> None:
        """Put other limits in force for this client's account, from now on; what is under way goes on.

        Raises:
            InputError: not a `Limits`.
            ConfigurationError: the client is in use, and its event loop is another one or does not run.
        """
        if not isinstance(limits, Limits):
            msg = f"limits must be a Limits(...); got {limits!r}"
            raise InputError(msg)
        self._desk.runtime.check_not_elsewhere()
        self._desk.runtime.scheduler.set_limits(self._desk.account, limits)

    @property
    def unfinished_jobs(self) -> int:
        """How many jobs `jobs` returns, counted without making a list of what may be a hundred thousand."""
        return self._desk.unfinished_jobs

    @property
    def jobs(self) -> tuple[Job[Any], ...]:
        """The jobs something may still come of.

        These are the unfinished ones (being bought, being asked about, or no longer watched but still held by someone),
        and finished ones whose caller was cancelled on the way, until somebody awaits them; of these the newest 100.
        """
        return self._desk.jobs

    def job(self, token_or_id: str, *, kind: str | None = None, max_wait: float | None = None) -> Job[Any]:
        """Attach to a job that was submitted before, perhaps by another process, and ask about it at once.

        Call it inside a running event loop.

        Args:
            token_or_id: what `Job.token()` returned, or the provider's id.
            kind: "image" (the default) or "avatar", for a bare id.
            max_wait: seconds to wait; None takes the kind's default.

        Raises:
            InputError: not a token of this provider, or an id that cannot be one.
            ClosedError: the client is closed.
        """
        self._desk.check_open()
        token = read_token(token_or_id)
        if token is not None and token.provider != self.provider:
            msg = f"token must be one of a {self.provider} job; got one of {token.provider!r}"
            raise InputError(msg, provider=self.provider)
        if token is not None and kind not in {None, token.kind}:
            msg = f"kind must be {token.kind!r} for this token; got {kind!r}"
            raise InputError(msg, provider=self.provider)
        name = (token.kind if token else kind) or "image"
        found = self._kinds.get(name)
        if found is None:
            known = " or ".join(map(repr, self._kinds)) or "none: it answers with the picture itself"
            msg = f"kind must be one {self.provider} has jobs of ({known}); got {name!r}"
            raise InputError(msg, provider=self.provider)
        job = new_job(
            found,
            id=passed_id("token_or_id", token.id if token else token_or_id, provider=self.provider),
            key=token.key if token else None,
            model=token.model if token else None,
            status=JobStatus.QUEUED,
        )
        if token is not None and self._desk.runtime.webhooks is not None:
            self._desk.runtime.webhooks.expect(job)
        job.attach(max_wait)
        return job

    @abc.abstractmethod
    async def submit_request(self, request: ImageRequest) -> Job[Generation]:
        """Submit a request given in portable terms; the hub calls this.

        Raises:
            InputError: the provider cannot honour one of the parameters.
        """

    @abc.abstractmethod
    async def generate_request(self, request: ImageRequest) -> Generation:
        """Generate from a request given in portable terms; the hub calls this.

        Raises:
            InputError: the provider cannot honour one of the parameters.
        """

    @abc.abstractmethod
    async def check_request(self, request: ImageRequest) -> None:
        """Check a request given in portable terms as buying it would, and send nothing.

        Raises:
            InputError: the provider cannot honour one of the parameters.
        """

    async def buy_request(self, request: ImageRequest) -> Job[Generation]:
        """Buy from a request given in portable terms and return its job, accepted or finished but never still unsent.

        Cancelling before the request has left buys nothing; afterwards what it buys appears in `jobs`. Batches call
        this. A provider that answers with the picture overrides it, since its `submit` buys in the background.

        Raises:
            InputError: the provider cannot honour one of the parameters.
        """
        return await self.submit_request(request)

    def keep(self, job: Job[Any]) -> None:
        """Have `jobs` list a job of this client, finished or not, until somebody awaits it; of such the newest 100."""
        self._desk.ledger.adopt(job)

    def __repr__(self) -> str:
        state = "closed" if self._desk.runtime.closed else f"{self.unfinished_jobs} unfinished jobs"
        return f"<{type(self).__name__} {self._desk.endpoint.base_url} {state}>"


def _limits(value: Limits | None) -> Limits:
    if value is not None and not isinstance(value, Limits):
        msg = f"limits must be a Limits(...); got {value!r}"
        raise InputError(msg)
    return Limits() if value is None else value


def _timeout(value: float | None) -> float | None:
    if value is not None and (not _is_number(value) or not 0 < value <= LONGEST_TIMEOUT):
        msg = f"timeout must be above 0 and at most {LONGEST_TIMEOUT:g} seconds, or None; got {value!r}"
        raise InputError(msg)
    return value


def _max_retry_after(value: float) -> float:
    if not _is_number(value) or not 0 <= value <= LONGEST_TIMEOUT:
        msg = f"max_retry_after must be 0 to {LONGEST_TIMEOUT:g} seconds; got {value!r}"
        raise InputError(msg)
    return value


def _resend_uncertain(value: bool) -> bool:
    if not isinstance(value, bool):
        msg = f"resend_uncertain must be True or False; got {value!r}"
        raise InputError(msg)
    return value


def check_options(options: SharedOptions) -> None:
    """Raise `InputError` for an option out of range, before any client is made."""
    _timeout(options.get("timeout"))
    _max_retry_after(options.get("max_retry_after", 60.0))
    _resend_uncertain(options.get("resend_uncertain", False))
    _limits(options.get("limits"))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
