"""The control routes: the sandbox's methods over HTTP, for friends alone, and never a fault of their own."""

from __future__ import annotations

import asyncio
import io
import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import msgspec
import pytest
from calling import API_KEY, BEARER, Caller, Reply, calling, until
from hypothesis import given, settings
from hypothesis import strategies as st

import mirage_async
from mirage_async.sandbox import Fault
from mirage_async.sandbox.control import orders
from mirage_async.sandbox.control.routes import PREFIX, ROUTES
from mirage_async.sandbox.control.views import plain
from mirage_async.sandbox.faults.catalogue import GLOSSARY, NAMES, named_fault

if TYPE_CHECKING:
    from mirage_async.sandbox.control.routes import ControlRoute

CREATE = "/v1/image/async_generate"
JSON = {"Content-Type": "application/json"}
PROMPT = {"prompt": "hills", "aspect_ratio": "1:1"}


async def order(caller: Caller, method: str, path: str, fields: Any = None) -> Reply:
    """Send a control request; a body goes with the methods that have one."""
    if method in ("POST", "PUT"):
        data = io.BytesIO(json.dumps({} if fields is None else fields).encode())
        return await caller._send(method, PREFIX + path, headers=JSON, data=data)
    return await caller._send(method, PREFIX + path)


PAGES = ("after=0&limit=2", "after=2&limit=2", "after=4&limit=2", "limit=2")


async def show(caller: Caller, path: str) -> Any:
    """Return what a control route shows."""
    reply = await order(caller, "GET", path)
    assert reply.status == 200, reply.body
    return reply.json


async def create(caller: Caller, **fields: Any) -> str:
    """Start a Mirako task and return its id."""
    task_id: str = (await caller.post(CREATE, {**PROMPT, **fields})).json["data"]["task_id"]
    return task_id


@pytest.mark.anyio
async def test_the_index_lists_every_route() -> None:
    """Whoever knows the prefix can find the rest, and every list in it can be looked at."""
    async with calling() as caller:
        listed = (await show(caller, "/"))["routes"]
        assert [(one["method"], one["path"]) for one in listed] == [(one.method, PREFIX + one.path) for one in ROUTES]
        assert all(one["says"] for one in listed)
        for one in ROUTES:
            if one.method == "GET" and "{" not in one.path:
                assert (await caller.get(PREFIX + one.path)).status == 200


@pytest.mark.anyio
async def test_health_tells_how_it_was_started() -> None:
    """One look tells whose sandbox this is, and since when it runs on its own clock."""
    async with calling(seed=7, strict=True) as caller:
        caller.clock.advance(60.0)
        health = await show(caller, "/health")
        assert 60.0 <= health.pop("uptime") < 62.0
        assert health == {
            "status": "ok",
            "url": caller.sandbox.url,
            "version": mirage_async.__version__,
            "seed": 7,
            "strict": True,
        }


@pytest.mark.anyio
async def test_reset_forgets_what_its_scope_says() -> None:
    """Rules and state go separately or together, and a scope there is not is shown with those there are."""
    async with calling() as caller:
        for body, left in (({"scope": "rules"}, (1, 0)), ({"scope": "state"}, (0, 1)), ({}, (0, 0))):
            caller.sandbox.reset()
            await create(caller)
            caller.sandbox.fail("mirako.create", "429")
            reply = await order(caller, "POST", "/reset", body)
            assert reply.json == {"scope": body.get("scope", "all")}
            assert (len(caller.sandbox.requests), len(caller.sandbox.faults)) == left
        refused = await order(caller, "POST", "/reset", {"scope": "some"})
        assert refused.status == 400
        assert refused.json == {"error": 'scope must be "all", "state" or "rules", got \'some\''}


@pytest.mark.anyio
async def test_statistics_are_those_of_the_method() -> None:
    """The same figures, whoever asks."""
    async with calling() as caller:
        await create(caller)
        caller.sandbox.fail("mira.generate", "429", times=3)
        assert await show(caller, "/statistics") == asdict(caller.sandbox.statistics())


@pytest.mark.anyio
async def test_jobs_are_shown_as_the_mapping_shows_them() -> None:
    """All of them, one by its id, or those that have what is asked for."""
    async with calling() as caller:
        first, second = await create(caller), await create(caller)
        await caller.post("/v1/images/generate", PROMPT)
        caller.sandbox.fail_job(second)
        expected = [asdict(job) for job in caller.sandbox.jobs.values()]
        assert (await show(caller, "/jobs"))["jobs"] == expected
        assert await show(caller, f"/jobs/{first}") == expected[0]
        for query, chosen in (
            ("provider=mirako", expected[:2]),
            ("provider=mirako&status=FAILED", expected[1:2]),
            ("kind=avatar", []),
            ("open=true", expected[:1]),
            ("open=false", expected[1:]),
        ):
            assert (await show(caller, f"/jobs?{query}"))["jobs"] == chosen


