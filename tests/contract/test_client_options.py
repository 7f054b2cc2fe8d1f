"""Options of clients and hub: environment, copies, other people's sessions, proxies, limits, timeouts, closing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import pytest
from impatient import ImpatientClock, until
from purchases import KEY, PROMPT, PURCHASES, Purchase, buying, honest, quick
from rogues import Act, Seen, closed_port, json_answer, rogue

from mirage_async import Limits, MiladyClient, MiraClient, Mirage, MiragicClient, MirakoClient
from mirage_async.exceptions import (
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    ConnectionFailedError,
    InputError,
    ResponseError,
    SubmissionUncertainError,
)
from mirage_async.sandbox import Fault, Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

CLIENTS = (MirakoClient, MiragicClient, MiraClient, MiladyClient)
every_client = pytest.mark.parametrize("client", CLIENTS)
every_purchase = pytest.mark.parametrize("purchase", PURCHASES, ids=repr)


def sent_key(seen: Seen) -> str:
    """Return the key a request carried."""
    return seen.headers.get("x-api-key") or seen.headers["authorization"].removeprefix("Bearer ")


# -- environment -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "variable"),
    [
        (MirakoClient, "MIRAKO_API_KEY"),
        (MirakoClient, "MIRAKO_API_TOKEN"),
        (MiragicClient, "MIRAGIC_API_KEY"),
        (MiraClient, "MIRA_API_KEY"),
        (MiladyClient, "MILADY_API_KEY"),
    ],
)
async def test_key_and_address_are_read_from_the_environment(
    client: type[Any], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each provider has its variables; what is passed explicitly wins over them."""
    with anyio.fail_after(30):
        async with rogue(honest) as server, rogue(honest) as other:
            monkeypatch.setenv(variable, "env-key")
            monkeypatch.setenv(f"{client.provider.upper()}_BASE_URL", server.url)
            async with client(scheduler=quick()) as from_environment:
                await from_environment.generate(PROMPT)
            async with client("own-key", base_url=other.url, scheduler=quick()) as explicit:
                await explicit.generate(PROMPT)
            assert {sent_key(seen) for seen in server.posts} == {"env-key"}
            assert {sent_key(seen) for seen in other.posts} == {"own-key"}


async def test_the_key_variable_of_the_documents_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """With both of Mirako's variables set, `MIRAKO_API_KEY` counts; an empty one counts as unset."""
    monkeypatch.setenv("MIRAKO_API_KEY", "first")
    monkeypatch.setenv("MIRAKO_API_TOKEN", "second")
    with anyio.fail_after(30):
        async with rogue(honest) as server:
            async with MirakoClient(base_url=server.url) as mirako:
                await mirako.generate(PROMPT)
            monkeypatch.setenv("MIRAKO_API_KEY", "")
            async with MirakoClient(base_url=server.url) as mirako:
                await mirako.generate(PROMPT)
            assert [sent_key(seen) for seen in server.posts] == ["first", "second"]


@every_client
async def test_one_variable_points_every_client_at_a_sandbox(
    client: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`MIRAGE_SANDBOX_URL` needs no key; a provider's own address variable and an argument win over it."""
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0) as sandbox, rogue(honest) as other:
            monkeypatch.setenv("MIRAGE_SANDBOX_URL", sandbox.url)
            async with client(scheduler=quick()) as keyless:
                await keyless.generate(PROMPT)
            assert sandbox.statistics().purchases == {client.provider: 1}
            async with client(base_url=other.url, scheduler=quick()) as explicit:
                await explicit.generate(PROMPT)
            monkeypatch.setenv(f"{client.provider.upper()}_BASE_URL", other.url)
            async with client(scheduler=quick()) as by_provider:
                await by_provider.generate(PROMPT)
            assert len(other.posts) == 2
            assert sandbox.statistics().purchases == {client.provider: 1}


