"""Fault rules: which request meets which fault, how often, in which order, and what is then on the wire."""

from __future__ import annotations

import asyncio
import json
import math
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import pytest
from calling import API_KEY, BEARER, Caller, Reply, calling, encoded, opened, plain_base64, until

from mirage_async.sandbox import Fault, FaultRule, Sandbox
from mirage_async.sandbox.faults.catalogue import NAMES, named_fault
from mirage_async.sandbox.faults.places import Place
from mirage_async.sandbox.faults.rules import FaultRules, Occasion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

pytestmark = pytest.mark.anyio

CREATE = "/v1/image/async_generate"
AVATARS = "/v1/avatar/list"
PATHS = {
    "mirako.create": CREATE,
    "mirako.generate": "/v1/image/generate",
    "mirako.avatar_create": "/v1/avatar/async_build",
    "miragic.create": "/api/v1/image/generate",
    "mira.generate": "/v1/images/generate",
    "milady.generate": "/api/v1/generate-image",
}
KEYS = {**BEARER, **API_KEY}
every_submit = pytest.mark.parametrize("operation", PATHS)
FOUR = ("mirako.create", "miragic.create", "mira.generate", "milady.generate")


async def submit(caller: Caller, operation: str = "mirako.create", prompt: str = "hills") -> Reply:
    """Send the smallest request an operation accepts, with this prompt."""
    fields: dict[str, Any] = {"prompt": prompt}
    if operation.startswith("mirako"):
        fields["aspect_ratio"] = "1:1"
    if operation == "mirako.avatar_create":
        fields = {"name": prompt, "image": "nothing"}
    if operation == "miragic.create":
        fields |= {"model": "flux", "width": "256", "height": "256"}
    return await caller.post(PATHS[operation], fields, KEYS)


async def statuses(caller: Caller, times: int, prompt: str = "hills") -> list[int]:
    """Return the HTTP statuses of so many submits to Mirako."""
    return [(await submit(caller, prompt=prompt)).status for _ in range(times)]


async def task(caller: Caller, prompt: str = "hills") -> str:
    """Submit to Mirako and return the path of the task's status."""
    reply = await submit(caller, prompt=prompt)
    return f"{CREATE}/{reply.json['data']['task_id']}/status"


async def words(caller: Caller, path: str, times: int) -> list[str]:
    """Return what Mirako says of a task, so many times."""
    return [(await caller.get(path, BEARER)).json["data"]["status"] for _ in range(times)]


def order(*orders: str) -> str:
    """Return a prompt with these faults in it."""
    return " ".join(["a fox", *(f"[[fault:{one}]]" for one in orders)])


def ids(sandbox: Sandbox) -> list[int]:
    """Return the numbers of the rules that wait."""
    return [rule.id for rule in sandbox.faults]


# -- levels ----------------------------------------------------------------------------------------------------------


async def test_the_prompt_comes_first_then_the_operation_the_provider_and_the_server() -> None:
    """However they were ordered, the nearest strikes first, and each waits for its turn."""
    async with calling() as caller:
        for operation, fault in (("*", "500"), ("mirako.*", "501"), ("mirako.create", "502")):
            caller.sandbox.fail(operation, fault)
        assert await statuses(caller, 5, order("503")) == [503, 502, 501, 500, 200]


@pytest.mark.parametrize(("operation", "struck"), [("mirako.*", "mirako"), ("miragic.*", "miragic"), ("*", "all")])
async def test_a_wider_rule_strikes_every_request_it_names(operation: str, struck: str) -> None:
    """A provider's rule leaves the others alone; the server's spares nobody, downloads and lists included."""
    async with calling() as caller:
        caller.sandbox.fail(operation, "503", times=None)
        for name in FOUR:
            expected = 503 if struck in {"all", name.partition(".")[0]} else 200
            assert (await submit(caller, name)).status == expected
        assert (await caller.get(AVATARS, BEARER)).status == (503 if struck in {"all", "mirako"} else 200)


async def test_an_unknown_path_meets_no_fault() -> None:
    """Rules are about operations; the wrong method and the wrong path are none."""
    async with calling() as caller:
        caller.sandbox.fail("*", "500")
        assert (await caller.get("/nowhere")).status == 404
        assert (await caller.get(CREATE, BEARER)).status == 405
        assert len(caller.sandbox.faults) == 1


async def test_a_request_without_a_key_meets_its_fault_all_the_same() -> None:
    """A fault that strikes before the work does not look at keys; nothing is bought."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.create", "503")
        assert (await caller.post(CREATE, {}, {})).status == 503
        assert (await caller.post(CREATE, {}, {})).status == 401


# -- how often -------------------------------------------------------------------------------------------------------


async def test_a_fault_strikes_as_often_as_it_was_ordered() -> None:
    """Once by default, a number of times, or for ever."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.create", "500")
        caller.sandbox.fail("mirako.create", "501", times=3)
        caller.sandbox.fail("mirako.create", "502", times=None)
        assert await statuses(caller, 8) == [500, 501, 501, 501, 502, 502, 502, 502]
        (left,) = caller.sandbox.faults
        assert (left.fault.status, left.remaining, left.struck) == (502, None, 4)