@pytest.mark.anyio
async def test_jobs_end_by_order() -> None:
    """What `finish_job` and `fail_job` do can be ordered, once for each job."""
    async with calling() as caller:
        good, bad = await create(caller), await create(caller)
        assert (await order(caller, "POST", f"/jobs/{good}/finish")).json["status"] == "COMPLETED"
        failed = await order(caller, "POST", f"/jobs/{bad}/fail", {"reason": "no paint", "end": "timed_out"})
        assert failed.json == asdict(caller.sandbox.jobs[bad])
        assert failed.json["status"] == "TIMED_OUT"
        status = await caller.get(f"{CREATE}/{bad}/status", BEARER)
        assert status.json["data"]["error"] == "no paint"
        again = await order(caller, "POST", f"/jobs/{good}/finish")
        assert (again.status, again.json) == (409, {"error": f"job '{good}' has ended: it is COMPLETED"})
        wrong = await order(caller, "POST", f"/jobs/{await create(caller)}/fail", {"end": "lost"})
        assert (wrong.status, wrong.json["error"]) == (
            400,
            "end must be one of failed, cancelled, timed_out; got 'lost'",
        )


@pytest.mark.anyio
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/finish"), ("POST", "/fail")])
async def test_a_job_that_is_none_is_not_found(method: str, path: str) -> None:
    """404 shows the id that was asked for."""
    async with calling() as caller:
        reply = await order(caller, method, f"/jobs/{quote('gone/é', safe='')}{path}")
        assert (reply.status, reply.json) == (404, {"error": "no job 'gone/é' among the 0 there are"})


@pytest.mark.anyio
async def test_a_fault_is_ordered_by_name_or_spelled_out() -> None:
    """Names and fields make the same rules as `fail`, with all its options, and they strike."""
    async with calling() as caller:
        one = await order(caller, "POST", "/faults", {"operation": "mirako.create", "fault": "429:2"})
        fault: dict[str, Any] = {"status": 503, "headers": {"X-A": "b"}, "body": {"a": [1]}, "retry_after": 2}
        more = {
            "operation": "mirako.*",
            "faults": ["no-image", fault],
            "times": None,
            "probability": 0.5,
            "prompt": "fox",
        }
        two = await order(caller, "POST", "/faults", more)
        assert (one.json, two.json) == ({"ids": [1]}, {"ids": [2, 3]})
        rules = caller.sandbox.faults
        assert [rule.fault for rule in rules] == [named_fault("429:2"), named_fault("no-image"), Fault(**fault)]
        assert [(rule.remaining, rule.probability, rule.prompt) for rule in rules[1:]] == [(None, 0.5, "fox")] * 2
        struck = await caller.post(CREATE, PROMPT)
        assert (struck.status, struck.headers["Retry-After"]) == (429, "2")


@pytest.mark.anyio
@pytest.mark.parametrize("name", [*NAMES, "hang:3", "502:html"])
async def test_what_waits_is_shown_as_it_can_be_ordered_again(name: str) -> None:
    """A fault read from the list and sent back is the same fault, endless stalls and raw bytes included."""
    operation = "mirako.webhook" if named_fault(name).point in ("webhook", "early") else "milady.generate"
    operation = "mirako.create" if name in ("unknown-status", "backwards") else operation
    async with calling() as caller:
        caller.sandbox.fail(operation, name)
        (shown,) = (await show(caller, "/faults"))["faults"]
        await order(caller, "POST", "/faults", {"operation": operation, "fault": shown["fault"]})
        first, second = caller.sandbox.faults
        assert first.fault == second.fault
        assert shown == {
            "id": 1,
            "operation": operation,
            "fault": shown["fault"],
            "remaining": 1,
            "probability": 1.0,
            "prompt": "",
            "struck": 0,
        }


