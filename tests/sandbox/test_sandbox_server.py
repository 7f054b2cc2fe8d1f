"""Starting and stopping, settings, durations, and doing the same again with the same seed."""

from __future__ import annotations

from functools import partial
from typing import Any

import aiohttp
import pytest
from calling import API_KEY, BEARER, Caller, calling, left_behind, until

import mirage_async.sandbox
from mirage_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio


async def test_one_port_serves_all_four_providers() -> None:
    """Every base URL is the sandbox's own; before the start there is none."""
    sandbox = Sandbox()
    assert (sandbox.url, "not started" in repr(sandbox)) == ("", True)
    async with sandbox:
        assert sandbox.url.startswith("http://127.0.0.1:")
        assert sandbox.base_urls == dict.fromkeys(("mirako", "miragic", "mira", "milady"), sandbox.url)


async def test_a_port_in_use_is_an_error() -> None:
    """Starting on a taken port raises and leaves nothing behind; the port is free again afterwards."""
    async with Sandbox() as first:
        port = int(first.url.rpartition(":")[2])
        with pytest.raises(OSError, match=str(port)):
            async with Sandbox(port=port):
                pass
    async with Sandbox(port=port) as again:
        assert again.url == first.url


async def test_the_caller_on_real_time_sees_jobs_finish() -> None:
    """Without a clock of its own the sandbox follows the system's."""
    async with calling(time="running", durations=0.0) as caller:
        task_id = (await caller.post("/v1/image/async_generate", {"prompt": "p"})).json["data"]["task_id"]
        reply = await caller.get(f"/v1/image/async_generate/{task_id}/status", BEARER)
        assert reply.json["data"]["status"] == "COMPLETED"
        (name,) = caller.sandbox.jobs
        assert caller.sandbox.jobs[name].progress == 100


async def shop(caller: Caller) -> list[Any]:
    """Buy one of each and return every answer."""
    form = {"prompt": "p", "model": "flux", "width": "256", "height": "256"}
    replies = [
        await caller.post("/v1/image/async_generate", {"prompt": "p"}),
        await caller.post("/v1/image/async_generate", {"prompt": "p"}),
        await caller.post("/api/v1/image/generate", data=form, headers=API_KEY),
        await caller.post("/v1/images/generate", {"prompt": "p", "response_format": "b64_json"}),
        await caller.post("/v1/image/generate", {"prompt": "p"}),
    ]
    return [reply.json for reply in replies]


def durations(caller: Caller) -> list[float]:
    """Return how long the work on each job takes, in the order of the purchases."""
    store = caller.sandbox._world.jobs
    return [job.duration for name in store if (job := store.get_job(name)) is not None]


def jumping(seed: int) -> Any:
    """Return a sandbox with its own durations, in which time passes only while somebody waits."""
    return calling(seed=seed, durations=None, time="jumping")


async def test_one_seed_gives_one_story() -> None:
    """Ids, durations and pictures are the same in two runs with one seed and differ with another."""
    async with jumping(seed=3) as one, jumping(seed=3) as two:
        assert await shop(one) == await shop(two)
        assert durations(one) == durations(two)
    async with jumping(seed=4) as three, jumping(seed=3) as four:
        assert all(a != b for a, b in zip(await shop(three), await shop(four), strict=True))


async def test_ids_have_each_providers_form() -> None:
    """Mirako's task ids are eight characters, Miragic's job ids UUIDs, and none comes twice."""
    async with calling(durations=0.0) as caller:
        answers = [await shop(caller) for _ in range(3)]
        tasks = {answer["data"]["task_id"] for shopping in answers for answer in shopping[:2]}
        jobs = {shopping[2]["data"]["jobId"] for shopping in answers}
        assert (len(tasks), {len(name) for name in tasks}) == (6, {8})
        assert (len(jobs), {len(name) for name in jobs}) == (3, {36})
        assert tasks | jobs < set(caller.sandbox.jobs)


async def waited(durations: Any, path: str = "/v1/images/generate") -> float:
    """Return how long a blocking purchase took."""
    async with calling(durations=durations, time="jumping") as caller:
        await caller.post(path, {"prompt": "p"})
        return caller.elapsed


async def test_durations_can_be_set_for_all_for_a_provider_or_for_a_kind() -> None:
    """The most exact name wins, a pair is a range, and what is left out keeps its default."""
    assert await waited(7) == 7
    assert await waited({"mira": 5.0}) == 5
    assert await waited({"mira": 5.0, "mira.image": 6.0}) == 6
    assert 2 <= await waited({"mira": (2.0, 2.5)}) <= 2.5
    assert 1 <= await waited({"milady": 9.0}) <= 3
    assert 1 <= await waited(None) <= 3


