"""Canaries for a key and a prompt: no error, no traceback, no log line and no foreign server ever sees one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from impatient import until
from purchases import PURCHASES, Purchase, buying, honest, picture, portrait, quick
from rogues import Act, Rogue, Seen, answer, closed_port, json_answer, rogue

from mirage_async import MiladyClient, MiraClient, Mirage, MiragicClient, MirakoClient
from mirage_async._transport import Endpoint
from mirage_async.exceptions import ClosedError, ConfigurationError, InputError, MirageError
from mirage_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

pytestmark = pytest.mark.anyio

# Module constants on purpose: a local variable of a test would be found in its own frame.
KEY = "canaryKEY0123456789abcdef"
SHAPED_KEY = "sk-canary-0123456789abcdef"
PROMPT = "canary prompt, a secret lighthouse"

TESTS = str(Path(__file__).parent)  # the tests' own frames hold canaries of their own

every_purchase = pytest.mark.parametrize("purchase", PURCHASES, ids=repr)


@pytest.fixture(autouse=True)
def logs(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Record everything anybody logs, down to DEBUG."""
    caplog.set_level(logging.DEBUG)
    for name in ("mirage_async", "aiohttp", "aiohttp.client", "aiohttp.internal", "asyncio"):
        caplog.set_level(logging.DEBUG, name)
    return caplog


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _frames(shown: traceback.TracebackException | None) -> Iterator[traceback.FrameSummary]:
    if shown is not None:
        yield from shown.stack
        yield from _frames(shown.__cause__)
        yield from _frames(shown.__context__)


def renderings(error: MirageError) -> dict[str, str]:
    """Return every way an error is commonly shown, kept or sent elsewhere, except for the locals of its frames."""
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    return {
        "str": str(error),
        "repr": repr(error),
        "vars": " ".join(f"{one!r} {vars(one)!r}" for one in _chain(error)),
        "traceback": "".join(traceback.format_exception(error)),
        "pickle": repr(pickle.dumps(error)),
        "unpickled": f"{copied!r} {copied} {vars(copied)!r}",
    }


def local_variables(error: MirageError) -> dict[str, str]:
    """Return the locals of the library's frames as a collector of crashes would, by "function.name"."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [frame for frame in _frames(shown) if not frame.filename.startswith(TESTS)]
    return {f"{frame.name}.{name}": text for frame in frames for name, text in (frame.locals or {}).items()}


def assert_clean(error: MirageError, caplog: pytest.LogCaptureFixture, *, prompt: bool = True) -> None:
    """Fail where a canary shows, whatever way one looks at the error and the log."""
    logged = " ".join(f"{record.getMessage()} {record.args!r} {record.exc_text}" for record in caplog.records)
    seen = {**renderings(error), "log": logged + caplog.text}
    for canary in (KEY, SHAPED_KEY, *([PROMPT] if prompt else [])):
        assert [way for way, text in seen.items() if canary in text] == []
    for canary in (KEY, SHAPED_KEY):
        assert [name for name, text in local_variables(error).items() if canary in text] == []


# -- errors of a purchase --------------------------------------------------------------------------------------------

ECHO = {"error": {"code": "X", "message": "no"}, "prompt": PROMPT, "errors": [{"value": PROMPT}], "input": PROMPT}
ACTS = {
    "reset": Act(then="rst"),
    "closed": Act(then="fin"),
    "silence": Act(then="hold"),
    "junk": Act(write=b"\x00\x01 what\r\n\r\n"),
    "cut": Act(write=b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"),
    "bad encoding": Act(write=answer(200, b"?", {"Content-Encoding": "gzip"})),
    "unreadable": Act(write=answer(200, b"<html>")),
    "hollow": Act(write=json_answer({"data": {}})),
    "denied": Act(write=json_answer({"success": False, **ECHO})),
    **{
        f"{status}": Act(write=json_answer(ECHO, status))
        for status in (301, 307, 400, 401, 402, 403, 404, 409, 413, 422, 429, 500, 502, 503)
    },
    "moderated": Act(write=json_answer({"error": "content_blocked", "prompt": PROMPT}, 400)),
    "throttled for long": Act(write=json_answer(ECHO, 429, {"Retry-After": "3600"})),
    "page": Act(write=answer(502, b"<html>Bad gateway</html>", {"Content-Type": "text/html"})),
}


async def failed(purchase: Purchase, url: str, *, timeout: float = 5) -> MirageError:
    """Return the error of a purchase with the canaries in it."""
    with anyio.fail_after(30):
        async with buying(purchase, url, timeout=timeout) as client:
            twin = client.with_options(api_key=KEY)
            with pytest.raises(MirageError) as caught:
                await purchase.buy(twin, prompt=PROMPT)
    return caught.value


@every_purchase
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
async def test_no_error_of_a_purchase_shows_a_canary(
    purchase: Purchase, act: Act, caplog: pytest.LogCaptureFixture
) -> None:
    """Text, repr, attributes, chained errors, tracebacks (for the key with locals), pickles and logs are clean."""
    async with rogue(act) as server:
        error = await failed(purchase, server.url, timeout=0.1 if act.then == "hold" else 5)
        # The server got both: the canaries were really there to be shown.
        assert all(KEY.encode() in raw for raw in server.inputs)
        assert all(PROMPT.encode() in raw for raw in server.inputs)
        assert server.inputs
    assert_clean(error, caplog)


@every_purchase
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_error_of_a_failed_connection_shows_a_canary(
    purchase: Purchase, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors of connections are made from names, never from what would have been sent."""
    assert_clean(await failed(purchase, closed_port().replace("http", scheme)), caplog)