@pytest.mark.anyio
async def test_faults_are_taken_back_one_or_all() -> None:
    """The answer tells which; a number that does not wait is shown with those that do."""
    async with calling() as caller:
        caller.sandbox.fail("*", "429", "500", "502")
        assert (await order(caller, "DELETE", "/faults/2")).json == {"removed": [2]}
        gone = await order(caller, "DELETE", "/faults/2")
        assert (gone.status, gone.json) == (404, {"error": "no fault 2 waits; waiting: [1, 3]"})
        assert (await order(caller, "DELETE", "/faults/two")).status == 400
        assert (await order(caller, "DELETE", "/faults")).json == {"removed": [1, 3]}
        assert caller.sandbox.faults == []


@pytest.mark.anyio
async def test_numbers_nobody_can_say_do_not_bring_a_route_down() -> None:
    """What a client sent is shown as well as can be, however large it is."""
    async with calling() as caller:
        await caller.post("/v1/image/async_generate", {"prompt": "p", "seed": 2**70})
        assert (await show(caller, "/requests"))["requests"][0]["fields"]["seed"] == hex(2**70)


@pytest.mark.anyio
async def test_every_name_of_a_fault_is_explained() -> None:
    """The glossary has the names there are, each once, and a way to say a status."""
    async with calling() as caller:
        shown = (await show(caller, "/faults/names"))["names"]
        assert shown == [asdict(one) for one in GLOSSARY]
        assert [one["name"] for one in shown] == ["400-599", *NAMES]
        assert all(one["meaning"] for one in shown)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"operation": "mirako.paint", "fault": "429"}, "unknown operation 'mirako.paint'; known: "),
        ({"operation": "*", "fault": "flood"}, "unknown fault 'flood'; known: a status 400-599, hang"),
        ({"operation": "*"}, "want either fault, which is one, or faults, which is a list of them"),
        ({"operation": "*", "fault": "429", "faults": ["429"]}, "want either fault"),
        ({"operation": "*", "faults": []}, "no fault was given for '*'"),
        ({"operation": "*", "fault": {"status": 42}}, "status must be a whole number from 200 to 599, got 42"),
        ({"operation": "*", "fault": {"garbage": "€"}}, "garbage must be text of one character a byte"),
        ({"operation": "*", "fault": {"stall": "long"}}, "body: Invalid enum value 'long' - at `$.fault.stall`"),
        ({"operation": "*", "fault": {"sttus": 429}}, "body: Object contains unknown field `sttus` - at `$.fault`"),
        ({"operation": "*", "fault": "429", "time": 1}, "body: Object contains unknown field `time`"),
        (
            {"operation": "*", "fault": "429", "times": 0},
            "times must be a whole number from 1 to 1000000, or None for ever, got 0",
        ),
        (
            {"operation": "*", "fault": "429", "times": 10**6 + 1},
            "times must be 1 to 1000000, or null for ever, got 1000001",
        ),
        ({"operation": "*", "fault": "429", "times": True}, "body: Expected `int | null`, got `bool` - at `$.times`"),
        ({"operation": "*", "fault": "429", "probability": 2}, "probability must be above 0 and at most 1, got 2.0"),
        ({"fault": "429"}, "body: Object missing required field `operation`"),
        ([], "body: Expected `object`, got `array`"),
    ],
)
async def test_a_fault_that_makes_no_sense_is_refused(fields: Any, message: str) -> None:
    """400 says what is wrong, and nothing waits."""
    async with calling() as caller:
        reply = await order(caller, "POST", "/faults", fields)
        assert (reply.status, reply.json["error"][: len(message)]) == (400, message)
        assert caller.sandbox.faults == []