async def test_a_hub_reads_the_environment_for_what_it_was_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mappings by provider win; a provider that is not in them reads its own variables."""
    monkeypatch.setenv("MIRA_API_KEY", "env-mira")
    monkeypatch.setenv("MILADY_API_KEY", "env-milady")
    with anyio.fail_after(30):
        async with rogue(honest) as server:
            monkeypatch.setenv("MIRA_BASE_URL", server.url)
            monkeypatch.setenv("MILADY_BASE_URL", closed_port())
            async with Mirage({"milady": "own"}, base_urls={"milady": server.url}, scheduler=quick()) as mirage:
                await mirage.generate(PROMPT, provider="mira")
                await mirage.generate(PROMPT, provider="milady")
                with pytest.raises(ConfigurationError, match="no mirako key: set MIRAKO_API_KEY or MIRAKO_API_TOKEN"):
                    await mirage.generate(PROMPT, provider="mirako")
            assert [sent_key(seen) for seen in server.posts] == ["env-mira", "own"]


async def test_an_explicit_key_that_is_empty_is_a_mistake() -> None:
    """An unset variable of the caller's must not fall back to somebody else's key."""
    with pytest.raises(ConfigurationError, match="the mira API key must be printable ASCII without spaces"):
        MiraClient("")


# -- copies ----------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def counting_proxy() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Run a tiny forwarding proxy for http; yield its address and the request lines it saw."""
    lines: list[bytes] = []
    tasks: set[asyncio.Task[None]] = set()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            line = head.partition(b"\r\n")[0]
            lines.append(line)
            method, target, version = line.split(b" ")
            host, _, path = target.removeprefix(b"http://").partition(b"/")
            name, _, port = host.decode().partition(":")
            upstream, out = await asyncio.open_connection(name, int(port))
            # One request a connection, so that each is seen here.
            out.write(b" ".join((method, b"/" + path, version)) + b"\r\nConnection: close" + head[len(line) :])
            there = asyncio.create_task(pump(reader, out))
            await pump(upstream, writer)
            there.cancel()
            await asyncio.gather(there, return_exceptions=True)
            out.close()
        finally:
            writer.close()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await source.read(65536):
                sink.write(chunk)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(forward(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", lines
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


class KeepAlive:
    """A keep-alive server that counts connections and answers Mira's requests."""

    def __init__(self) -> None:
        self.url = ""
        self.connections = 0
        self.requests = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request after the other on one connection."""
        self.connections += 1
        reply = honest(Seen(method="POST", path="/v1/images/generate", headers={}, body=b"")).write
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
                await reader.readexactly(int(length.partition(b":")[2]))
                self.requests += 1
                writer.write(reply.replace(b"Connection: close\r\n", b""))
        writer.close()


@contextlib.asynccontextmanager
async def keeping_alive() -> AsyncIterator[KeepAlive]:
    """Run a keep-alive server."""
    running = KeepAlive()
    server = await asyncio.start_server(running.serve, "127.0.0.1", 0)
    running.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield running
    finally:
        server.close()
        await asyncio.sleep(0.01)  # the connections notice that their clients have left


async def test_a_copy_shares_the_pool() -> None:
    """One TCP connection serves a client and its copies, one after the other."""
    with anyio.fail_after(30):
        async with keeping_alive() as server, MiraClient(KEY, base_url=server.url) as mira:
            for client in (mira, mira.with_options(timeout=9), mira.with_options(api_key="other"), mira):
                await client.generate(PROMPT)
            assert (server.requests, server.connections) == (4, 1)


async def test_closing_a_copy_closes_nothing() -> None:
    """A copy can be closed, by `aclose` or as a context manager, and the pool stays open for everybody."""
    with anyio.fail_after(30):
        async with keeping_alive() as server, MiraClient(KEY, base_url=server.url) as mira:
            await mira.generate(PROMPT)
            copy = mira.with_options(timeout=9)
            await copy.aclose()
            async with mira.with_options(api_key="other") as other:
                await other.generate(PROMPT)
            await other.generate(PROMPT)
            await copy.generate(PROMPT)
            await mira.generate(PROMPT)
            assert server.connections == 1


async def test_a_copy_closes_with_its_original() -> None:
    """The pool is gone, so the copy says so."""
    async with MiraClient(KEY, base_url=closed_port()) as mira:
        copy = mira.with_options(timeout=9)
    with pytest.raises(ClosedError, match="the mira client is closed"):
        await copy.generate(PROMPT)
    with pytest.raises(ClosedError, match="the mira client is closed"):
        mira.with_options(timeout=9)


async def test_a_copy_changes_what_it_was_told_and_nothing_else() -> None:
    """Key, address, timeout, patience and the willingness to pay twice are its own; the original keeps its own."""
    with anyio.fail_after(30):
        async with (
            rogue(Act(then="hold")) as silent,
            rogue(Act(then="rst")) as rude,
            rogue(honest) as good,
            MiladyClient(KEY, base_url=silent.url, timeout=5, scheduler=quick()) as milady,
        ):
            with pytest.raises(SubmissionUncertainError, match=r"no answer within 0\.05 s"):
                await milady.with_options(timeout=0.05).generate(PROMPT)
            twice = milady.with_options(base_url=rude.url, resend_uncertain=True)
            with pytest.raises(SubmissionUncertainError, match="may or may not"):
                await twice.generate(PROMPT)
            assert len(rude.posts) == 3
            with pytest.raises(SubmissionUncertainError, match="may or may not"):
                await twice.with_options(resend_uncertain=False).generate(PROMPT)
            assert len(rude.posts) == 4
            await twice.with_options(base_url=good.url, api_key="other").generate(PROMPT)
            assert sent_key(good.posts[0]) == "other"
            assert {sent_key(seen) for seen in (*silent.posts, *rude.posts)} == {KEY}
            assert silent.url in repr(milady)


@pytest.mark.parametrize("name", ["proxy", "session", "scheduler", "timeuot"])
async def test_a_copy_has_options_of_its_own_only(name: str) -> None:
    """A proxy, a session and a scheduler belong to the pool; a copy cannot have others, nor what does not exist."""
    options: dict[str, Any] = {name: None}
    async with MiraClient(KEY, base_url=closed_port()) as mira:
        with pytest.raises((TypeError, InputError), match=name):
            mira.with_options(**options)


@every_client
def test_a_misspelt_option_is_refused(client: type[Any]) -> None:
    """An option that has no effect would be believed in."""
    with pytest.raises((TypeError, InputError), match="resend_uncertian"):
        client(KEY, resend_uncertian=True)


async def test_copies_that_are_gone_leave_nothing_behind() -> None:
    """A copy is cheap: one for each tenant's request costs nothing once it is dropped."""
    async with Mirage({"mira": KEY}, base_urls={"mira": closed_port()}) as mirage:
        for number in range(50):
            mirage.mira.with_options(api_key=f"tenant-{number}")
        gc.collect()
        assert len(mirage.statistics().scheduler.accounts) <= 2


async def test_jobs_of_a_copy_with_the_same_account_are_jobs_of_the_original() -> None:
    """A copy that only waits differently shares the account: its limits and its unfinished jobs."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=60.0) as sandbox,
            MirakoClient(base_url=sandbox.url, scheduler=quick()) as mirako,
        ):
            copy = mirako.with_options(timeout=9)
            job = await copy.submit(PROMPT)
            assert mirako.jobs == copy.jobs == (job,)
            assert mirako.with_options(api_key="other").jobs == ()


# -- a caller's own session ------------------------------------------------------------------------------------------


@every_client
async def test_a_caller_s_session_is_used_and_never_closed(client: type[Any]) -> None:
    """Its headers and middlewares travel along, its tracing sees the requests, and it is open afterwards."""
    passed: list[str] = []
    kept: list[str] = []

    async def theirs(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        passed.append(f"{request.method} {'authorization' in map(str.lower, request.headers)}")
        request.headers["X-Theirs"] = "yes"
        response = await handler(request)
        kept.append(f"{request.headers} {response.request_info.headers}")
        return response

    with anyio.fail_after(30):
        async with (
            rogue(honest) as server,
            aiohttp.ClientSession(middlewares=(theirs,), headers={"X-Team": "blue"}) as session,
        ):
            async with client(KEY, base_url=server.url, session=session, scheduler=quick()) as ours:
                await ours.generate(PROMPT)
            assert not session.closed
            async with session.get(server.url + "/v1/avatar/mine") as response:
                assert response.status == 200
            calls = [seen for seen in server.requests if seen.path != "/picture.jpg"]
            assert all(seen.headers["x-theirs"] == "yes" for seen in calls)
            assert all(seen.headers["x-team"] == "blue" for seen in calls)
            assert all(sent_key(seen) == KEY for seen in calls[:-1])
            assert not {"authorization", "x-api-key"} & set(calls[-1].headers)
            assert len(passed) == len(calls)
            assert KEY not in "".join(kept)
            assert passed[0] == "POST False"  # theirs runs outside of ours and never sees the key


async def test_a_caller_s_session_serves_several_clients() -> None:
    """Clients one after the other, and at once, may share a session; phases are still told apart."""
    with anyio.fail_after(30):
        async with aiohttp.ClientSession() as session, rogue(Act(then="rst")) as rude:
            for _ in range(2):
                async with MiraClient(KEY, base_url=closed_port(), session=session, scheduler=quick()) as mira:
                    with pytest.raises(ConnectionFailedError, match="nothing was sent"):
                        await mira.generate(PROMPT)
                    with pytest.raises(SubmissionUncertainError, match="may or may not"):
                        await mira.with_options(base_url=rude.url).generate(PROMPT)
            assert len(session.trace_configs) == 1


async def test_waiting_for_a_caller_s_own_pool_is_not_having_sent() -> None:
    """A session whose only connection is taken lets nothing leave: proven unpaid, tried three times."""
    clock = ImpatientClock()
    with anyio.fail_after(30):
        async with (
            rogue(Act(then="hold")) as server,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session,
            MiraClient(KEY, base_url=server.url, session=session, timeout=0.05, scheduler=quick(clock)) as mira,
        ):
            taken = asyncio.ensure_future(session.get(server.url))
            await until(lambda: server.requests)
            with pytest.raises(ConnectionFailedError, match="nothing was sent") as caught:
                await mira.generate(PROMPT)
            assert caught.value.billed == "no"
            assert server.posts == []
            assert len(clock.slept) == 2
            taken.cancel()
            await asyncio.gather(taken, return_exceptions=True)


async def test_a_caller_s_session_that_raises_for_status_changes_no_outcome() -> None:
    """How the caller likes to be told about statuses is for the caller's own requests."""
    with anyio.fail_after(30):
        async with (
            rogue(Act(write=json_answer({"detail": "bad key"}, 401))) as server,
            aiohttp.ClientSession(raise_for_status=True) as session,
            MiraClient(KEY, base_url=server.url, session=session, scheduler=quick()) as mira,
        ):
            with pytest.raises(AuthenticationError, match="mira answered 401: bad key"):
                await mira.generate(PROMPT)


# -- proxy -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["miragic", "mirako"])
async def test_a_proxy_is_used_for_everything(provider: str) -> None:
    """Purchases, status calls and downloads all go through it."""
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0) as sandbox, counting_proxy() as (proxy, lines):
            async with Mirage(base_urls=sandbox.base_urls, proxy=proxy, scheduler=quick()) as mirage:
                job = await mirage.submit(PROMPT, provider=provider)
                assert (await job).image.data
            assert [line.decode().split()[:2] for line in lines] == [
                [seen.method, sandbox.url + seen.path] for seen in sandbox.requests
            ]
            operations = set(sandbox.statistics().requests)
            assert operations == {f"{provider}.create", f"{provider}.status"} | (
                {"miragic.download"} if provider == "miragic" else set()
            )


async def test_a_proxy_that_is_down_means_that_nothing_was_sent() -> None:
    """No proxy, no connection, no purchase; the provider is not called behind its back."""
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0) as sandbox:
            async with MiraClient(base_url=sandbox.url, proxy=closed_port(), scheduler=quick()) as mira:
                with pytest.raises(ConnectionFailedError, match="nothing was sent"):
                    await mira.generate(PROMPT)
            assert sandbox.requests == []