async def test_several_faults_of_one_order_strike_one_after_the_other() -> None:
    """Each as often as `times` says before the next begins; text and `Fault` may stand side by side."""
    async with calling() as caller:
        assert caller.sandbox.fail("mirako.create", "500", Fault(status=501), "502:html", times=2) == [1, 2, 3]
        assert await statuses(caller, 7) == [500, 500, 501, 501, 502, 502, 200]


async def test_waiting_faults_are_counted_by_their_strikes() -> None:
    """One that strikes for ever counts once; what stands in prompts is not known beforehand."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.create", "500", "501", times=3)
        caller.sandbox.fail("*", "502", times=None)
        assert caller.sandbox.statistics().faults_waiting == 7
        assert await statuses(caller, 4, order("503")) == [503, 500, 500, 500]
        assert caller.sandbox.statistics().faults_waiting == 4
        assert "4 faults waiting" in repr(caller.sandbox)


def strikes(seed: int, times: int, probability: float) -> list[bool]:
    """Return which of so many occasions a rule with this probability strikes."""
    rules = FaultRules({"mirako.create": Place(stage="submit")}, seed=seed)
    rules.add("mirako.create", "500", times=None, probability=probability)
    occasion = Occasion(operation="mirako.create", points=frozenset({"submit"}))
    return [rules.take(occasion) is not None for _ in range(times)]


@pytest.mark.parametrize("probability", [0.05, 0.3, 0.9])
def test_a_probability_is_the_share_of_requests_it_strikes(probability: float) -> None:
    """Over many requests the share is met within three points; one seed strikes the same ones every time."""
    struck = strikes(1, 4000, probability)
    assert sum(struck) / len(struck) == pytest.approx(probability, abs=0.03)
    assert strikes(1, 4000, probability) == struck
    assert strikes(2, 4000, probability) != struck


async def test_a_rule_that_did_not_strike_lets_the_next_one_try() -> None:
    """A rare fault before a sure one strikes now and then, the sure one otherwise; misses are not counted off."""
    async with calling(seed=3) as caller:
        caller.sandbox.fail("mirako.create", "500", times=5, probability=0.3)
        caller.sandbox.fail("mirako.create", "501", times=None)
        seen = await statuses(caller, 40)
        assert (seen.count(500), seen.count(501)) == (5, 35)
        assert seen[:5] != [500] * 5
    async with calling(seed=3) as again:
        again.sandbox.fail("mirako.create", "500", times=5, probability=0.3)
        again.sandbox.fail("mirako.create", "501", times=None)
        assert await statuses(again, 40) == seen


async def test_a_fault_can_wait_for_a_prompt() -> None:
    """Only requests whose prompt contains the text are struck, and so are the status calls of their jobs."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.create", "500", prompt="fox")
        caller.sandbox.fail("mirako.status", "502", prompt="owl", times=None)
        fox, owl = await task(caller, "a cat"), await task(caller, "an owl")
        assert await statuses(caller, 2, "a red fox") == [500, 200]
        assert (await caller.get(fox, BEARER)).status == 200
        assert (await caller.get(owl, BEARER)).status == 502


# -- taking back -----------------------------------------------------------------------------------------------------


async def test_faults_can_be_looked_at_and_taken_back() -> None:
    """The view is a copy, oldest first, whatever level a rule is on; numbers begin anew once all are taken back."""
    async with calling() as caller:
        caller.sandbox.fail("*", "hang:3", probability=0.5, prompt="x")
        caller.sandbox.fail("mira.*", "500", times=2)
        caller.sandbox.fail("mira.generate", "501")
        assert caller.sandbox.faults[0] == FaultRule(
            id=1, operation="*", fault=Fault(stall=3.0), remaining=1, probability=0.5, prompt="x", struck=0
        )
        assert [rule.operation for rule in caller.sandbox.faults] == ["*", "mira.*", "mira.generate"]
        caller.sandbox.remove_fault(2)
        assert ids(caller.sandbox) == [1, 3]
        caller.sandbox.clear_faults()
        assert ids(caller.sandbox) == []
        assert caller.sandbox.fail("*", "500") == [1]