@every_purchase
@pytest.mark.parametrize("act", [ACTS["reset"], ACTS["401"]], ids=["reset", "401"])
async def test_no_local_of_ours_shows_the_prompt(purchase: Purchase, act: Act) -> None:
    """A traceback with locals shows the argument the caller passed and no further copy: no request, no body."""
    async with rogue(act) as server:
        error = await failed(purchase, server.url)
    own = {
        name: text for name, text in local_variables(error).items() if name.rpartition(".")[2] not in {"prompt", "name"}
    }
    assert [name for name, text in own.items() if PROMPT in text] == []


async def test_a_key_the_provider_repeats_is_cut_out(caplog: pytest.LogCaptureFixture) -> None:
    """A 401 that quotes the key is told without it where keys have a known shape."""
    reply = json_answer({"detail": f"Incorrect API key provided: {SHAPED_KEY}", "key": SHAPED_KEY}, 401)
    async with rogue(Act(write=reply)) as server, MiraClient(SHAPED_KEY, base_url=server.url) as mira:
        with pytest.raises(MirageError, match="mira answered 401: Incorrect API key provided") as caught:
            await mira.generate(PROMPT)
    assert_clean(caught.value, caplog)


@every_purchase
async def test_a_key_of_any_shape_that_the_provider_repeats_is_cut_out(
    purchase: Purchase, caplog: pytest.LogCaptureFixture
) -> None:
    """Our own key is known: a provider that quotes it cannot bring it into an error, whatever it looks like."""
    reply = json_answer({"error": {"code": "INVALID_API_KEY", "message": f"Invalid API key {KEY}"}}, 401)
    async with rogue(Act(write=reply)) as server:
        error = await failed(purchase, server.url)
    assert_clean(error, caplog)


@every_purchase
async def test_a_prompt_that_the_provider_quotes_in_a_sentence_is_cut_out(
    purchase: Purchase, caplog: pytest.LogCaptureFixture
) -> None:
    """No prompt reaches an exception, not even in the provider's own words."""
    reply = json_answer({"error": f"content_blocked: the prompt {PROMPT!r} is not allowed"}, 400)
    async with rogue(Act(write=reply)) as server:
        error = await failed(purchase, server.url)
    assert_clean(error, caplog)


async def test_a_callback_token_is_in_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """The token of a webhook is a secret like the key, also where the provider sends it back."""
    echo = {"title": "no", "webhook": {"auth_token": SHAPED_KEY}, "errors": [{"message": "no", "value": SHAPED_KEY}]}
    async with rogue(Act(write=json_answer(echo, 422))) as server, MirakoClient(KEY, base_url=server.url) as mirako:
        with pytest.raises(MirageError, match="mirako answered 422") as caught:
            await mirako.submit(PROMPT, webhook=("https://app.example/hook", SHAPED_KEY))
        assert SHAPED_KEY.encode() in server.inputs[0]
    assert [way for way, text in renderings(caught.value).items() if SHAPED_KEY in text] == []
    assert SHAPED_KEY not in caplog.text