@pytest.mark.parametrize("status", [403, 407, 502])
async def test_a_proxy_that_refuses_the_tunnel_means_that_nothing_was_sent(status: int) -> None:
    """For https a proxy makes a tunnel first; without one not a byte has left for the provider."""
    with anyio.fail_after(30):
        async with rogue(Act(write=json_answer({}, status))) as proxy:
            options: dict[str, Any] = {"base_url": "https://api.example", "proxy": proxy.url}
            async with MiraClient(KEY, scheduler=quick(), **options) as mira:
                with pytest.raises(ConnectionFailedError, match="nothing was sent"):
                    await mira.generate(PROMPT)
            assert {seen.method for seen in proxy.requests} == {"CONNECT"}
            assert KEY.encode() not in b"".join(proxy.inputs)


# -- limits ----------------------------------------------------------------------------------------------------------


@every_purchase
async def test_no_more_jobs_are_in_flight_than_allowed(purchase: Purchase) -> None:
    """A job holds its place from the purchase to its end."""
    most = 0
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=0.02) as sandbox,
            buying(purchase, sandbox.url, limits=Limits(jobs=2)) as client,
        ):

            async def one() -> None:
                nonlocal most
                bought = await purchase.buy(client)
                most = max(most, sandbox.statistics().open_jobs)
                assert purchase.blocking or await bought

            async with anyio.create_task_group() as group:
                for _ in range(7):
                    group.start_soon(one)
            assert sandbox.statistics().purchases == {purchase.provider: 7}
    assert most <= 2