@pytest.mark.anyio
async def test_the_clock_moves_by_order() -> None:
    """Every method of the clock is an action, and the answer shows where it stands."""
    async with calling(time="running") as caller:
        assert (await show(caller, "/clock"))["mode"] == "running"
        frozen = await order(caller, "POST", "/clock", {"action": "freeze", "at": 1e9})
        assert (frozen.json["mode"], frozen.json["time"]) == ("frozen", 1e9)
        await create(caller)
        assert (await show(caller, "/clock"))["waiting"] == 1
        moved = await order(caller, "POST", "/clock", {"action": "advance", "seconds": 2700})
        assert moved.json["monotonic"] - frozen.json["monotonic"] == pytest.approx(2700)
        assert (moved.json["time"], moved.json["waiting"]) == (1e9 + 2700, 0)
        for fields in ({"action": "auto_advance"}, {"action": "auto_advance", "after": 0.5}):
            assert (await order(caller, "POST", "/clock", fields)).json["mode"] == "auto-advancing"
        assert (await order(caller, "POST", "/clock", {"action": "resume"})).json["mode"] == "running"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"action": "rewind"}, "action must be one of freeze, resume, advance, auto_advance; got 'rewind'"),
        ({"action": "advance", "seconds": -1}, "seconds must be 0 or more, since this clock never goes back, got -1.0"),
        (
            {"action": "advance", "seconds": 3e11},
            "seconds must lead to no later than 220000000000 since 1970, got 300000000000.0",
        ),
        ({"action": "advance"}, "advance takes seconds, and none were given"),
        ({"action": "advance", "at": 1}, "advance takes seconds, got at=1.0"),
        ({"action": "resume", "after": 1}, "resume takes no further field, got after=1.0"),
        ({"action": "freeze", "at": -1}, "at must be 0 to 220000000000 seconds since 1970, got -1.0"),
        ({"action": "auto_advance", "after": 0}, "after must be more than 0 seconds, got 0.0"),
    ],
)
async def test_an_order_the_clock_cannot_obey_is_refused(fields: Any, message: str) -> None:
    """The clock stays where it is."""
    async with calling() as caller:
        before = await show(caller, "/clock")
        reply = await order(caller, "POST", "/clock", fields)
        assert (reply.status, reply.json) == (400, {"error": message})
        assert await show(caller, "/clock") == before


def without_body(requests: list[Any]) -> list[Any]:
    """Return what the method shows of requests, but for their bodies."""
    return [{name: value for name, value in asdict(request).items() if name != "body"} for request in requests]


@pytest.mark.anyio
async def test_requests_are_those_that_find_requests_finds() -> None:
    """The same filters, the same entries, newest last; bodies stay here."""
    async with calling() as caller:
        task_id = await create(caller)
        await caller.post("/v1/images/generate", {"prompt": "a fox"})
        await caller.get(f"{CREATE}/{task_id}/status", BEARER)
        await caller.get("/nowhere")
        everything = without_body(caller.sandbox.requests)
        assert (await show(caller, "/requests"))["requests"] == everything
        assert (await show(caller, "/requests?limit=2"))["requests"] == everything[2:]
        for name, value in (
            ("provider", "mira"),
            ("operation", "mirako.create"),
            ("method", "get"),
            ("status", 404),
            ("job_id", task_id),
            ("prompt", "fox"),
            ("after", 3),
        ):
            expected = without_body(caller.sandbox.find_requests(**{name: value}))
            assert 0 < len(expected) < len(everything)
            assert (await show(caller, f"/requests?{name}={value}"))["requests"] == expected


@pytest.mark.anyio
async def test_requests_can_be_read_page_by_page() -> None:
    """With `after` the page begins there; without, it is the latest one."""
    async with calling() as caller:
        for _ in range(5):
            await caller.get("/nowhere")
        pages = [[one["number"] for one in (await show(caller, f"/requests?{query}"))["requests"]] for query in PAGES]
        assert pages == [[1, 2], [3, 4], [5], [4, 5]]


@pytest.mark.anyio
async def test_health_can_be_asked_for_without_a_body_and_the_list_without_a_slash() -> None:
    """Health checks send HEAD, and people leave the slash out."""
    async with calling() as caller:
        reply = await caller.get(f"{PREFIX}/health", method="HEAD")
        assert (reply.status, reply.body) == (200, b"")
        assert (await caller.get(PREFIX)).json == (await caller.get(f"{PREFIX}/")).json


@pytest.mark.anyio
async def test_what_clients_sent_is_shown_however_odd_it_is() -> None:
    """Long texts are cut, and what JSON cannot say is said nearly."""
    async with calling() as caller:
        deep = b'{"prompt":"' + b"p" * 300 + b'","n":' + b"7" * 40 + b',"deep":' + b"[" * 90 + b"]" * 90 + b"}"
        await caller.post("/v1/images/generate", headers={**BEARER, "X-Odd": "a\udcffb"}, data=deep)
        (shown,) = (await show(caller, "/requests"))["requests"]
        assert shown["fields"]["prompt"] == "p" * 200 + "..."
        assert shown["fields"]["n"] == hex(int("7" * 40))
        assert json.dumps(shown["fields"]["deep"]).count("[") < 60
        assert "body" not in shown