async def test_taking_back_what_is_not_there_is_refused() -> None:
    """The message lists what waits; a rule that has struck for the last time is gone."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.create", "500", "501")
        assert await statuses(caller, 1) == [500]
        with pytest.raises(ValueError, match=r"no fault 1 waits; waiting: \[2\]"):
            caller.sandbox.remove_fault(1)


@pytest.mark.parametrize("forget", [Sandbox.reset, Sandbox.clear_faults])
async def test_the_same_orders_strike_the_same_requests_after_a_reset(forget: Callable[[Sandbox], None]) -> None:
    """What a probability strikes follows from the seed and the orders, not from what was ordered before."""
    async with calling(seed=3) as caller:
        runs: list[list[int]] = []
        for _ in range(2):
            caller.sandbox.fail("mirako.create", "500", times=None, probability=0.5)
            caller.sandbox.fail("mirako.*", "501", times=None, probability=0.5)
            runs.append(await statuses(caller, 30))
            forget(caller.sandbox)
        assert runs[0] == runs[1]
        assert set(runs[0]) == {200, 500, 501}


async def test_clearing_lets_prompts_have_theirs_again() -> None:
    """What was counted off for a prompt is forgotten too."""
    async with calling() as caller:
        assert await statuses(caller, 2, order("500")) == [500, 200]
        caller.sandbox.clear_faults()
        assert await statuses(caller, 2, order("500")) == [500, 200]


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("mirako.make", "500"), {}, "unknown operation 'mirako.make'; known: milady.download, "),
        (("nobody.*", "500"), {}, "unknown operation 'nobody.*'; known: "),
        (("mirako", "500"), {}, "unknown operation 'mirako'; known: "),
        (("mirako.create",), {}, "no fault was given for 'mirako.create'"),
        (("*", "500"), {"times": 0}, "times must be a whole number from 1 to 1000000, or None for ever, got 0"),
        (("*", "500"), {"times": 1_000_001}, "got 1000001"),
        (("*", "500"), {"times": True}, "got True"),
        (("*", "500"), {"times": 1.0}, "got 1.0"),
        (("*", "500"), {"probability": 0}, "probability must be above 0 and at most 1, got 0"),
        (("*", "500"), {"probability": 1.01}, "got 1.01"),
        (("*", "500"), {"probability": math.nan}, "got nan"),
        (("*", "500"), {"probability": True}, "got True"),
        (("*", "500", "oops"), {}, "unknown fault 'oops'; known: a status 400-599, hang, reset, "),
        (("mirako.create", "duplicate"), {}, "flaw=duplicate never strikes mirako.create, which takes statuses, "),
        (("mirako.webhook", "500"), {}, "status=500 never strikes mirako.webhook, which takes a stall, early, "),
        (("mirako.webhook", "no-image"), {}, "flaw=no-image never strikes mirako.webhook"),
        (("mirako.avatar_list", "no-image"), {}, "never strikes mirako.avatar_list, which takes statuses, trouble"),
        (("mira.download", "stuck"), {}, "flaw=stuck never strikes mira.download, which takes statuses, trouble"),
        (("mirako.status", "early"), {}, "flaw=early never strikes mirako.status"),
        (("miragic.create", "data-url"), {}, "flaw=data-url never strikes miragic.create, which takes"),
        (("miragic.status", "data-url"), {}, "never strikes miragic.status, which takes|no-image, mislabelled"),
        (("mirako.create", "fewer"), {}, "flaw=fewer never strikes mirako.create"),
        (("mirako.status", "fewer"), {}, "flaw=fewer never strikes mirako.status"),
        (("mirako.generate", "expired"), {}, "flaw=expired never strikes mirako.generate, which takes"),
        (("mirako.generate", "unknown-status"), {}, "flaw=unknown-status never strikes mirako.generate"),
        (("milady.generate", "backwards"), {}, "flaw=backwards never strikes milady.generate"),
        (("mirako.avatar_create", "corrupt"), {}, "which takes statuses, trouble with the connection, invalid-json"),
        (("mirako.avatar_status", "no-image"), {}, "flaw=no-image never strikes mirako.avatar_status"),
        (("miragic.webhook", "duplicate"), {}, "unknown operation 'miragic.webhook'"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(
    arguments: tuple[str, ...], options: dict[str, Any], message: str
) -> None:
    """The message shows the value and what is allowed, and nothing of the order is kept."""
    sandbox = Sandbox()
    with pytest.raises(ValueError, match=r".") as refusal:
        sandbox.fail(*arguments, **options)
    assert all(part in str(refusal.value) for part in message.split("|"))
    assert sandbox.faults == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "unknown fault ''; known: a status 400-599, "),
        ("200", "unknown fault '200'"),
        ("600", "unknown fault '600'"),
        ("4290", "unknown fault '4290'"),
        ("No-Image", "unknown fault 'No-Image'"),
        ("no-image:3", "unknown fault 'no-image:3'"),
        ("429:soon", "fault '429:soon': want seconds, date or html after the colon, got 'soon'"),
        ("429:-1", "fault '429:-1': want seconds, date or html after the colon, got '-1'"),
        ("hang:nan", "fault 'hang:nan': want seconds, zero or more, got 'nan'"),
        ("dribble:inf", "fault 'dribble:inf': dribble must be seconds, zero or more (up to a billion), got inf"),
        ("truncated:-1", "fault 'truncated:-1': want a number of bytes, got '-1'"),
        ("reset:5", "fault 'reset:5': it takes nothing after the colon, got '5'"),
        ("truncated:1.5", "want a number of bytes, got '1.5'"),
    ],
)
def test_a_name_that_is_none_is_refused(name: str, message: str) -> None:
    """A name, or what follows its colon, is checked when the fault is ordered."""
    with pytest.raises(ValueError, match=r".") as refusal:
        named_fault(name)
    assert all(part in str(refusal.value) for part in message.split("|"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reset": True, "retry_after": 1}, "headers, body and retry_after belong to a status"),
        ({"reset": True, "retry_at": 1}, "headers, body and retry_after belong to a status"),
        ({"status": 429, "retry_after": -1}, "retry_after must be seconds, zero or more (up to a billion), got -1"),
        ({"status": 429, "retry_at": math.inf}, "retry_at must be seconds, zero or more (up to a billion), got inf"),
        ({"dribble": math.inf}, "dribble must be seconds, zero or more (up to a billion), got inf"),
        ({"dribble": "slow"}, "dribble must be seconds, zero or more (up to a billion), got 'slow'"),
        ({"flaw": "ugly"}, "flaw must be one of invalid-json, "),
        ({"flaw": "stuck", "status": 500}, "got status, flaw"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_too(arguments: dict[str, Any], message: str) -> None:
    """The arguments of the newer kinds are checked like the others."""
    with pytest.raises(ValueError, match=r".") as refusal:
        Fault(**arguments)
    assert all(part in str(refusal.value) for part in message.split("|"))


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault(status=429, retry_after=2), "status=429 retry_after=2"),
        (Fault(status=429, retry_after=0), "status=429 retry_after=0"),
        (Fault(cut=0), "cut=0"),
        (Fault(stall=0, when="after"), "stall=0 when=after"),
        (Fault(reset=True, when="after"), "reset=True when=after"),
        (Fault(flaw="no-image"), "flaw=no-image"),
    ],
)
def test_a_fault_tells_what_was_ordered(fault: Fault, text: str) -> None:
    """What was given and nothing else; a zero was given."""
    assert str(fault) == text


@pytest.mark.parametrize("name", NAMES)
def test_every_name_orders_a_fault(name: str) -> None:
    """The list of names is the list of what can be ordered; most can be ordered for every request there is."""
    sandbox = Sandbox()
    sandbox.fail("*", name)
    assert sandbox.faults[0].fault == named_fault(name)


# -- orders in a prompt ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("nonsense", "unknown fault 'nonsense'; known: a status 400-599, "),
        ("", "cannot read the fault ''; want NAME[:ARGUMENT][xTIMES or x*][@submit or @status or "),
        ("429!", "cannot read the fault '429!'"),
        ("4" * 51, "a fault has up to 50 characters, got 51 in '444"),
        ("x]][[fault:" * 50, "a prompt may order up to 50 faults, got 52"),
        (
            "429@nowhere",
            "fault '429@nowhere': unknown point 'nowhere'; known: submit, status, result, picture, webhook",
        ),
        ("429:soon", "fault '429:soon': want seconds, date or html after the colon, got 'soon'"),
    ],
)
@every_submit
async def test_an_order_that_cannot_be_read_is_refused_in_the_providers_shape(
    operation: str, wrong: str, message: str
) -> None:
    """A mistake in a prompt is answered with 400 and buys nothing, whatever stands beside it."""
    async with calling() as caller:
        reply = await submit(caller, operation, order("429", wrong))
        assert reply.status == 400
        assert message in said(operation.partition(".")[0], reply.json)
        assert (dict(caller.sandbox.jobs), caller.sandbox.statistics().purchases) == ({}, {})
        assert [account.spent for account in caller.sandbox.accounts] == [0]


def said(provider: str, answer: Any) -> str:
    """Return the message of an error in a provider's own shape."""
    if provider == "mirako":
        assert (answer["title"], answer["status"]) == ("Bad Request", 400)
        assert answer["errors"][0]["location"] == "body.prompt"
        message: str = answer["detail"]
    elif provider == "miragic":
        assert (answer["success"], answer["error"]["code"]) == (False, "VALIDATION_ERROR")
        message = answer["error"]["message"]
    else:
        (message,) = answer.values()
        assert set(answer) == {"detail" if provider == "mira" else "error"}
    return message