async def test_waiting_for_a_place_ends_with_the_wait() -> None:
    """A purchase that got no place within its `max_wait` is not sent."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=60.0) as sandbox,
            MirakoClient(base_url=sandbox.url, limits=Limits(jobs=1), scheduler=quick()) as mirako,
        ):
            await mirako.submit(PROMPT)
            with pytest.raises(TimeoutError, match="waiting for a place among the account's jobs in flight") as caught:
                await mirako.submit(PROMPT, max_wait=0.05)
            assert getattr(caught.value, "billed", None) == "no"
            assert sandbox.statistics().purchases == {"mirako": 1}


async def test_limits_are_by_account() -> None:
    """The hub's mapping limits the provider it names; another key is another account."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=60.0) as sandbox,
            Mirage(base_urls=sandbox.base_urls, limits={"mirako": Limits(jobs=1)}, scheduler=quick()) as mirage,
        ):
            for _ in range(3):
                await mirage.submit(PROMPT, provider="miragic")
            await mirage.mirako.submit(PROMPT)
            await mirage.mirako.with_options(api_key="other").submit(PROMPT)
            with pytest.raises(TimeoutError, match="waiting for a place"):
                await mirage.mirako.submit(PROMPT, max_wait=0.03)
            assert sandbox.statistics().purchases == {"miragic": 3, "mirako": 2}


