"""All providers under one roof: one pool, one scheduler, typed clients, and portable requests."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

import msgspec

from mirage_async._failover import Sellers
from mirage_async.batch import Batch, Budget
from mirage_async.clients import ProviderClient, Providers
from mirage_async.clients._base import SharedOptions, check_options
from mirage_async.clients._inputs import is_several
from mirage_async.clients._recovery import Recovery, checked_decision
from mirage_async.clients._runtime import Runtime
from mirage_async.exceptions import ClosedError, ConfigurationError, InputError
from mirage_async.jobs import Job, checked_wait, read_token
from mirage_async.journal import Journal
from mirage_async.models import Generation, ImageRequest, check_types
from mirage_async.scheduler import Limits, Scheduler, SchedulerStatistics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    import aiohttp

    from mirage_async.clients._recovery import OnUncertain
    from mirage_async.models import ImageInput
    from mirage_async.webhooks import WebhookReceiver

__all__ = ["Mirage", "MirageStatistics"]


class MirageStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a hub at one moment.

    Attributes:
        unfinished_jobs: by provider, for the providers used so far.
        paid_posts_in_flight: requests that may cost money and are on the wire.
        scheduler: the scheduler's counts.
    """

    unfinished_jobs: Mapping[str, int]
    paid_posts_in_flight: int
    scheduler: SchedulerStatistics