@pytest.mark.parametrize(
    ("durations", "message"),
    [
        (-1.0, "want finite seconds, zero or more, low before high, got -1.0"),
        (float("inf"), "got inf"),
        (float("nan"), "got nan"),
        ({"mira": (3.0, 2.0)}, r"got \(3.0, 2.0\)"),
        ({"mira": (1.0, 2.0, 3.0)}, r"want seconds or \(low, high\), got \(1.0, 2.0, 3.0\)"),
        ({"mira": "soon"}, "got 'soon'"),
        ({"dalle": 1.0}, "unknown name 'dalle'; known: milady, milady.image, .*mirako.avatar"),
    ],
)
def test_durations_that_make_no_sense_are_refused(durations: Any, message: str) -> None:
    """Unknown names and impossible times are ValueErrors that show the value."""
    with pytest.raises(ValueError, match=message):
        Sandbox(durations=durations)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"port": -1}, "port must be 0 to 65535, got -1"),
        ({"port": 65536}, "got 65536"),
        ({"link_lifetime": 0}, "link_lifetime must be more than 0 seconds, got 0"),
        ({"link_lifetime": float("nan")}, "got nan"),
    ],
)
def test_settings_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    """Ports and lifetimes are checked at the door."""
    with pytest.raises(ValueError, match=message):
        Sandbox(**arguments)


async def test_closing_leaves_nothing_to_connect_to() -> None:
    """After the context the port is closed; closing one that never started is harmless."""
    async with Sandbox() as sandbox:
        url = sandbox.url
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(url)
    await Sandbox().__aexit__(None, None, None)


def test_the_index_is_complete_and_sorted() -> None:
    """The package exports what it lists, in order."""
    names = mirage_async.sandbox.__all__
    assert names == sorted(names)
    assert all(hasattr(mirage_async.sandbox, name) for name in names)


def _there_are(sandbox: Sandbox, jobs: int) -> bool:
    return len(sandbox.jobs) == jobs


async def test_clients_that_leave_a_purchase_do_not_stop_the_jumping_clock() -> None:
    """Who leaves takes nothing along: what is at work is counted for itself."""
    async with calling(time="jumping", durations=5.0) as caller:
        stuck = {"prompt": "p [[fault:stuckx*]]"}
        for number in range(1, 4):
            sending = caller.post("/v1/images/generate", stuck)
            await left_behind(sending, partial(_there_are, caller.sandbox, number))
        assert (await caller.post("/v1/images/generate", {"prompt": "p"})).status == 200
        assert caller.elapsed == 5.0
        await until(lambda: caller.clock._busy == 0)


async def test_links_lead_to_where_the_client_found_the_sandbox() -> None:
    """Inside a container, or behind a mapped port, it has another name than it knows itself."""
    async with calling() as caller:
        for host, expected in [("sandbox:8419", "http://sandbox:8419/img/"), ("a b<", f"{caller.sandbox.url}/img/")]:
            reply = await caller.post("/v1/images/generate", {"prompt": "p"}, {**BEARER, "Host": host})
            assert reply.json["data"][0]["url"].startswith(expected)
        digests = {request.answer_digest for request in caller.sandbox.requests}
        assert len(digests) == 2  # the links differ, what they begin with does not count


@pytest.mark.parametrize(("host", "reached"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]")])  # noqa: S104 - what is tested
async def test_its_url_can_be_used_whatever_it_listens_on(host: str, reached: str) -> None:
    """All addresses of the machine are none to connect to, and one of version 6 needs brackets."""
    async with Sandbox(host=host) as sandbox, aiohttp.ClientSession() as http:
        assert sandbox.url.startswith(f"http://{reached}:")
        async with http.get(f"{sandbox.url}/_sandbox/health") as response:
            assert response.status == 200


async def test_a_sandbox_can_be_entered_once() -> None:
    """Another start would find the remains of the first one."""
    sandbox = Sandbox()
    async with sandbox:
        with pytest.raises(RuntimeError, match="a sandbox can be entered once; make another one"):
            await sandbox.__aenter__()
    with pytest.raises(RuntimeError, match="entered once"):
        await sandbox.__aenter__()


async def test_a_mistake_of_its_own_is_answered_in_the_providers_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the traceback, the client a 500 as the provider words it."""
    async with calling() as caller:

        def broken(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(caller.sandbox._world, "start", broken)
        reply = await caller.post("/v1/images/generate", {"prompt": "p"})
        assert (reply.status, list(reply.json)) == (500, ["detail"])
    assert "POST /v1/images/generate could not be served" in caplog.text