async def test_status_calls_keep_to_their_rate() -> None:
    """`polls_per_second` spaces the calls of all jobs of the account."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=60.0) as sandbox,
            MirakoClient(base_url=sandbox.url, limits=Limits(polls_per_second=50), scheduler=quick()) as mirako,
        ):
            for _ in range(4):
                await mirako.submit(PROMPT)
            await until(lambda: sandbox.statistics().requests.get("mirako.status", 0) >= 8)
            moments = [seen.at for seen in sandbox.requests if seen.operation == "mirako.status"]
    assert (moments[-1] - moments[0]) / (len(moments) - 1) >= 0.018


async def test_status_calls_in_flight_are_limited() -> None:
    """`polls` bounds the calls under way: with one that hangs, nobody else asks."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=60.0) as sandbox,
            MirakoClient(base_url=sandbox.url, limits=Limits(polls=1), scheduler=quick()) as mirako,
        ):
            sandbox.fail("mirako.status", Fault(stall=float("inf")))
            for _ in range(3):
                await mirako.submit(PROMPT)
            await until(lambda: "mirako.status" in sandbox.statistics().requests)
            await asyncio.sleep(0.04)
            assert sandbox.statistics().requests["mirako.status"] == 1


# -- timeout ---------------------------------------------------------------------------------------------------------