@pytest.mark.parametrize("prompt", ["[fault:500]", "[[fault:500", "[[ fault:500]]", "[[FAULT:500]]", "fault:500"])
async def test_what_is_no_order_is_a_prompt(prompt: str) -> None:
    """Only the exact brackets order something."""
    async with calling() as caller:
        assert (await submit(caller, prompt=prompt)).status == 200


@pytest.mark.parametrize("text", ["429x2", " 429 x 2 ", "429x2@submit", " 429 x2 @ submit "])
async def test_spaces_in_an_order_do_not_matter(text: str) -> None:
    """However it is spaced, it strikes twice."""
    async with calling() as caller:
        assert await statuses(caller, 3, order(text)) == [429, 429, 200]


@pytest.mark.parametrize(
    ("operation", "wrong", "menu"),
    [
        ("mirako.generate", "expired", "at the point picture a purchase from mirako.generate takes statuses, "),
        ("mirako.generate", "backwards", "at the point submit"),
        ("mirako.generate", "unknown-status", "at the point status a purchase from mirako.generate takes nothing"),
        ("mirako.generate", "404@status", "takes nothing"),
        ("mirako.generate", "duplicate", "at the point webhook a purchase from mirako.generate takes nothing"),
        ("mirako.create", "fewer", "at the point result"),
        ("mirako.create", "expired@status", "at the point status"),
        ("mirako.create", "stuck@webhook", "takes a stall, early, duplicate, "),
        ("mirako.avatar_create", "corrupt", "at the point picture a purchase from mirako.avatar_create takes nothing"),
        ("mirako.avatar_create", "fewer@submit", "invalid-json, error-body, unknown-status, backwards, stuck, failed"),
        ("miragic.create", "data-url", "at the point result"),
        ("miragic.create", "no-image@picture", "invalid-json, error-body, mislabelled, corrupt, expired"),
        ("miragic.create", "late", "takes nothing"),
        ("mira.generate", "data-url", "at the point result"),
        ("mira.generate", "corrupt@status", "takes nothing"),
        ("milady.generate", "early", "takes nothing"),
    ],
)
async def test_an_order_that_would_never_show_is_refused_at_the_purchase(operation: str, wrong: str, menu: str) -> None:
    """Neither the answer nor anything later could show it, so nothing is bought and no other order is used up."""
    async with calling() as caller:
        reply = await submit(caller, operation, order("429", wrong))
        assert reply.status == 400
        message = said(operation.partition(".")[0], reply.json)
        assert f"fault '{wrong}' would never show: " in message
        assert menu in message
        assert caller.sandbox.jobs == {}
        assert (await submit(caller, operation, order("429"))).status == 429


