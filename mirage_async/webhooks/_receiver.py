"""The receiver: from one HTTP request, as plain values, to an answer and a job that is asked about.

Nothing here does I/O, and nothing here believes a delivery. What a genuine one can do is to have one authenticated
status call made a little earlier; the answer to that call is what resolves the job. So a token that leaks costs a
request, at most one in two seconds, and nothing else.

`admit` decides by path, method and headers, before anybody reads a body; `finish` decides by the body. `handle` is both
for callers that have the body already. Refusing is cheap: no table grows, and nothing is logged above DEBUG.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import pkgutil
import threading
import warnings
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from mirage_async import wire
from mirage_async._clock import Clock, SystemClock
from mirage_async._transport import is_loopback
from mirage_async.exceptions import ConfigurationError, InputError, WebhookVerificationError
from mirage_async.webhooks._expected import Expected
from mirage_async.webhooks._headers import finder
from mirage_async.webhooks._inbox import Hint, Seen
from mirage_async.webhooks._secrets import receiver_secrets
from mirage_async.webhooks._signatures import TOLERANCE, StandardWebhooks
from mirage_async.webhooks._tokens import CallbackTokens
from mirage_async.wire import is_web_address

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohttp import web

    from mirage_async.jobs import Job
    from mirage_async.webhooks._asgi import ASGIApp
    from mirage_async.webhooks._headers import Find, Headers
    from mirage_async.webhooks._tokens import Claim

__all__ = ["ReceiverStatistics", "WebhookReceiver", "WebhookReply"]

_logger = logging.getLogger("mirage_async.webhooks")

BODY_TIME = 30.0  # seconds a body may take
LONGEST_LIFETIME = 7 * 24 * 3600.0  # seconds
_LONGEST_PUBLIC_URL = 1900  # characters; providers take addresses of 2048
_LONGEST_TEXT = 128  # characters, as many as the ids of providers may have
_BEARER = "bearer "
_CLOCK_SKEW = 300.0  # seconds by which the clocks of two replicas may differ


class WebhookReply(msgspec.Struct, frozen=True, kw_only=True):
    """What to answer.

    Attributes:
        status: 204 for a delivery that was taken, also for one that was taken before; 401 for a bad or missing
            credential, 400 for a body that is not a JSON object, 404 for a path that is none of ours, 405 for
            anything but POST, 413 for too much, 415 for a body that is encoded, 408
            for one that takes too long.
        headers: to be sent with it.
        body: always empty; nothing is ever echoed.
        hint: what was taken, None where nothing was, or nothing new.
    """

    status: int
    headers: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    body: bytes = b""
    hint: Hint | None = None


class ReceiverStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a receiver at one moment.

    Attributes:
        replies: answers so far, by status.
        duplicates: signed deliveries that were taken before.
        hints_woken: hints that had a status call made, or wait for the next one; several may share one.
        hints_early: hints that came before the answer to the purchase.
        hints_unknown: hints about jobs this process does not know.
        hints_late: hints about jobs that had ended, or did before their turn came.
        hints_unwatched: hints about jobs nobody waits for any more, since the wait is over or the hub closed.
        parked: early and unknown hints that are kept for their jobs.
        expected: jobs a webhook may come for.
    """

    replies: Mapping[int, int]
    duplicates: int
    hints_woken: int
    hints_early: int
    hints_unknown: int
    hints_late: int
    hints_unwatched: int
    parked: int
    expected: int


class Admission(msgspec.Struct, frozen=True):
    """A request whose path, method and headers are in order."""

    provider: str
    key: str


class _News(msgspec.Struct):
    """What a body usually says about itself."""

    id: str | None = None
    status: str | None = None


class _Anything(msgspec.Struct):
    """Any JSON object; nothing in it is believed, so anything may stand there."""


_TAKEN = WebhookReply(status=204)
_MALFORMED = WebhookReply(status=400)
_UNAUTHORIZED = WebhookReply(status=401)
_UNAUTHORIZED_BEARER = WebhookReply(status=401, headers={"WWW-Authenticate": "Bearer"})
_FOREIGN = WebhookReply(status=404)
_NOT_ALLOWED = WebhookReply(status=405, headers={"Allow": "POST"})
_TOO_LARGE = WebhookReply(status=413)
TIMED_OUT = WebhookReply(status=408)  # for adapters, which read the body
CUT_SHORT = WebhookReply(status=400)
_ENCODED = WebhookReply(status=415, headers={"Accept-Encoding": "identity"})