async def test_the_timeout_bounds_every_answer() -> None:
    """A purchase, a status call and a question are all given up after `timeout` seconds of silence."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=0.0) as sandbox,
            MirakoClient(base_url=sandbox.url, timeout=0.05, scheduler=quick()) as mirako,
        ):
            for operation in ("mirako.generate", "mirako.create", "mirako.avatar_list"):
                sandbox.fail(operation, *[Fault(stall=float("inf"))] * (4 if "list" in operation else 1))
            with pytest.raises(SubmissionUncertainError, match=r"no answer within 0\.05 s"):
                await mirako.generate(PROMPT)
            with pytest.raises(SubmissionUncertainError, match=r"no answer within 0\.05 s"):
                await mirako.submit(PROMPT)
            with pytest.raises(ResponseError, match="mirako gave no usable answer"):
                await mirako.list_avatars()
            assert sandbox.statistics().requests == {
                "mirako.generate": 1,
                "mirako.create": 1,
                "mirako.avatar_list": 4,
            }


# -- closing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("purchase", [one for one in PURCHASES if not one.blocking], ids=repr)
async def test_closing_tells_the_waiters_with_the_token(purchase: Purchase) -> None:
    """Every waiter, and whoever waits later, gets `ClosedError` with what attaches to the job elsewhere."""
    with anyio.fail_after(30):
        async with Sandbox(durations=0.2) as sandbox:
            async with buying(purchase, sandbox.url) as client:
                job = await purchase.buy(client)
                waiters = [asyncio.ensure_future(job.result()) for _ in range(2)]
                await until(lambda: job._waiters and len(job._waiters) == 2)
            errors = await asyncio.gather(*waiters, return_exceptions=True)
            with pytest.raises(ClosedError, match="was closed while") as late:
                await job
            with pytest.raises(ClosedError, match="was closed while"):
                await job.result(max_wait=1)
            for error in (*errors, late.value):
                assert isinstance(error, ClosedError)
                assert isinstance(error, RuntimeError)
                assert error.token == job.token()
                assert error.billed == "yes"
            assert "cancelled" not in {view.status for view in sandbox.jobs.values()}
            async with buying(purchase, sandbox.url) as other:
                assert await other.job(late.value.token)
            assert sandbox.statistics().purchases == {purchase.provider: 1}


@every_purchase
async def test_a_closed_client_takes_no_calls(purchase: Purchase) -> None:
    """Later calls raise at once and send nothing; closing twice, and at once from several places, is harmless."""
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0) as sandbox:
            async with buying(purchase, sandbox.url) as client:
                await asyncio.gather(client.aclose(), client.aclose())
                await client.aclose()
                with pytest.raises(ClosedError, match=f"the {purchase.provider} client is closed") as caught:
                    await purchase.buy(client)
                assert (caught.value.billed, caught.value.token) == ("no", None)
                with pytest.raises(ClosedError, match="is closed"):
                    client.job("job-1")
                with pytest.raises(ClosedError, match="is closed"):
                    async with client:
                        pass
                if isinstance(client, MirakoClient):
                    with pytest.raises(ClosedError, match="is closed"):
                        await client.list_avatars()
                assert "closed" in repr(client)
            assert sandbox.requests == []


@pytest.mark.parametrize("copied", [False, True], ids=["client", "copy"])
@every_purchase
async def test_closing_ends_purchases_that_wait_for_a_place(purchase: Purchase, copied: bool) -> None:
    """Whoever waits to send, through the client or a copy with an account of its own, is told; nothing was sent."""
    gate = asyncio.Event()
    with anyio.fail_after(30):
        async with rogue(lambda seen: Act(write=honest(seen).write, gate=gate)) as server:
            async with buying(purchase, server.url, limits=Limits(jobs=1)) as owner:
                client = owner.with_options(api_key="other") if copied else owner
                first = asyncio.ensure_future(purchase.buy(client))
                await until(lambda: server.posts)
                second = asyncio.ensure_future(purchase.buy(client))
                await until(lambda: len(client.jobs) == 2)
                closing = asyncio.ensure_future(owner.aclose())
                with pytest.raises(ClosedError, match="was closed while the") as caught:
                    await second
                assert caught.value.billed == "no"
                gate.set()
                await closing
                await asyncio.gather(first, return_exceptions=True)
            assert len(server.posts) == 1


@pytest.mark.parametrize("client", [MiraClient, MiladyClient])
@pytest.mark.parametrize("copied", [False, True], ids=["client", "copy"])
async def test_closing_ends_blocking_jobs_that_wait_for_a_place(client: type[Any], copied: bool) -> None:
    """The job of a blocking `submit` never leaves its waiter waiting."""
    gate = asyncio.Event()
    with anyio.fail_after(30):
        async with rogue(lambda seen: Act(write=honest(seen).write, gate=gate)) as server:
            async with client(KEY, base_url=server.url, limits=Limits(jobs=1), scheduler=quick()) as owner:
                buyer = owner.with_options(api_key="other") if copied else owner
                first, second = await buyer.submit(PROMPT), await buyer.submit(PROMPT)
                waiter = asyncio.ensure_future(second.result())
                await until(lambda: server.posts)
                closing = asyncio.ensure_future(owner.aclose())
                with pytest.raises(ClosedError, match="was closed while the"):
                    await waiter
                gate.set()
                await closing
                # The POST that was on the wire came home within the grace.
                assert (await first).images
            assert len(server.posts) == 1


@pytest.mark.parametrize("purchase", [PURCHASES[1], PURCHASES[5]], ids=repr)
async def test_a_post_on_the_wire_gets_two_seconds_to_come_home(purchase: Purchase) -> None:
    """Closing waits for the answer of a paid request; if none comes its buyer is told that nobody knows."""
    with anyio.fail_after(30):
        async with rogue(Act(then="hold")) as server:
            async with buying(purchase, server.url) as client:
                buyer = asyncio.ensure_future(purchase.buy(client))
                await until(lambda: server.posts)
                began = anyio.current_time()
            assert 1.9 <= anyio.current_time() - began <= 4
            with pytest.raises((ClosedError, SubmissionUncertainError), match=purchase.provider) as caught:
                await buyer
            assert caught.value.billed == "unknown"


async def test_a_hub_closes_all_its_clients() -> None:
    """And says so itself afterwards."""
    with anyio.fail_after(30):
        async with Sandbox(durations=60.0) as sandbox:
            async with Mirage(base_urls=sandbox.base_urls, scheduler=quick()) as mirage:
                jobs = [await mirage.submit(PROMPT, provider=name) for name in ("mirako", "miragic")]
                mirako = mirage.mirako
            await mirage.aclose()
            for job in jobs:
                with pytest.raises(ClosedError, match="was closed while") as caught:
                    await job
                assert caught.value.token == job.token()
            with pytest.raises(ClosedError, match="the mirako client is closed"):
                await mirako.submit(PROMPT)
            with pytest.raises(ClosedError, match="the hub is closed"):
                await mirage.generate(PROMPT, provider="mira")
            with pytest.raises(ClosedError, match="closed"):
                mirage.job(jobs[0].token())
            assert repr(mirage) == "<Mirage closed>"


# -- event loops -----------------------------------------------------------------------------------------------------


def test_each_event_loop_can_have_its_own_client() -> None:
    """Clients made in one loop after the other work; nothing of a client lives in a module."""

    async def once() -> None:
        async with Sandbox(durations=0.0) as sandbox, Mirage(base_urls=sandbox.base_urls, scheduler=quick()) as mirage:
            for name in sandbox.base_urls:
                assert (await mirage.generate(PROMPT, provider=name)).images

    for _ in range(2):
        asyncio.run(asyncio.wait_for(once(), 30))


def test_a_client_made_outside_a_loop_can_be_used_inside() -> None:
    """Nothing is opened before the first request, so a client may be a module's constant."""
    mirage = Mirage(dict.fromkeys(("mirako", "mira"), KEY), base_urls={"mira": "http://127.0.0.1:9"})
    client = MiraClient(KEY, base_url="http://127.0.0.1:9", scheduler=quick())

    async def once() -> None:
        with pytest.raises(ConnectionFailedError, match="nothing was sent"):
            await client.generate(PROMPT)
        await client.aclose()
        await mirage.aclose()

    asyncio.run(asyncio.wait_for(once(), 30))


def test_a_client_of_another_loop_fails_and_does_not_hang() -> None:
    """A client that was used in one event loop is not usable in a second: an error, or a result, but no silence."""

    async def use(client: MiraClient, url: str) -> None:
        await client.with_options(base_url=url).generate(PROMPT)

    async def run(client: MiraClient, *, close: bool) -> None:
        async with Sandbox(durations=0.0) as sandbox:
            try:
                await asyncio.wait_for(use(client, sandbox.url), 30)
            finally:
                if close:
                    await client.aclose()
            assert sandbox.statistics().purchases == {"mira": 1}

    client = MiraClient(base_url="http://127.0.0.1:9", scheduler=quick())
    asyncio.run(run(client, close=False))
    with pytest.raises(ConfigurationError, match="belongs to the event loop it is first used in"):
        asyncio.run(run(client, close=True))


def test_the_samples_are_json() -> None:
    """The honest server's answers are what a provider would send."""
    body = honest(Seen(method="POST", path="/v1/image/async_generate", headers={}, body=b"")).write
    assert json.loads(body.partition(b"\r\n\r\n")[2])["data"]["task_id"] == "job-1"