def test_plain_says_everything_in_terms_of_json() -> None:
    """Whatever is in a log or a fault has its nearest likeness."""
    value = {"a": (1, 2**64, -(2**64), math.inf, b"\xff", None, True), 5: {"\udcff"}, "o": object}
    shown = plain(value)
    assert shown["a"] == [1, hex(2**64), hex(-(2**64)), "inf", "\xff", None, True]
    assert (shown["5"], shown["o"]) == (["?"], "<class 'object'>")
    assert plain({"a" * 5: "b" * 5}, longest=3) == {"aaa...": "bbb..."}
    nested: Any = []
    for _ in range(100):
        nested = {"in": [nested]}
    assert msgspec.json.encode(plain(nested)).count(b"...") == 1


@pytest.mark.anyio
async def test_the_transcript_is_lines_of_json() -> None:
    """A line for each entry of `transcript`."""
    async with calling() as caller:
        await create(caller)
        await caller.get("/nowhere")
        async with caller.http.get(f"{caller.sandbox.url}{PREFIX}/transcript") as response:
            lines = (await response.read()).splitlines()
            assert response.content_type == "application/x-ndjson"
        assert [json.loads(line) for line in lines] == caller.sandbox.transcript()
        assert len(lines) == 2


@pytest.mark.anyio
async def test_credits_and_limits_are_set_and_accounts_shown() -> None:
    """Amounts for all keys or for one; no answer repeats a key."""
    async with calling() as caller:
        paid = await order(caller, "PUT", "/credits", {"provider": "mira", "credits": 1, "key": "sk-test"})
        alias = paid.json["account"]
        assert (paid.json, len(alias)) == ({"provider": "mira", "credits": 1.0, "account": alias}, 8)
        statuses = [(await caller.post("/v1/images/generate", PROMPT)).status for _ in range(2)]
        assert statuses == [200, 402]
        accounts = (await show(caller, "/accounts"))["accounts"]
        assert accounts == [asdict(account) for account in caller.sandbox.accounts]
        assert (accounts[0]["account"], accounts[0]["credits"]) == (alias, 0.0)
        await order(caller, "PUT", "/credits", {"provider": "mira", "credits": None, "key": "sk-test"})
        limited = await order(caller, "PUT", "/limits", {"provider": "mira", "requests": 1, "seconds": 30})
        assert limited.json == {"provider": "mira", "requests": 1, "seconds": 30.0, "account": ""}
        statuses = [(await caller.post("/v1/images/generate", PROMPT)).status for _ in range(2)]
        assert statuses == [200, 429]
        assert "sk-test" not in json.dumps([paid.json, accounts])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        (
            "/credits",
            {"provider": "dalle", "credits": 1},
            "unknown provider 'dalle'; known: mirako, miragic, mira, milady",
        ),
        (
            "/credits",
            {"provider": "mira", "credits": -1},
            "credits must be 0 to 1e+09, or None for any number, got -1.0",
        ),
        ("/credits", {"provider": "mira"}, "body: Object missing required field `credits`"),
        (
            "/limits",
            {"provider": "mira", "requests": 0},
            "requests must be a whole number from 1 to a billion, or None, got 0",
        ),
        (
            "/limits",
            {"provider": "mira", "requests": 1, "seconds": 0},
            "seconds must be more than 0 and at most 86400, got 0.0",
        ),
        ("/settings", {"speed": 1}, "body: Object contains unknown field `speed`"),
        ("/settings", {"durations": "soon"}, "durations: want seconds or (low, high), got 'soon'"),
        ("/settings", {"progress": 0}, 'progress: want "time", "manual" or a number of status calls from 1, got 0'),
        ("/settings", {"workers": {"mira": 0}}, "workers must be whole numbers from 1, got 0 for mira"),
    ],
)
async def test_amounts_and_settings_that_make_no_sense_are_refused(path: str, fields: Any, message: str) -> None:
    """400 shows the value and what is allowed."""
    async with calling() as caller:
        reply = await order(caller, "PUT", path, fields)
        assert (reply.status, reply.json) == (400, {"error": message})