_news = msgspec.json.Decoder(_News)
_anything = msgspec.json.Decoder(_Anything)
_NO_NEWS = _News()
_PROVIDERS = frozenset(module.name for module in pkgutil.iter_modules(wire.__path__) if module.name[0] != "_")


class WebhookReceiver:
    """Takes the deliveries of providers at addresses that only it can have given out.

    Give it to the hub, `Mirage(webhooks=receiver)`, and mount `aiohttp_app()` or `asgi_app()` where `public_url` leads;
    or pass every request to `handle`. It may be made anywhere, and `handle` may be called from any thread. The jobs it
    wakes belong to one event loop, the one of the hub.

    Args:
        public_url: where providers reach it: http(s), without query; the provider's name and the token are added to
            its path. It is never guessed from a request. A proxy in front may have another path before the last two
            segments. With http, tokens travel in clear: a `UserWarning` says so unless the host is this machine.
        secret: at least 32 random bytes, as bytes or text (`secrets.token_hex(32)`), or up to eight of them: the first
            signs, all are accepted. To rotate, put a new one first, and take the old one out after `lifetime`. All
            replicas of a service need the same.
        signing_secrets: by provider, the Standard Webhooks secret ("whsec_...") its deliveries are signed with, or
            several. A delivery of such a provider without a good signature is refused; there is no way back to
            unsigned. None of the four documents signatures.
        lifetime: seconds an address is good for, above 0 and at most a week.
        max_body_bytes: the most that is read of a body; Mirako's may carry a picture in base64.
        clock: whose date decides what has expired; None takes the system's.

    Raises:
        ConfigurationError: an address or a secret that cannot be used.
        InputError: a number is out of range.
    """

    def __init__(
        self,
        *,
        public_url: str,
        secret: str | bytes | Sequence[str | bytes],
        signing_secrets: Mapping[str, str | bytes | Sequence[str | bytes]] | None = None,
        lifetime: float = 24 * 3600.0,
        max_body_bytes: int = 10 << 20,
        clock: Clock | None = None,
    ) -> None:
        self._public_url = _checked_url(public_url)
        self._tokens = CallbackTokens(receiver_secrets(secret))
        self._clock: Clock = SystemClock() if clock is None else clock
        self._lifetime = _lifetime(lifetime)
        if isinstance(max_body_bytes, bool) or not isinstance(max_body_bytes, int) or max_body_bytes < 1:
            msg = f"max_body_bytes must be a whole number from 1; got {max_body_bytes!r}"
            raise InputError(msg)
        self.max_body_bytes = max_body_bytes
        if signing_secrets is not None and not isinstance(signing_secrets, Mapping):
            msg = f"signing_secrets must be a mapping by provider; got a value of type {type(signing_secrets).__name__}"
            raise InputError(msg)
        self._signatures = {
            _provider(provider): StandardWebhooks(secrets, clock=self._clock)
            for provider, secrets in (signing_secrets or {}).items()
        }
        self.expected = Expected(self._clock, self._public_url)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._seen = Seen(2 * TOLERANCE + 1)  # a timestamp may lie so far ahead, and be good for so long after it
        self._replies: Counter[int] = Counter()
        self._duplicates = 0

    # --- giving addresses out ---

    def callback_url(self, provider: str, key: str) -> str:
        """Return the address at which `provider` may announce the job whose `Job.key` is `key`.

        Whoever knows the address can use it. Where the provider sends a bearer token back, `callback` is better.

        Raises:
            InputError: an unknown provider, or no key of a job.
        """
        return self._address(provider, key, bearer=False)[0]

    def callback(self, provider: str, key: str) -> tuple[str, str]:
        """Return an address and the bearer token without which it opens nothing; raises as `callback_url` does.

        For providers that send a token back as `Authorization: Bearer`, as Mirako does: `submit(..., webhook=...)`.
        """
        url, bearer = self._address(provider, key, bearer=True)
        return url, bearer or ""

    def callback_for(self, provider: str, key: str) -> tuple[str, str | None]:
        """Return what suits the way `provider` calls: `callback`, or the address alone and None."""
        takes_token: bool = import_module(f"{wire.__name__}.{_provider(provider)}").CALLBACK_TOKEN
        return self._address(provider, key, bearer=takes_token)

    def _address(self, provider: str, key: str, *, bearer: bool) -> tuple[str, str | None]:
        name = _provider(provider)
        token, secret = self._tokens.mint(name, key, self._clock.time() + self._lifetime, bearer=bearer)
        return f"{self._public_url}/{name}/{token}", secret

    def expect(self, job: Job[Any]) -> None:
        """Have deliveries for this job wake it. The hub does it for its jobs; call it in their event loop.

        The job is not kept alive by it.

        Raises:
            ConfigurationError: the receiver has jobs in another event loop, and that one is not closed.
        """
        self._settle_in()
        self.expected.expect(job)

    def listen(self, unclaimed: Callable[[Hint], object]) -> None:
        """Have deliveries told, in the running event loop, about jobs that nobody here waits for; for the hub.

        Raises:
            ConfigurationError: as `expect`.
        """
        self._settle_in()
        self.expected.unclaimed = unclaimed

    def _settle_in(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                msg = "a receiver belongs to one event loop; make another one, with the same secret, for this loop"
                raise ConfigurationError(msg)
            self._loop = loop

    # --- taking deliveries ---

    def handle(self, method: str, path: str, headers: Headers, body: bytes | bytearray) -> WebhookReply:
        """Take one request and say what to answer. Synchronous, quick, and callable from any thread.

        Args:
            method: of the request.
            path: of the request, or as much of it as the framework gives; only the last two segments matter.
            headers: a mapping with names in any case, or pairs of text or bytes.
            body: the raw bytes, before any parsing or decoding.

        Raises:
            InputError: an argument of another type; no request can cause it.
        """
        if not isinstance(method, str) or not isinstance(path, str) or not isinstance(body, bytes | bytearray):
            msg = "handle() takes the method and path as text and the body as bytes"
            raise InputError(msg)
        find = finder(headers)
        admitted = self.admit(method, path, find)
        return admitted if isinstance(admitted, WebhookReply) else self.finish(admitted, find, body)

    def admit(self, method: str, path: str, find: Find) -> Admission | WebhookReply:
        """Decide by all but the body: the reason to go on and read it, or the answer.

        Args:
            method: as for `handle`.
            path: as for `handle`.
            find: returns a header by its lower-case name.
        """
        admitted = self._admit(method, path, find)
        return self._counted(admitted) if isinstance(admitted, WebhookReply) else admitted

    def _admit(self, method: str, path: str, find: Find) -> Admission | WebhookReply:
        rest, _, token = path.partition("?")[0].rpartition("/")
        provider = rest.rpartition("/")[2]
        if provider not in _PROVIDERS:
            return _FOREIGN
        if method != "POST":
            return _NOT_ALLOWED
        claim = self._claim(provider, token, find)
        if isinstance(claim, WebhookReply):
            return claim
        coding = find("content-encoding")
        if coding and coding.lower() != "identity":  # names of codings have no case
            return _ENCODED
        if self._is_too_long(find("content-length")):
            return _TOO_LARGE
        return Admission(provider, claim.key)

    def _claim(self, provider: str, token: str, find: Find) -> Claim | WebhookReply:
        """Return what the credentials say, or the answer to bad ones."""
        claim = self._tokens.read(provider, token)
        if claim is None or claim.expires_at + _CLOCK_SKEW < self._clock.time():
            _logger.debug("a %s token %s is refused", provider, _Fingerprint(token))
            return _UNAUTHORIZED
        if claim.bearer is not None and not _has_bearer(find("authorization"), claim.bearer):
            _logger.debug("the %s token %s came without its bearer token", provider, _Fingerprint(token))
            return _UNAUTHORIZED_BEARER
        return claim

    def _is_too_long(self, declared: str | None) -> bool:
        return declared is not None and declared.isdecimal() and int(declared[:20]) > self.max_body_bytes

    def finish(self, admission: Admission, find: Find, body: bytes | bytearray) -> WebhookReply:
        """Decide by the body, and act on it.

        Args:
            admission: what `admit` returned.
            find: the same.
            body: all of it, or more than `max_body_bytes` of it.
        """
        return self._counted(self._finish(admission, find, body))

    def _finish(self, admission: Admission, find: Find, body: bytes | bytearray) -> WebhookReply:
        if len(body) > self.max_body_bytes:
            return _TOO_LARGE
        signatures = self._signatures.get(admission.provider)
        message_id: str | None = None
        if signatures is not None:
            try:
                message_id = signatures.verify_found(find, bytes(body))
            except WebhookVerificationError:
                return _UNAUTHORIZED
        try:
            news = _read(body) if body else _NO_NEWS
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors, and so are those about UTF-8
            return _MALFORMED
        if message_id is not None:
            with self._lock:
                if not self._seen.add((admission.provider, message_id), self._clock.monotonic()):
                    self._duplicates += 1
                    return _TAKEN
        hint = Hint(provider=admission.provider, key=admission.key, job_id=_text(news.id), status=_text(news.status))
        self._pass_on(hint)
        return WebhookReply(status=204, hint=hint)

    def _pass_on(self, hint: Hint) -> None:
        """Tell the jobs, in their event loop."""
        if self._loop is None:  # nobody is expected yet, and there may be any number of threads
            with self._lock:
                self.expected.arrived(hint)
            return
        if _running_loop() is self._loop:
            self.expected.arrived(hint)
            return
        try:
            self._loop.call_soon_threadsafe(self.expected.arrived, hint)
        except RuntimeError:  # the loop has ended, and with it the jobs it could have woken
            _logger.debug("a delivery came after the event loop had ended")

    def _counted(self, reply: WebhookReply) -> WebhookReply:
        with self._lock:
            self._replies[reply.status] += 1
        return reply

    # --- mounting and looking ---

    def aiohttp_app(self) -> web.Application:
        """Return an application for `app.add_subapp("/hooks", ...)`, or to run by itself.

        It reads bodies itself, up to `max_body_bytes` and for at most 30 seconds: aiohttp holds a sub-application to
        the limit of the application it is added to, one megabyte by default.
        """
        from mirage_async.webhooks._aiohttp import application  # noqa: PLC0415 - the core needs no framework

        return application(self)

    def asgi_app(self) -> ASGIApp:
        """Return an ASGI application for `app.mount("/hooks", ...)` of Starlette and FastAPI, or to run by itself.

        It reads bodies itself, up to `max_body_bytes` and for at most 30 seconds.
        """
        from mirage_async.webhooks._asgi import application  # noqa: PLC0415 - the core needs no framework

        return application(self)

    def statistics(self) -> ReceiverStatistics:
        """Return the counts of this moment."""
        became = self.expected.became
        return ReceiverStatistics(
            replies=dict(sorted(self._replies.items())),
            duplicates=self._duplicates,
            hints_woken=became["woken"],
            hints_early=became["early"],
            hints_unknown=became["unknown"],
            hints_late=became["late"],
            hints_unwatched=became["unwatched"],
            parked=len(self.expected.inbox),
            expected=len(self.expected),
        )

    def __repr__(self) -> str:
        return f"<WebhookReceiver {self._public_url} expecting {len(self.expected)} jobs>"


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class _Fingerprint:
    """A token as a log may show it: enough to find it again, nothing to use it by; computed only if shown."""

    __slots__ = ("_token",)

    def __init__(self, token: str) -> None:
        self._token = token

    def __str__(self) -> str:
        return f"#{sha256(self._token.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _has_bearer(header: str | None, expected: bytes) -> bool:
    if header is None or header[: len(_BEARER)].lower() != _BEARER:
        return False
    return hmac.compare_digest(expected, header[len(_BEARER) :].strip(" ").encode("utf-8", "replace"))


def _read(body: bytes | bytearray) -> _News:
    try:
        return _news.decode(body)
    except msgspec.ValidationError:  # JSON with something else under these names, or no object at all
        _anything.decode(body)
        return _NO_NEWS


def _text(said: str | None) -> str | None:
    """Return short printable text, None for anything else."""
    return said if said is not None and len(said) <= _LONGEST_TEXT and said.isprintable() else None


def _provider(name: str) -> str:
    if not isinstance(name, str) or name not in _PROVIDERS:
        msg = f"provider must be one of {', '.join(sorted(_PROVIDERS))}; got {name!r:.60}"
        raise InputError(msg)
    return name


def _checked_url(url: str) -> str:
    if not isinstance(url, str) or len(url) > _LONGEST_PUBLIC_URL or set("?#") & set(url) or not is_web_address(url):
        got = f"{len(url)} characters" if isinstance(url, str) else f"a value of type {type(url).__name__}"
        msg = (
            f"public_url must be an absolute http(s) address of at most {_LONGEST_PUBLIC_URL} characters without user "
            f"name, query and fragment; got {got}"
        )
        raise ConfigurationError(msg)
    if url[:5].lower() == "http:" and not is_loopback(url):
        msg = "public_url is http and not https: the tokens that open its addresses travel in clear"
        warnings.warn(msg, UserWarning, stacklevel=3)
    return url.rstrip("/")


def _lifetime(seconds: float) -> float:
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds <= LONGEST_LIFETIME:
        msg = f"lifetime must be above 0 and at most {LONGEST_LIFETIME:.0f} seconds; got {seconds!r}"
        raise InputError(msg)
    return float(seconds)