async def test_what_mira_can_show_depends_on_where_the_picture_is() -> None:
    """A link can have expired, and base64 can be a data URL; a rule waits for a purchase that can show it."""
    async with calling() as caller:
        caller.sandbox.fail("mira.generate", "data-url")
        caller.sandbox.fail("mira.*", "expired")
        embedded = {"prompt": "hills", "response_format": "b64_json"}
        with_link = (await submit(caller, "mira.generate")).json["data"][0]
        assert [rule.fault.flaw for rule in caller.sandbox.faults] == ["data-url", "expired"]
        whole = (await caller.post(PATHS["mira.generate"], embedded)).json["data"][0]
        assert whole["b64_json"].startswith("data:image/png;base64,")
        assert [(await caller.get(with_link["url"])).status for _ in range(2)] == [410, 200]
        refused = await caller.post(PATHS["mira.generate"], embedded | {"prompt": order("expired")})
        assert (refused.status, "would never show" in refused.json["detail"]) == (400, True)
        allowed = await caller.post(PATHS["mira.generate"], embedded | {"prompt": order("data-url")})
        assert allowed.json["data"][0]["b64_json"].startswith("data:")


async def test_a_wide_rule_waits_for_a_request_that_can_show_it() -> None:
    """It is not used up by one whose answer would be the same without it."""
    async with calling(durations=0.0) as caller:
        caller.sandbox.fail("*", "fewer")
        await caller.get(await task(caller), BEARER)
        assert len(caller.sandbox.faults) == 1
        reply = await caller.post(PATHS["mira.generate"], {"prompt": "p", "n": 3})
        assert (len(reply.json["data"]), caller.sandbox.faults) == (2, [])


async def test_several_orders_in_one_prompt_strike_in_their_order() -> None:
    """Each as often as it says; orders for other points wait for theirs."""
    async with calling() as caller:
        prompt = order("429x2", "404@status", "503:html")
        assert await statuses(caller, 3, prompt) == [429, 429, 503]
        path = await task(caller, prompt)
        assert [(await caller.get(path, BEARER)).status for _ in range(2)] == [404, 200]


async def test_an_order_for_ever_strikes_for_ever() -> None:
    """`x*` never runs out, and what stands behind it has no turn."""
    async with calling() as caller:
        assert await statuses(caller, 6, order("500x*", "501")) == [500] * 6


async def test_orders_for_the_purchase_are_counted_for_the_prompt() -> None:
    """A purchase sent again is another one; another prompt has an account of its own."""
    async with calling() as caller:
        assert await statuses(caller, 2, order("500")) == [500, 200]
        assert await statuses(caller, 2, order("500") + ", please") == [500, 200]


@pytest.mark.parametrize(
    ("text", "struck"), [("failed", [1, 1, 1]), ("failedx2", [1, 1, 0]), ("failedx*", [1, 1, 1]), ("no-image", [1] * 3)]
)
async def test_a_flaw_of_a_purchase_strikes_each_one_unless_it_is_counted(text: str, struck: list[int]) -> None:
    """A prompt that asks for a bad picture gets one whenever it is sent, a number of times if it says so."""
    async with calling() as caller:
        replies = [await submit(caller, "mira.generate", order(text)) for _ in range(3)]
        assert [int(reply.status == 500 or "url" not in reply.json["data"][0]) for reply in replies] == struck


async def test_a_flaw_can_follow_a_status_of_the_same_prompt() -> None:
    """A status without a number strikes once, and every purchase after it has the flaw."""
    async with calling() as caller:
        prompt = order("429", "stuck")
        assert await statuses(caller, 1, prompt) == [429]
        paths = [await task(caller, prompt) for _ in range(2)]
        caller.clock.advance(1e6)
        assert [await words(caller, path, 1) for path in paths] == [["IN_PROGRESS"]] * 2