@pytest.mark.anyio
async def test_settings_change_together_or_not_at_all() -> None:
    """One wrong value among them changes none, and what is not given stays."""
    async with calling() as caller:
        good = {"durations": {"mira": [5, 5], "mirako": {"median": 9, "sigma": 0}}, "progress": "manual", "workers": 1}
        refused = await order(caller, "PUT", "/settings", {**good, "workers": 0})
        assert refused.status == 400
        task_id = await create(caller)
        caller.clock.advance(8.0)
        assert caller.sandbox.jobs[task_id].status == "COMPLETED"
        assert (await order(caller, "PUT", "/settings", good)).json == {"changed": ["durations", "progress", "workers"]}
        held, waiting = await create(caller), await create(caller)
        caller.clock.advance(100.0)
        assert [caller.sandbox.jobs[name].status for name in (held, waiting)] == ["IN_QUEUE", "IN_QUEUE"]
        caller.sandbox.finish_job(held)
        caller.sandbox.finish_job(waiting)
        assert (await order(caller, "PUT", "/settings", {"progress": None})).json == {"changed": ["progress"]}
        task_id = await create(caller)
        caller.clock.advance(8.5)
        assert caller.sandbox.jobs[task_id].progress == 94
        caller.clock.advance(0.5)
        assert caller.sandbox.jobs[task_id].status == "COMPLETED"
        assert (await order(caller, "PUT", "/settings", {})).json == {"changed": []}


@pytest.mark.anyio
async def test_deliveries_are_shown_and_made_again() -> None:
    """Their list is the property's, and one more attempt tells what came of it."""
    async with calling() as caller:
        task_id = await create(caller, webhook={"url": caller.sandbox.url + "/hook", "auth_token": "t"})
        caller.sandbox.finish_job(task_id)
        await until(lambda: caller.sandbox.deliveries and caller.sandbox.deliveries[0].attempts)
        shown = (await show(caller, "/deliveries"))["deliveries"]
        assert shown == plain([asdict(delivery) for delivery in caller.sandbox.deliveries])
        again = await order(caller, "POST", "/deliveries/1/redeliver")
        assert again.json == {"at": caller.clock.monotonic(), "status": 404, "error": ""}
        assert len(caller.sandbox.deliveries[0].attempts) == 2
        gone = await order(caller, "POST", "/deliveries/2/redeliver")
        assert (gone.status, gone.json) == (404, {"error": "no delivery 2 among the 1 that are kept"})
        assert (await order(caller, "POST", "/deliveries/one/redeliver")).status == 400


@pytest.mark.anyio
async def test_a_delivery_that_a_reset_calls_off_is_an_error_to_whoever_asked() -> None:
    """A receiver that never answers does not hold a reset up."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.avatar_create", "hang", times=None)
        webhook = {"url": caller.sandbox.url + "/v1/avatar/async_build", "auth_token": "t"}
        caller.sandbox.finish_job(await create(caller, webhook=webhook))
        await until(lambda: caller.sandbox.find_requests(operation="mirako.avatar_create"))
        asked = asyncio.create_task(order(caller, "POST", "/deliveries/1/redeliver"))
        await until(lambda: len(caller.sandbox.find_requests(operation="mirako.avatar_create")) == 2)
        caller.sandbox.reset()
        reply = await asked
        assert (reply.status, reply.json) == (
            400,
            {"error": "delivery 1 was called off: the sandbox was reset or left"},
        )


@pytest.mark.anyio
async def test_the_honesty_list_is_the_property_and_can_be_filtered() -> None:
    """By provider, by tag, or whole."""
    async with calling() as caller:
        everything = [asdict(one) for one in caller.sandbox.honesty]
        assert (await show(caller, "/honesty"))["behaviours"] == everything
        some = (await show(caller, "/honesty?provider=milady&tag=observed"))["behaviours"]
        assert some == [one for one in everything if (one["provider"], one["tag"]) == ("milady", "observed")]
        assert some


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/jobs?open=maybe", "open must be true or false, got 'maybe'"),
        ("/jobs?colour=red", "unknown filter 'colour'; known: provider, kind, status, open"),
        ("/requests?limit=0", "limit must be 1 or more, got '0'"),
        ("/requests?after=x", "after must be a whole number, got 'x'"),
        ("/health?a=1", "unknown filter 'a'; known: none"),
    ],
)
async def test_a_filter_that_makes_no_sense_is_refused(path: str, message: str) -> None:
    """A misspelt filter does not pass for none."""
    async with calling() as caller:
        reply = await order(caller, "GET", path)
        assert (reply.status, reply.json) == (400, {"error": message})


@pytest.mark.anyio
@pytest.mark.parametrize("route", [one for one in ROUTES if one.method in ("POST", "PUT")], ids=lambda one: one.path)
@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_an_order_must_be_declared_as_json(route: ControlRoute, content_type: str) -> None:
    """A browser sends nothing of the kind for a stranger's page, not even an empty body, without asking first."""
    async with calling() as caller:
        url = caller.sandbox.url + PREFIX + route.path.format(id="1")
        headers = {"Content-Type": content_type}
        async with caller.http.request(route.method, url, headers=headers, data=b"") as response:
            assert response.status == 415
            assert "the Content-Type must be application/json" in (await response.json())["error"]