class Mirage(Providers):
    """All four providers: `mirage.mirako`, `.miragic`, `.mira` and `.milady` are their typed clients.

    A client is made when it is first used, so a hub needs keys only for the providers somebody really uses. Use it as
    `async with Mirage() as mirage`, or call `aclose()` yourself.

    Args:
        api_keys: keys by provider name; for a provider not in it, the environment is read.
        base_urls: addresses by provider name; for a provider not in it, the environment is read, then the provider's
            own is taken.
        limits: one `Limits` for every provider account, or a mapping by provider name.
        scheduler: decides when to ask about jobs; None learns how long jobs take, with
            `AdaptiveInterval`, and goes by the providers' documents until then. It is closed with the hub.
        webhooks: where providers can call back. Mirako's jobs are then submitted with an address of the receiver's,
            and asked about when that is called; see `mirage_async.webhooks`. None leaves it to the scheduler.
        journal: keeps what was paid for over the end of the process; see `mirage_async.journal`. It is closed with the
            hub. None keeps nothing.
        proxy: address of an HTTP proxy for everything the hub sends.
        session: your own `aiohttp.ClientSession` for the API calls; it is never closed here.
        timeout: seconds to wait for one answer; see `ProviderClient`.
        max_retry_after: see `ProviderClient`.
        resend_uncertain: see `ProviderClient`; off by default, since it can make you pay twice.

    Raises:
        InputError: a mapping names a provider that does not exist, `webhooks` is no receiver, or `journal` no journal.
    """

    def __init__(
        self,
        api_keys: Mapping[str, str] | None = None,
        *,
        base_urls: Mapping[str, str] | None = None,
        limits: Limits | Mapping[str, Limits] | None = None,
        scheduler: Scheduler | None = None,
        webhooks: WebhookReceiver | None = None,
        journal: Journal | None = None,
        proxy: str | None = None,
        session: aiohttp.ClientSession | None = None,
        timeout: float | None = None,
        max_retry_after: float = 60.0,
        resend_uncertain: bool = False,
    ) -> None:
        self._classes = Providers.classes()
        self._api_keys = self._by_provider("api_keys", api_keys)
        self._base_urls = self._by_provider("base_urls", base_urls)
        shared = limits if isinstance(limits, Limits) else None
        self._limits = self._by_provider("limits", None if isinstance(limits, Limits) else limits)
        self._default_limits = Limits() if shared is None else shared
        self._options: SharedOptions = {
            "timeout": timeout,
            "max_retry_after": max_retry_after,
            "resend_uncertain": resend_uncertain,
        }
        for each in (*self._limits.values(), self._default_limits):
            check_options({**self._options, "limits": each})
        _check_receiver(webhooks)
        _check_journal(journal)
        self._runtime = Runtime(scheduler=scheduler, session=session, proxy=proxy, webhooks=webhooks, journal=journal)
        self._clients: dict[str, ProviderClient] = {}
        self._recovery = None if journal is None else Recovery(self._runtime, journal, self.client)
        self._sellers = Sellers(self.client, journal, self._check_open)

    def _by_provider(self, name: str, mapping: Mapping[str, Any] | None) -> dict[str, Any]:
        if mapping is not None and not isinstance(mapping, Mapping):
            shown = (
                type(mapping).__name__ if name == "api_keys" else repr(mapping)
            )  # a lone key is no text for an error
            msg = f"{name} must be a mapping by provider; got {shown}"
            raise InputError(msg)
        for provider in mapping or {}:
            if provider not in self._classes:
                msg = f"{name} must be by provider, one of {self._names()}; got {provider!r}"
                raise InputError(msg)
        return dict(mapping or {})

    def _names(self) -> str:
        return ", ".join(map(repr, self._classes))

    def __getattr__(self, name: str) -> Any:
        """Make the client of a provider on first use."""
        if name.startswith("_") or name not in self._classes:
            msg = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(msg)
        return self.client(name)

    def client(self, provider: str | None) -> ProviderClient:
        """Return the client of a provider by name.

        Raises:
            InputError: there is no such provider.
            ConfigurationError: it has no key.
            ClosedError: the hub is closed and the client was never used.
        """
        if not isinstance(provider, str) or provider not in self._classes:
            msg = f"provider must be one of {self._names()}; got {provider!r}"
            raise InputError(msg)
        found = self._clients.get(provider)
        if found is None:
            self._check_open()
            found = self._clients[provider] = self._classes[provider].within(
                self._runtime,
                self._api_keys.get(provider),
                {
                    **self._options,
                    "base_url": self._base_urls.get(provider),
                    "limits": self._limits.get(provider, self._default_limits),
                },
            )
        return found

    def _check_open(self) -> None:
        if self._runtime.closed:
            msg = "the hub is closed"
            raise ClosedError(msg)

    async def __aenter__(self) -> Self:
        """Return the hub; nothing is opened before the first request.

        With a journal, what the processes before have learned about how long jobs take is read from it.
        """
        self._check_open()
        if self._recovery is not None:
            self._recovery.listen()
        if self._runtime.memory is not None:
            await self._runtime.memory.begin()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the hub."""
        await self.aclose()

    async def aclose(self) -> None:
        """Stop asking and close the pool; see `ProviderClient.aclose`. May be called twice."""
        await self._runtime.aclose()

    async def generate(
        self,
        prompt: str,
        *,
        provider: str | None = None,
        providers: Sequence[str] | None = None,
        aspect_ratio: str | None = None,
        size: str | None = None,
        n: int | None = None,
        seed: int | None = None,
        model: str | None = None,
        references: Sequence[ImageInput] = (),
        options: Mapping[str, Any] | None = None,
        max_wait: float | None = None,
    ) -> Generation:
        """Buy pictures in portable terms and wait for them.

        A parameter the provider cannot honour is refused with the nearest it can; nothing is dropped or rounded in
        silence. None leaves a parameter to the provider.

        Args:
            prompt: what to draw.
            provider: "mirako", "miragic", "mira" or "milady".
            providers: in place of `provider`, several: the next one is asked only where the one before is proven to
                have taken no money, or where its job has failed, been cancelled or expired over there; never after an
                uncertain purchase or a wait that ran out. `Generation.tried`, or the error's `tried`, tells of each.
                All must be able to honour the request. They are never asked at once, which would buy twice.
            aspect_ratio: such as "16:9".
            size: such as "1024x1536"; give this or `aspect_ratio`.
            n: how many pictures; each provider has its maximum (1 or 4).
            seed: for a repeatable picture (Mirako).
            model: the provider's name of a model (Miragic, Milady).
            references: pictures to work from.
            options: the provider's own further parameters, such as `{"quality": "high"}` at Mira.
            max_wait: seconds to watch the job, for providers with jobs; at Mirako it selects the job endpoint instead
                of the blocking one.

        Raises:
            InputError: an unknown provider, or a parameter it cannot honour; nothing was sent.
            ConfigurationError: the provider has no key.
            MirageError: what the provider's client raises.
        """
        request = self._request(
            prompt,
            provider=provider,
            providers=providers,
            aspect_ratio=aspect_ratio,
            size=size,
            n=n,
            seed=seed,
            model=model,
            references=references,
            options=options,
            max_wait=max_wait,
        )
        return await self._sellers.generate(request)

    async def submit(
        self,
        prompt: str | ImageRequest,
        *,
        provider: str | None = None,
        providers: Sequence[str] | None = None,
        aspect_ratio: str | None = None,
        size: str | None = None,
        n: int | None = None,
        seed: int | None = None,
        model: str | None = None,
        references: Sequence[ImageInput] = (),
        options: Mapping[str, Any] | None = None,
        max_wait: float | None = None,
    ) -> Job[Generation]:
        """Submit a request in portable terms and return its job.

        Args:
            prompt: what to draw, or a whole `ImageRequest`; what is given beside one takes the place of its field.
            provider: as for `generate`, and so are the rest.
            providers: as for `generate`, as far as `submit` sees: the next one is asked where one does not accept. What
                becomes of an accepted job is no longer its business, and Mira and Milady "accept" at once. The job's
                result, or its error, tells in `tried` of those before it.
            aspect_ratio: as for `generate`.
            size: as for `generate`.
            n: as for `generate`.
            seed: as for `generate`.
            model: as for `generate`.
            references: as for `generate`.
            options: as for `generate`.
            max_wait: as for `generate`.

        Raises:
            InputError: as for `generate`.
            ConfigurationError: as for `generate`.
            MirageError: what the provider's client raises.
        """
        request = self._request(
            prompt,
            provider=provider,
            providers=providers,
            aspect_ratio=aspect_ratio,
            size=size,
            n=n,
            seed=seed,
            model=model,
            references=references,
            options=options,
            max_wait=max_wait,
        )
        return await self._sellers.submit(request)

    async def recover(
        self, *, on_uncertain: OnUncertain = "report", any_account: bool = False, max_wait: float | None = None
    ) -> list[Job[Any]]:
        """Return the jobs that earlier processes paid for, or may have, and that nobody has had the outcome of.

        Call it at the start. Jobs the provider has accepted are asked about at once, finished ones hold their result. A
        purchase of which only the intent is on record is first looked for: in Mirako's list of avatars, and among the
        webhooks that come within the time such a job takes. Its job has the status "submitting" meanwhile, and awaiting
        it raises `SubmissionUncertainError` if that was in vain, unless `on_uncertain` says otherwise. A result may
        come twice, where a process ended just after it was handed over, but never not at all.

        A second call does not return what the first one did: those jobs are in the hands of whoever called. It returns
        what a cancelled call has left, and what was bought in this process for callers who were cancelled, if `jobs`
        keeps it no longer.

        A job whose provider has no key here, or another account's, is logged and stays in the journal. So does what a
        process that is still alive works on.

        Args:
            on_uncertain: what to do about a purchase that may have been made: "report" it; "resubmit" it, which can
                make you pay twice and needs the request, kept by `Journal(store_prompts=True)`; "abandon" it, so that
                it is never returned again. Or a function, plain or async, of its `journal.Entry` that returns one of
                these.
            any_account: take the jobs of other keys and addresses of the same provider, too, as after a change of keys.
            max_wait: seconds to watch each job; None takes the default of its kind.

        Raises:
            ConfigurationError: the hub has no journal.
            InputError: an argument out of range.
            JournalError: the journal cannot be read or written.
        """
        self._check_open()
        if self._recovery is None:
            msg = "there is nothing to recover from without a journal: Mirage(journal=Journal(...))"
            raise ConfigurationError(msg)
        wait = None if max_wait is None else checked_wait(max_wait)
        return await self._recovery.recover(
            on_uncertain=checked_decision(on_uncertain), any_account=any_account, max_wait=wait
        )

    def _request(self, prompt: str | ImageRequest, **fields: Any) -> ImageRequest:
        """Build the request from a prompt, or lay the fields that are given over a whole one."""
        self._check_open()
        fields["references"] = _several(fields["references"])
        fields["providers"] = _named(fields["provider"], fields["providers"])
        if isinstance(prompt, ImageRequest):
            check_types(prompt)
            given = {name: value for name, value in fields.items() if value is not None and value != ()}
            if "provider" in given or "providers" in given:  # one takes the place of the other as well
                given = {"provider": None, "providers": (), **given}
            request = msgspec.structs.replace(prompt, **given)
        else:
            request = ImageRequest(prompt=prompt, **fields)
        self._sellers.of(request)
        return request

    def batch(
        self,
        requests: Iterable[ImageRequest | str] | AsyncIterable[ImageRequest | str],
        *,
        provider: str | None = None,
        providers: Sequence[str] | None = None,
        limit: int = 8,
        budget: Budget | None = None,
        ordered: bool = False,
        split: bool = False,
    ) -> Batch:
        """Buy many requests, `limit` at a time: `async for outcome in mirage.batch(requests)`.

        Nothing is pulled or bought before the first outcome is asked for. `Batch` says what is promised.

        Args:
            requests: the input; a prompt alone stands for a request with nothing else.
            provider: who draws the items that name nobody.
            providers: in place of `provider`, as for `generate`.
            limit: the most items under way: pulled, and their outcome not yet taken.
            budget: where to stop buying; not with `resend_uncertain`.
            ordered: give the outcomes in the order of the input, and not as they come.
            split: buy an `n` above the provider's maximum in several requests, with an outcome each.

        Raises:
            InputError: an argument out of range; nothing was pulled or bought.
            ConfigurationError: `provider` or one of `providers` has no key.
            ClosedError: the hub is closed.
        """
        self._check_open()
        if budget is not None and self._options.get("resend_uncertain"):
            msg = (
                "a budget cannot be kept by a hub that may buy a request more than once: Mirage(resend_uncertain=True)"
            )
            raise InputError(msg)
        names = _named(provider, providers)
        if provider is not None or names:
            self._sellers.of(ImageRequest(prompt="", provider=provider, providers=names))
        return Batch(
            requests,
            self._sellers,
            provider=provider,
            providers=names,
            limit=limit,
            budget=budget,
            ordered=ordered,
            split=split,
        )

    def job(self, token: str, *, max_wait: float | None = None) -> Job[Any]:
        """Attach to a job by its token, whoever submitted it, and ask about it at once.

        Args:
            token: what `Job.token()` returned.
            max_wait: seconds to watch it; None takes the default of its kind.

        Raises:
            InputError: not a token.
            ConfigurationError: the token's provider has no key here.
        """
        read = read_token(token)
        if read is None:
            msg = (
                f"token must be what Job.token() returned; got {token[:60]!r} (for a bare id use the provider's client)"
            )
            raise InputError(msg)
        return self.client(read.provider).job(token, max_wait=max_wait)

    def statistics(self) -> MirageStatistics:
        """Return the counts of this moment."""
        return MirageStatistics(
            unfinished_jobs={name: client.unfinished_jobs for name, client in self._clients.items()},
            paid_posts_in_flight=self._runtime.transport.paid_posts.borrowed_tokens,
            scheduler=self._runtime.scheduler.statistics(),
        )

    def __repr__(self) -> str:
        state = "closed" if self._runtime.closed else f"in use: {', '.join(self._clients) or 'none yet'}"
        return f"<Mirage {state}>"


def _check_receiver(webhooks: object) -> None:
    if webhooks is None:
        return
    from mirage_async.webhooks import WebhookReceiver  # noqa: PLC0415 - and with it aiohttp, for those who use it

    if not isinstance(webhooks, WebhookReceiver):
        msg = f"webhooks must be a WebhookReceiver or None; got a value of type {type(webhooks).__name__}"
        raise InputError(msg)


def _check_journal(journal: object) -> None:
    if journal is not None and not isinstance(journal, Journal):
        msg = f"journal must be a Journal or None; got a value of type {type(journal).__name__}"
        raise InputError(msg)


def _named(provider: str | None, providers: Sequence[str] | None) -> tuple[str, ...]:
    if providers is None:
        return ()
    if provider is not None:
        msg = f"give provider or providers, not both; got {provider!r} and {providers!r}"
        raise InputError(msg)
    if isinstance(providers, str | bytes) or not isinstance(providers, Iterable) or not (names := tuple(providers)):
        msg = f"providers must be a sequence of names, at least one; got {providers!r}"
        raise InputError(msg)
    return names


def _several(references: Any) -> tuple[Any, ...]:
    if not is_several(references):
        msg = f"references must be a sequence of pictures; got a single {type(references).__name__}: write [picture]"
        raise InputError(msg)
    return tuple(references)