def test_what_is_counted_for_prompts_is_bounded() -> None:
    """The prompt that had its trouble longest ago may have it again."""
    rules = FaultRules({"mirako.create": Place(stage="submit")}, seed=1, most_counted=2)

    def strikes_in(text: str) -> bool:
        occasion = Occasion(operation="mirako.create", points=frozenset({"submit"}), prompt=f"{text} [[fault:500]]")
        return rules.take(occasion) is not None

    struck = [strikes_in(text) for text in ("a", "b", "a", "c", "b", "c", "a")]
    assert struck == [True, True, False, True, False, False, True]


async def test_orders_for_what_comes_later_are_counted_for_the_job() -> None:
    """Two jobs of one prompt have their trouble each."""
    async with calling() as caller:
        first, second = [await task(caller, order("404x2@status")) for _ in range(2)]
        seen = [(await caller.get(path, BEARER)).status for path in (first, second, first, second, first, second)]
        assert seen == [404, 404, 404, 404, 200, 200]


async def test_the_log_tells_which_fault_met_which_request() -> None:
    """In the words of an order, with the job it was about."""
    async with calling() as caller:
        path = await task(caller, order("404@status"))
        await caller.get(path, BEARER)
        await caller.get(path, BEARER)
        job_id = path.split("/")[-2]
        assert [(seen.fault, seen.job_id) for seen in caller.sandbox.requests[1:]] == [
            ("status=404", job_id),
            ("", job_id),
        ]


# -- on the wire -----------------------------------------------------------------------------------------------------


@every_submit
async def test_a_page_is_html(operation: str) -> None:
    """A gateway's answer is no JSON, whatever provider stands behind it."""
    async with calling() as caller:
        caller.sandbox.fail(operation, "503:html")
        reply = await submit(caller, operation)
        assert (reply.status, reply.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
        assert reply.body.startswith(b"<!DOCTYPE html>")
        assert b"<h1>503</h1>" in reply.body
        assert caller.sandbox.statistics().purchases == {}


@pytest.mark.parametrize(
    ("order_of", "header"),
    [
        ("429:2", "2"),
        ("503:0.5", "0.5"),
        ("429:0", "0"),
        ("429", None),
        ("429:1234567", "1234567"),
        ("429:1000000000", "1000000000"),
        ("503:123456789.125", "123456789.125"),
        ("503:0.0000001", "0.0000001"),
    ],
)
async def test_a_wait_in_seconds_is_a_number(order_of: str, header: str | None) -> None:
    """It is sent as it was ordered, and only if it was."""
    async with calling() as caller:
        caller.sandbox.fail("mira.generate", order_of)
        assert (await submit(caller, "mira.generate")).headers.get("Retry-After") == header


@pytest.mark.parametrize("provider", ["mirako", "miragic", "mira", "milady"])
@pytest.mark.parametrize("fault", [Fault(status=429, retry_after=29.5), Fault(status=429, retry_at=30)])
async def test_an_ordered_limit_is_worded_like_a_real_one(provider: str, fault: Fault) -> None:
    """Nobody can tell from the body which of them it was."""
    operation = next(name for name in FOUR if name.startswith(f"{provider}."))
    async with calling() as caller:
        caller.sandbox.fail(operation, fault)
        ordered = await submit(caller, operation)
        caller.sandbox.set_rate_limit(provider, 1, seconds=30)
        await submit(caller, operation)
        real = await submit(caller, operation)
        assert (real.status, real.headers["Retry-After"]) == (429, "30")
        assert (ordered.status, ordered.json) == (429, real.json)
        assert ordered.headers["Content-Type"] == real.headers["Content-Type"]


@pytest.mark.parametrize("ahead", [0.0, 0.25, 1000.75])
async def test_a_wait_until_a_date_ends_in_the_future_of_the_sandbox(ahead: float) -> None:
    """The date is a whole second, one to two seconds ahead of the sandbox's own clock."""
    async with calling() as caller:
        caller.clock.advance(ahead)
        caller.sandbox.fail("mirako.create", "429:date")
        text = (await submit(caller)).headers["Retry-After"]
        assert text.endswith(" GMT")
        wait = parsedate_to_datetime(text).timestamp() - caller.clock.time()
        assert 1.0 <= wait < 2.0


async def test_a_dribbled_answer_comes_in_pieces() -> None:
    """Small pieces spread over the seconds on the sandbox's clock, and together the genuine answer."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.avatar_list", "dribble:5")
        _, _, port = caller.sandbox.url.rpartition(":")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write(f"GET {AVATARS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n\r\n".encode())
        pieces: list[bytes] = []
        while not b"".join(pieces).endswith(b'{"data":null}'):
            await until(lambda: caller.clock.waiting == 1)
            caller.clock.advance(0.3)
            pieces.append(await asyncio.wait_for(reader.read(1000), 30))
        assert len(pieces) > 10
        assert caller.elapsed == pytest.approx(0.3 * len(pieces))
        assert 5.0 <= caller.elapsed < 6.5
        assert await asyncio.wait_for(reader.read(), 30) == b""
        assert all(pieces)
        head, _, body = b"".join(pieces).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body == b'{"data":null}'
        writer.close()
        await writer.wait_closed()


@every_submit
async def test_invalid_json_is_none(operation: str) -> None:
    """The work was done and the status is a success; the body is cut so that no parser accepts it."""
    async with calling() as caller:
        caller.sandbox.fail(operation, "invalid-json")
        path, fields = PATHS[operation], {"prompt": "hills", "model": "flux", "width": 256, "height": 256}
        if operation == "mirako.avatar_create":
            fields = {"name": "Ada", "image": plain_base64(encoded())}
        caller.clock.auto_advance(after=0.002)
        raw = caller.sandbox.url + path
        async with caller.http.post(raw, json=fields, headers=KEYS) as response:
            body = await response.read()
        assert (response.status, response.content_type) == (200, "application/json")
        assert body.startswith(b"{")
        with pytest.raises(json.JSONDecodeError):
            json.loads(body)
        assert sum(caller.sandbox.statistics().purchases.values()) == 1


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("mirako.create", {"title": "Internal Server Error", "status": 500, "errors": None}),
        ("miragic.create", {"success": False}),
        ("mira.generate", {"detail": "Internal error (ordered from the sandbox)"}),
        ("milady.generate", {"error": "Internal error (ordered from the sandbox)"}),
    ],
)
async def test_an_error_in_a_200_has_the_providers_shape(operation: str, expected: Mapping[str, Any]) -> None:
    """The status says success and the body does not; nothing is bought."""
    async with calling() as caller:
        caller.sandbox.fail(operation, "error-body")
        reply = await submit(caller, operation)
        assert reply.status == 200
        assert reply.json.items() >= expected.items()
        assert caller.sandbox.statistics().purchases == {}
        assert (await submit(caller, operation)).json.keys().isdisjoint({"detail", "error", "title"})


# -- flaws -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flaw", "seen"),
    [
        ("stuck", ["IN_PROGRESS", "COMPLETED"]),
        ("backwards", ["IN_QUEUE", "COMPLETED"]),
        ("failed", ["FAILED", "COMPLETED"]),
        ("cancelled", ["CANCELED", "COMPLETED"]),
        ("timed-out", ["TIMED_OUT", "COMPLETED"]),
        ("unknown-status", ["REINDEXING", "COMPLETED"]),
    ],
)
async def test_a_flaw_of_a_status_call_is_that_of_one_answer(flaw: str, seen: list[str]) -> None:
    """The job itself is well, and the next answer says so."""
    async with calling() as caller:
        path = await task(caller, order(f"{flaw}@status"))
        caller.clock.advance(8)
        assert await words(caller, path, 2) == seen
        assert next(iter(caller.sandbox.jobs.values())).status == "COMPLETED"


@pytest.mark.parametrize(
    ("flaw", "end"),
    [("failed", "FAILED"), ("cancelled", "CANCELED"), ("timed-out", "TIMED_OUT")],
)
async def test_a_bad_end_ordered_with_the_purchase_comes_at_its_time(flaw: str, end: str) -> None:
    """The job takes as long as any other, and then ends that way for good."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.create", flaw)
        path = await task(caller)
        caller.clock.advance(7.9)
        assert await words(caller, path, 1) == ["IN_PROGRESS"]
        caller.clock.advance(0.1)
        reply = await caller.get(path, BEARER)
        assert reply.json["data"]["error"] == "The sandbox was told to let this fail."
        assert await words(caller, path, 2) == [end] * 2