@pytest.mark.anyio
async def test_a_browser_that_asks_first_is_not_let_in() -> None:
    """No answer has CORS headers, the one to a preflight least of all."""
    async with calling() as caller:
        headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        url = f"{caller.sandbox.url}{PREFIX}/reset"
        async with caller.http.options(url, headers=headers) as response:
            assert (response.status, response.headers["Allow"]) == (405, "POST")
            assert [name for name in response.headers if name.lower().startswith("access-control")] == []


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/", "/reset", "/nowhere", "/jobs/1"])
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "2130706433", "[::1", "localhost.evil"])
async def test_a_request_for_another_name_is_refused(path: str, host: str) -> None:
    """A name of somebody else's may be made to lead here, and then a browser takes this for their site."""
    async with calling() as caller:
        reply = await caller.get(PREFIX + path, {"Host": host})
        assert reply.status == 403
        message = f"the Host must be an IP address, a local name or 127.0.0.1, got {host!r}"
        assert reply.json == {"error": message}


@pytest.mark.anyio
@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:8080", "192.168.1.5", "10.0.0.1", "sandbox:80", "ci.test"],
)
async def test_a_request_for_an_address_or_a_local_name_is_served(host: str) -> None:
    """No stranger can give these another meaning: containers have such names, and nobody can buy them."""
    async with calling() as caller:
        assert (await caller.get(f"{PREFIX}/health", {"Host": host})).status == 200


@pytest.mark.anyio
async def test_a_request_for_the_name_it_listens_on_is_served() -> None:
    """Who starts it on a name can use that name; this one is no address as far as a browser is concerned."""
    async with calling(host="127.1") as caller:
        url = caller.sandbox.url.replace("127.1", "127.0.0.1") + f"{PREFIX}/health"
        assert (await caller.get(url, {"Host": "127.1:80"})).status == 200
        refused = await caller.get(url, {"Host": "127.2"})
        message = "the Host must be an IP address, a local name or 127.1, got '127.2'"
        assert (refused.status, refused.json) == (403, {"error": message})


@pytest.mark.anyio
@pytest.mark.parametrize("path", sorted({one.path for one in ROUTES}))
async def test_other_methods_are_told_which_ones_there_are(path: str) -> None:
    """405 names them, whatever the body."""
    allowed = ", ".join("GET, HEAD" if one.method == "GET" else one.method for one in ROUTES if one.path == path)
    async with calling() as caller:
        reply = await caller.get(PREFIX + path.format(id="1"), method="PATCH")
        assert (reply.status, reply.headers["Allow"]) == (405, allowed)
        assert reply.json == {"error": f"this path takes {allowed}"}


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/nowhere", "/jobs/1/paint", "//", "/%0A"])
async def test_a_path_that_is_none_is_not_found(path: str) -> None:
    """404 tells where the list is; a provider's key or log has nothing to do with it."""
    async with calling() as caller:
        for method in ("GET", "POST"):
            reply = await caller.get(PREFIX + path, method=method)
            assert (reply.status, reply.json) == (404, {"error": f"no such control route; GET {PREFIX}/ lists them"})
        assert caller.sandbox.requests == []
        assert (await caller.get(f"{PREFIX}ed")).json == {"error": f"Nothing at GET {PREFIX}ed"}


@pytest.mark.anyio
async def test_control_requests_leave_no_trace() -> None:
    """They are not logged or counted, meet no faults and no limits, and need no key."""
    async with calling() as caller:
        caller.sandbox.fail("*", "500", "hang", times=None)
        for provider in caller.sandbox.base_urls:
            caller.sandbox.set_rate_limit(provider, 1)
        for one in ROUTES:
            # The others would take away what this is about.
            if one.path != "/reset" and one.method != "DELETE":
                reply = await order(caller, one.method, one.path.format(id="1"))
                assert reply.status in (200, 400, 404)
                assert "X-Request-Id" not in reply.headers
        assert caller.sandbox.requests == []
        assert caller.sandbox.accounts == []
        statistics = caller.sandbox.statistics()
        assert (statistics.requests, statistics.faults_waiting) == ({}, 2)
        assert [rule.struck for rule in caller.sandbox.faults] == [0, 0]
        assert (await caller.get("/nowhere", API_KEY)).headers["X-Request-Id"] == "req-000001"