# -- errors after a purchase -----------------------------------------------------------------------------------------


def polling(reply: bytes) -> Callable[[Seen], Act]:
    """Return a provider that accepts every job and then always answers alike."""
    return lambda seen: honest(seen) if seen.method == "POST" else Act(write=reply)


STATES: dict[str, dict[str, Any]] = {
    "failed": {"status": "FAILED", "error": "no", "errorMessage": "no", "prompt": PROMPT},
    "cancelled": {"status": "CANCELED"},
    "expired": {"status": "TIMED_OUT"},
    "hollow": {"status": "COMPLETED"},
    "error": {"status": "ERROR"},
    "not yet": {"status": "PENDING", "prompt": PROMPT},
    "unheard of": {"status": "SOMETHING", "prompt": PROMPT},
}
POLLS = {
    **{name: json_answer({"success": True, "data": data}) for name, data in STATES.items()},
    **{f"{status}": json_answer(ECHO, status) for status in (301, 308, 400, 401, 403, 404, 410, 429, 500, 503)},
    "junk": b"what\r\n\r\n",
}
with_jobs = pytest.mark.parametrize("purchase", [one for one in PURCHASES if not one.blocking], ids=repr)


@with_jobs
@pytest.mark.parametrize("reply", POLLS.values(), ids=POLLS)
async def test_no_error_of_a_job_shows_a_canary(
    purchase: Purchase, reply: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The same goes for everything that can become of an accepted job."""
    with anyio.fail_after(30):
        async with rogue(polling(reply)) as server, buying(purchase, server.url) as client:
            twin = client.with_options(api_key=KEY)
            job = await purchase.buy(twin, prompt=PROMPT, max_wait=0.05)
            with pytest.raises(MirageError) as caught:
                await job
    assert_clean(caught.value, caplog)
    assert PROMPT not in repr(local_variables(caught.value))
    assert PROMPT not in repr(job)


@with_jobs
async def test_the_error_of_a_closed_client_shows_no_canary(
    purchase: Purchase, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing tells the waiters with a token, which has neither key nor prompt."""
    with anyio.fail_after(30):
        async with rogue(polling(POLLS["not yet"])) as server, buying(purchase, server.url) as client:
            job = await purchase.buy(client.with_options(api_key=KEY), prompt=PROMPT)
            await client.aclose()
            with pytest.raises(ClosedError, match="closed while") as caught:
                await job
    assert caught.value.token is not None
    assert_clean(caught.value, caplog)


@pytest.mark.parametrize("status", [301, 307, 401, 404, 500])
async def test_no_error_of_a_question_shows_a_canary(status: int, caplog: pytest.LogCaptureFixture) -> None:
    """Looking at avatars is no different."""
    with anyio.fail_after(30):
        async with (
            rogue(Act(write=json_answer(ECHO, status))) as server,
            MirakoClient(KEY, base_url=server.url, scheduler=quick()) as mirako,
        ):
            with pytest.raises(MirageError) as one:
                await mirako.get_avatar("avatar-1")
            with pytest.raises(MirageError) as several:
                await mirako.list_avatars()
    assert_clean(one.value, caplog)
    assert_clean(several.value, caplog)


@pytest.mark.parametrize("reply", [answer(404), answer(200, b"<html>"), answer(400)], ids=["gone", "page", "refused"])
async def test_no_error_of_a_download_shows_a_canary_or_the_link_s_secret(
    reply: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The query of a signed link is a secret, too."""

    def script(seen: Seen) -> Act:
        link = f"http://{seen.headers['host']}/picture.jpg?signature={SHAPED_KEY}"
        return Act(write=json_answer({"images": [{"url": link}]}) if seen.method == "POST" else reply)

    with anyio.fail_after(30):
        async with rogue(script) as server, MiladyClient(KEY, base_url=server.url, scheduler=quick()) as milady:
            generation = await milady.generate(PROMPT)
            with pytest.raises(MirageError) as caught:
                await generation.image.read()
    seen = {**renderings(caught.value), "log": caplog.text}
    assert [way for way, text in seen.items() if SHAPED_KEY in text or KEY in text or PROMPT in text] == []
    assert KEY not in repr(local_variables(caught.value))


@pytest.mark.parametrize("client", [MirakoClient, MiragicClient, MiraClient, MiladyClient])
@pytest.mark.parametrize("suffix", [" ", "\n", "é", "\r\nX-Other: 1"])
async def test_a_key_that_cannot_travel_is_refused_without_repeating_it(client: type[Any], suffix: str) -> None:
    """The message tells what is wrong with the key and its length."""
    with pytest.raises(ConfigurationError, match="API key must be printable ASCII without spaces; got") as caught:
        client(KEY + suffix)
    assert [way for way, text in renderings(caught.value).items() if KEY in text] == []


async def test_no_refused_argument_shows_the_prompt(caplog: pytest.LogCaptureFixture) -> None:
    """What is refused before it is sent is told by its name and its length."""
    async with MiraClient(KEY, base_url=closed_port()) as mira:
        for arguments in ({"prompt": PROMPT * 200}, {"prompt": PROMPT + "\0"}, {"prompt": PROMPT, "n": 9}):
            with pytest.raises(InputError, match="must be") as caught:
                await mira.generate(**arguments)
            assert_clean(caught.value, caplog)


# -- redirects -------------------------------------------------------------------------------------------------------

CODES = (301, 302, 303, 307, 308)
every_code = pytest.mark.parametrize("code", CODES)


@contextlib.asynccontextmanager
async def two_origins(code: int, *, accept: bool) -> AsyncIterator[tuple[Rogue, Rogue]]:
    """Run a provider that redirects (all, or only its GETs) and the foreign server it redirects to."""
    async with rogue(honest) as foreign:

        def script(seen: Seen) -> Act:
            if accept and seen.method == "POST":
                return honest(seen)
            return Act(write=answer(code, b"", {"Location": foreign.url + seen.path}))

        async with rogue(script) as home:
            yield home, foreign


@every_purchase
@every_code
async def test_a_redirected_purchase_goes_nowhere_else(purchase: Purchase, code: int) -> None:
    """Neither the key nor the prompt follows a redirect: the foreign server sees no request at all."""
    async with two_origins(code, accept=False) as (home, foreign):
        error = await failed(purchase, home.url)
        assert foreign.connections == 0
        assert len(home.requests) == 1
    assert foreign.url not in str(error)


@with_jobs
@every_code
async def test_a_redirected_poll_goes_nowhere_else(
    purchase: Purchase, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A status call carries the key as well: it is not redirected, and the job lives on."""
    with anyio.fail_after(30):
        async with two_origins(code, accept=True) as (home, foreign), buying(purchase, home.url) as client:
            job = await purchase.buy(client)
            await until(lambda: len(home.requests) >= 2)
            if code in {307, 308}:
                with pytest.raises(ConfigurationError, match="its address has moved and redirects are not followed"):
                    await job
            else:
                await until(lambda: "asking on" in caplog.text)
            assert not job.done
            assert foreign.connections == 0


@every_code
async def test_a_redirected_question_goes_nowhere_else(code: int) -> None:
    """Nor is the look at an avatar, or at all of them."""
    with anyio.fail_after(30):
        async with (
            two_origins(code, accept=True) as (home, foreign),
            MirakoClient(KEY, base_url=home.url, scheduler=quick()) as mirako,
        ):
            for question in (mirako.get_avatar("avatar-1"), mirako.list_avatars()):
                with pytest.raises(MirageError):
                    await question
            assert foreign.connections == 0
            assert all(KEY in seen.headers["authorization"] for seen in home.requests)


# -- downloads -------------------------------------------------------------------------------------------------------


async def _miragic(url: str) -> Any:
    async with MiragicClient(KEY, base_url=url, scheduler=quick()) as miragic:
        await miragic.generate(PROMPT)


async def _mira(url: str) -> Any:
    async with MiraClient(KEY, base_url=url) as mira:
        await (await mira.generate(PROMPT)).image.read()


async def _milady(url: str) -> Any:
    async with MiladyClient(KEY, base_url=url) as milady:
        await (await milady.generate(PROMPT)).image.read()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same origin", "by redirect to another"])
@pytest.mark.parametrize("buy", [_miragic, _mira, _milady])
async def test_a_download_carries_no_credentials(buy: Callable[[str], Awaitable[Any]], elsewhere: bool) -> None:
    """Result links are fetched as a stranger would, on the provider's own origin and wherever they lead."""
    async with rogue(honest) as foreign:

        def script(seen: Seen) -> Act:
            link = f"http://{seen.headers['host']}/picture.jpg"
            if seen.path == "/picture.jpg" and elsewhere:
                return Act(write=answer(302, b"", {"Location": foreign.url + seen.path, "Set-Cookie": "a=b"}))
            if seen.path.endswith("/images/generate"):
                return Act(write=json_answer({"data": [{"url": link}]}))
            if seen.path.endswith("/generate-image"):
                return Act(write=json_answer({"images": [{"url": link}]}))
            return honest(seen)

        with anyio.fail_after(30):
            async with rogue(script) as home:
                await buy(home.url)
        downloads = [seen for seen in (*home.requests, *foreign.requests) if seen.path == "/picture.jpg"]
        assert len(downloads) == 1 + elsewhere
        assert all(not {"authorization", "x-api-key", "cookie"} & set(seen.headers) for seen in downloads)
        assert KEY.encode() not in b"".join(foreign.inputs)
        assert KEY.encode() in home.inputs[0]


# -- what describes itself -------------------------------------------------------------------------------------------


async def test_nothing_that_describes_itself_shows_a_canary() -> None:
    """Client, hub, endpoint, job, result, picture and their parts can be printed anywhere."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=0.0) as sandbox,
            Mirage(dict.fromkeys(sandbox.base_urls, KEY), base_urls=sandbox.base_urls, scheduler=quick()) as mirage,
        ):
            jobs: list[Any] = [await mirage.submit(PROMPT, provider=name) for name in sandbox.base_urls]
            jobs.append(await mirage.mirako.build_avatar("Ada", portrait()))
            before = [repr(job) for job in jobs]
            results = [await job for job in jobs]
            clients = [mirage.mirako, mirage.miragic, mirage.mira, mirage.milady]
            shown = [mirage, *clients, *jobs, *results, *[job.kind for job in jobs]]
            shown += [vars(client) for client in clients]
            shown += [Endpoint(sandbox.url, ("Authorization", KEY)), mirage.statistics()]
            shown += [job.update for job in jobs] + [job.kind.account for job in jobs]
            shown += [image for result in results[:4] for image in result.images]
            tokens = [job.token() for job in jobs if job.id is not None]
            text = " ".join([*before, *map(repr, shown), *map(str, shown), *tokens])
    assert len(tokens) == 3
    assert KEY not in text
    assert PROMPT not in text


async def test_the_key_arrives_where_it_belongs() -> None:
    """So that silence elsewhere means something: each provider gets its key, in its own header, on its own origin."""
    with anyio.fail_after(30):
        async with rogue(honest) as server:
            urls = dict.fromkeys(("mirako", "miragic", "mira", "milady"), server.url)
            async with Mirage({name: f"{KEY}-{name}" for name in urls}, base_urls=urls, scheduler=quick()) as mirage:
                for name in urls:
                    await mirage.generate(PROMPT, provider=name)
            posts = {seen.path: seen.headers for seen in server.posts}
    assert posts["/v1/image/generate"]["authorization"] == f"Bearer {KEY}-mirako"
    assert posts["/api/v1/image/generate"]["x-api-key"] == f"{KEY}-miragic"
    assert posts["/v1/images/generate"]["authorization"] == f"Bearer {KEY}-mira"
    assert posts["/api/v1/generate-image"]["authorization"] == f"Bearer {KEY}-milady"


async def test_a_picture_of_the_caller_is_not_in_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """Neither bytes nor base64 of a reference reaches an error or the log."""
    data = picture("PNG", (32, 32))
    async with rogue(Act(write=json_answer({"error": "no", "images": ["x"]}, 422))) as server:
        async with MirakoClient(KEY, base_url=server.url) as mirako:
            with pytest.raises(MirageError, match="mirako answered 422") as caught:
                await mirako.generate(PROMPT, images=[data])
        sent = server.requests[0].fields["images"][0]["data"].rpartition(",")[2]
    await asyncio.sleep(0)
    assert sent not in repr(renderings(caught.value)) + caplog.text