async def test_a_job_that_is_stuck_for_life_ends_by_hand_alone() -> None:
    """No time is long enough; `finish_job` is."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.create", "stuck")
        path = await task(caller)
        caller.clock.advance(1e6)
        assert await words(caller, path, 2) == ["IN_PROGRESS"] * 2
        caller.sandbox.finish_job(next(iter(caller.sandbox.jobs)))
        assert await words(caller, path, 1) == ["COMPLETED"]


async def test_a_job_can_go_to_and_fro_for_life() -> None:
    """Running and queued in turn, until it is done."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.create", "backwards")
        path = await task(caller)
        caller.clock.advance(4)
        assert await words(caller, path, 4) == ["IN_PROGRESS", "IN_QUEUE", "IN_PROGRESS", "IN_QUEUE"]
        caller.clock.advance(4)
        assert await words(caller, path, 2) == ["COMPLETED"] * 2


async def test_a_job_can_speak_in_unknown_words_until_it_is_done() -> None:
    """For life means while it is open: how it ended is told in words everybody knows."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.create", "unknown-status")
        path = await task(caller)
        caller.clock.advance(7)
        assert await words(caller, path, 2) == ["REINDEXING"] * 2
        caller.clock.advance(1)
        assert await words(caller, path, 1) == ["COMPLETED"]


async def test_a_flaw_of_the_result_waits_for_the_result() -> None:
    """Ordered for status calls, it does not strike while there is nothing to be wrong; then once."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.*", "no-image")
        path = await task(caller)
        assert await words(caller, path, 2) == ["IN_QUEUE"] * 2
        caller.clock.advance(8)
        answers = [(await caller.get(path, BEARER)).json["data"] for _ in range(2)]
        assert ["image" in answer for answer in answers] == [False, True]