@pytest.mark.anyio
async def test_an_order_on_its_way_keeps_the_clock_from_jumping() -> None:
    """An auto-advancing clock waits for control requests as for any other work."""
    async with calling(time="jumping") as caller:
        port = int(caller.sandbox.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"PUT {PREFIX}/settings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: 2\r\n\r\n{{".encode())
        await until(lambda: caller.clock._busy == 1)
        writer.write(b"}")
        assert b" 200 " in await reader.readline()
        await until(lambda: caller.clock._busy == 0)
        writer.close()
        await writer.wait_closed()


@pytest.mark.anyio
async def test_a_body_that_cannot_be_read_is_refused() -> None:
    """Too much of it, or another encoding than it says."""
    async with calling() as caller:
        large = io.BytesIO(bytes(64 * 2**20 + 1))
        reply = await caller._send("POST", f"{PREFIX}/reset", headers=JSON, data=large)
        assert (reply.status, reply.json) == (413, {"error": "the body is too large"})
        headers = {**JSON, "Content-Encoding": "gzip", "Content-Length": "3"}
        url = f"{caller.sandbox.url}{PREFIX}/reset"
        async with aiohttp.ClientSession() as http, http.post(url, headers=headers, data=b"abc") as response:
            assert (response.status, await response.json()) == (400, {"error": "the body cannot be read"})


@pytest.mark.anyio
async def test_an_empty_body_counts_as_an_object_without_fields() -> None:
    """What needs no fields needs no body, only its type."""
    async with calling() as caller:
        reply = await caller._send("POST", f"{PREFIX}/reset", headers=JSON, data=b"")
        assert (reply.status, reply.json) == (200, {"scope": "all"})


@pytest.mark.anyio
@pytest.mark.parametrize(
    "body",
    [b"{", b"\xff", b'{"scope":"\\ud800"}', b"[" * 100_000, b'{"durations":' + b'{"warm":' * 900 + b"1" + b"}" * 901],
)
@pytest.mark.parametrize("path", ["/reset", "/settings"])
async def test_a_body_that_is_no_json_is_refused(path: str, body: bytes) -> None:
    """Nor is JSON that never ends, or that only a deeper stack could read."""
    async with calling() as caller:
        method = "PUT" if path == "/settings" else "POST"
        reply = await caller._send(method, PREFIX + path, headers=JSON, data=io.BytesIO(body))
        assert (reply.status, list(reply.json)) == (400, ["error"])
        assert len(reply.json["error"]) < 2000


ORDERS = [kind for name in orders.__all__ if issubclass(kind := getattr(orders, name), msgspec.Struct)]
FIELDS = sorted({field for kind in ORDERS for field in kind.__struct_fields__})
WORDS = [
    "all",
    "mira",
    "mirako",
    "*",
    "mirako.create",
    "429:2",
    "reset",
    "inf",
    "freeze",
    "advance",
    "auto_advance",
    "",
]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, 2**64, 10**30, -(10**30), 10**4000])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=10)
    | st.sampled_from(WORDS)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS + WORDS), inner, max_size=3),
    max_leaves=6,
)
BODIES = (
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5).map(lambda one: json.dumps(one).encode())
    | VALUES.map(lambda one: json.dumps(one).encode())
    | st.binary(max_size=20)
)


async def throw(route: ControlRoute, bodies: list[bytes]) -> None:
    """Send bodies to one route, then look at everything."""
    async with calling() as caller:
        caller.sandbox.fail("mira.*", "500")
        task_id = await create(caller)
        for body in bodies:
            path = PREFIX + route.path.format(id=task_id if "jobs" in route.path else "1")
            reply = await caller._send(route.method, path, headers=JSON, data=io.BytesIO(body))
            assert reply.status < 500, (body, reply.body)
            assert reply.status == 200 or list(reply.json) == ["error"]
        for one in ROUTES:
            if one.method == "GET" and "{" not in one.path and one.path != "/transcript":
                assert (await caller.get(PREFIX + one.path)).status == 200, bodies


@pytest.mark.parametrize("route", [one for one in ROUTES if one.method != "GET"], ids=lambda one: one.method + one.path)
@settings(max_examples=12, derandomize=True, database=None, deadline=None)
@given(bodies=st.lists(BODIES, min_size=5, max_size=15))
def test_no_body_brings_a_control_route_down(route: ControlRoute, bodies: list[bytes]) -> None:
    """Whatever is sent, the answer is a success or says what is wrong, and afterwards everything can still be seen."""
    asyncio.run(throw(route, bodies))