async def test_a_flaw_of_the_result_can_last_for_life() -> None:
    """Ordered with the purchase, every answer about the job has it."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.create", "no-image")
        path = await task(caller)
        caller.clock.advance(8)
        assert ["image" in (await caller.get(path, BEARER)).json["data"] for _ in range(3)] == [False] * 3


async def test_an_expired_link_is_renewed_by_the_next_status_call() -> None:
    """Ordered for a status call, the link it hands out is dead; ordered for a download, one download is."""
    async with calling() as caller:
        job_id = (await submit(caller, "miragic.create", order("expired@status"))).json["data"]["jobId"]
        caller.clock.advance(8)
        links = [
            (await caller.get(f"/api/v1/image/jobs/{job_id}", API_KEY)).json["data"]["processedImageUrl"]
            for _ in range(2)
        ]
        assert [(await caller.get(link)).status for link in links] == [410, 200]
        caller.sandbox.fail("miragic.download", "expired")
        assert [(await caller.get(links[1])).status for _ in range(2)] == [410, 200]


@pytest.mark.parametrize("operation", ["mira.generate", "mira.download"])
async def test_a_corrupt_picture_is_cut_but_its_answer_is_whole(operation: str) -> None:
    """Ordered with the purchase every download is cut, ordered for a download only that one."""
    async with calling() as caller:
        caller.sandbox.fail(operation, "corrupt")
        url = (await submit(caller, "mira.generate")).json["data"][0]["url"]
        replies = [await caller.get(url) for _ in range(2)]
        assert [int(reply.headers["Content-Length"]) for reply in replies] == [len(reply.body) for reply in replies]
        whole = [reply.body.endswith(b"IEND\xaeB`\x82") for reply in replies]
        assert whole == [False, operation == "mira.download"]


async def test_a_mislabelled_picture_is_one_of_another_kind() -> None:
    """What the server says and what the bytes are differ."""
    async with calling() as caller:
        url = (await submit(caller, "mira.generate", order("mislabelled"))).json["data"][0]["url"]
        for expected in ("JPEG", "PNG"):
            reply = await caller.get(url)
            assert (reply.headers["Content-Type"], opened(reply.body).format) == ("image/png", expected)


@pytest.mark.parametrize(("flaw", "word"), [("failed", "FAILED"), ("backwards", "IN_QUEUE"), ("stuck", "IN_PROGRESS")])
async def test_an_end_ordered_for_a_status_call_is_that_of_one_answer(flaw: str, word: str) -> None:
    """The next answer says it, the one after says how things are."""
    async with calling(durations=0.0) as caller:
        task_id = (await caller.post("/v1/image/async_generate", {"prompt": "p"})).json["data"]["task_id"]
        caller.sandbox.fail("mirako.status", flaw)
        path = f"/v1/image/async_generate/{task_id}/status"
        words = [(await caller.get(path, BEARER)).json["data"]["status"] for _ in range(2)]
        assert words == [word, "COMPLETED"]


async def test_a_link_can_be_ordered_to_have_expired_in_one_answer() -> None:
    """The status call hands out a dead link once; asked again, a good one."""
    async with calling(durations=0.0) as caller:
        form = {"prompt": "p", "model": "flux", "width": "256", "height": "256"}
        reply = await caller.post("/api/v1/image/generate", data=form, headers=API_KEY)
        caller.sandbox.fail("miragic.status", "expired")
        path = f"/api/v1/image/jobs/{reply.json['data']['jobId']}"
        links = [(await caller.get(path, API_KEY)).json["data"]["imageUrl"] for _ in range(2)]
        assert [(await caller.get(link)).status for link in links] == [410, 200]


async def test_dates_of_answers_follow_the_sandboxs_clock() -> None:
    """A client that reckons Retry-After from the answer's own date comes to what was ordered."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.create", "429:date")
        caller.clock.advance(3600)
        reply = await caller.post("/v1/image/async_generate", {"prompt": "p"})
        dates = [parsedate_to_datetime(reply.headers[name]) for name in ("Date", "Retry-After")]
        assert dates[0].timestamp() == 1_700_004_600
        assert (dates[1] - dates[0]).total_seconds() == 1


async def test_what_comes_to_nothing_while_its_client_waits_costs_nothing() -> None:
    """A blocking purchase with a bad end is not on the bill, and its credits are given back."""
    async with calling(durations=0.0) as caller:
        caller.sandbox.set_credits("mira", 1)
        bad, good = [
            await caller.post("/v1/images/generate", {"prompt": prompt}) for prompt in ("p [[fault:failed]]", "p")
        ]
        assert (bad.status, good.status) == (500, 200)
        (account,) = caller.sandbox.accounts
        assert (account.spent, account.credits) == (1.0, 0.0)
        assert caller.sandbox.statistics().purchases == {"mira": 1}


async def test_a_transcript_has_another_address_wherever_the_own_one_stood() -> None:
    """A client may send a link of the sandbox back to it."""
    async with calling(durations=0.0) as caller:
        link = (await caller.post("/v1/images/generate", {"prompt": "p"})).json["data"][0]["url"]
        await caller.post("/v1/images/generate", {"prompt": "p", "reference_images": [link]})
        (shown,) = caller.sandbox.transcript()[1]["fields"]["reference_images"]
        assert shown == link.replace(caller.sandbox.url, "http://sandbox")
