"""Webhook deliveries: what arrives, how often it is tried, and everything that can go wrong with it on purpose."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from calling import BEARER, Caller, calling, until
from webhook_receivers import answering_never, port_nobody_listens_on, receiving

from mirage_async.sandbox import Delivery, Fault, Sandbox, posting, webhooks

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

CREATE = "/v1/image/async_generate"
TOKEN = "tok-3f9a"


async def submit(caller: Caller, url: str, *, prompt: str = "hills", token: str | None = TOKEN) -> str:
    """Start a task with a webhook and return its id."""
    webhook = {"url": url} if token is None else {"url": url, "auth_token": token}
    reply = await caller.post(CREATE, {"prompt": prompt, "aspect_ratio": "1:1", "webhook": webhook})
    assert reply.status == 200, reply.body
    task_id: str = reply.json["data"]["task_id"]
    return task_id


def only(caller: Caller) -> Delivery:
    """Return the one delivery there is."""
    (delivery,) = caller.sandbox.deliveries
    return delivery


async def until_state(caller: Caller, state: str) -> Delivery:
    """Wait until the one delivery has come so far, and return it."""
    await until(lambda: [delivery.state for delivery in caller.sandbox.deliveries] == [state])
    return only(caller)


def statuses(delivery: Delivery) -> list[int | None]:
    """Return how the attempts were answered."""
    return [attempt.status for attempt in delivery.attempts]


def moments(caller: Caller, delivery: Delivery) -> list[float]:
    """Return when the attempts were made, in seconds since the sandbox began."""
    return [round(attempt.at - caller.began, 3) for attempt in delivery.attempts]


async def test_a_finished_task_is_announced_with_its_picture() -> None:
    """The body has Mirako's fields, the times in milliseconds, and the same picture that a status call shows."""
    async with receiving() as receiver, calling() as caller:
        task_id = await submit(caller, receiver.url)
        assert caller.sandbox.deliveries == []
        caller.clock.advance(8)
        delivery = await until_state(caller, "delivered")
        status = await caller.get(f"{CREATE}/{task_id}/status", BEARER)
        assert receiver.news == [
            {
                "id": task_id,
                "status": "COMPLETED",
                "delayTime": 2000,
                "executionTime": 6000,
                "output": {"image": status.json["data"]["image"]},
            }
        ]
        assert (delivery.id, delivery.job_id, delivery.url) == (1, task_id, receiver.url)
        assert (statuses(delivery), moments(caller, delivery)) == ([204], [8.0])
        assert (delivery.reason, delivery.fault) == ("", "")
        assert caller.sandbox.statistics().deliveries == 1


async def test_the_head_carries_the_token() -> None:
    """The token that was given comes back as a bearer token, with the type and the name of the sender."""
    async with receiving() as receiver, calling() as caller:
        await submit(caller, receiver.url)
        caller.clock.advance(8)
        await until_state(caller, "delivered")
        (head,) = receiver.heads
        assert (head["Authorization"], head["Content-Type"]) == (f"Bearer {TOKEN}", "application/json")
        assert head["User-Agent"] == "mirage-async-sandbox"
        assert int(head["Content-Length"]) == len(receiver.bodies[0])
        assert receiver.paths == ["/hook?secret=s"]


async def test_no_token_was_given_and_none_is_sent() -> None:
    """Without a token there is no Authorization header."""
    async with receiving() as receiver, calling() as caller:
        await submit(caller, receiver.url, token=None)
        caller.clock.advance(8)
        await until_state(caller, "delivered")
        assert "Authorization" not in receiver.heads[0]


async def test_a_token_takes_the_place_of_a_password_in_the_address() -> None:
    """A header can say only one thing."""
    async with receiving() as receiver, calling() as caller:
        await submit(caller, receiver.url.replace("//", "//me:pw@"))
        caller.clock.advance(8)
        await until_state(caller, "delivered")
        assert receiver.heads[0].getall("Authorization") == [f"Bearer {TOKEN}"]


async def test_the_wait_for_a_worker_is_told_as_delay() -> None:
    """A task that waited for a worker was queued that long, too."""
    async with receiving() as receiver, calling(workers=1) as caller:
        for _ in range(2):
            await submit(caller, receiver.url)
        caller.clock.advance(16)
        await until(lambda: len(receiver.bodies) == 2)
        assert sorted((news["delayTime"], news["executionTime"]) for news in receiver.news) == [
            (2000, 6000),
            (10_000, 6000),
        ]


@pytest.mark.parametrize(
    ("end", "status"), [("failed", "FAILED"), ("cancelled", "CANCELED"), ("timed_out", "TIMED_OUT")]
)
async def test_a_bad_end_is_announced_with_its_reason(end: Any, status: str) -> None:
    """There is no output, and the reason stands under error; what never got a worker did no work."""
    async with receiving() as receiver, calling(workers=1, progress="manual") as caller:
        await submit(caller, receiver.url)
        waiting = await submit(caller, receiver.url)
        caller.clock.advance(3)
        caller.sandbox.fail_job(waiting, "too dark", end=end)
        await until_state(caller, "delivered")
        assert receiver.news == [
            {"id": waiting, "status": status, "delayTime": 3000, "executionTime": 0, "error": "too dark"}
        ]


async def test_work_ended_by_hand_is_told_as_work() -> None:
    """Where only a hand ends work, no part of it counts as queued."""
    async with receiving() as receiver, calling(progress="manual") as caller:
        task_id = await submit(caller, receiver.url)
        caller.clock.advance(5)
        caller.sandbox.finish_job(task_id)
        await until_state(caller, "delivered")
        assert (receiver.news[0]["delayTime"], receiver.news[0]["executionTime"]) == (0, 5000)


@pytest.mark.parametrize(("flaw", "begins"), [("no-image", ""), ("data-url", "data:image/jpeg;base64,")])
async def test_a_flaw_of_the_task_shows_in_its_news(flaw: str, begins: str) -> None:
    """What is wrong with a task is wrong wherever its result is told."""
    async with receiving() as receiver, calling() as caller:
        caller.sandbox.fail("mirako.create", flaw)
        await submit(caller, receiver.url)
        caller.clock.advance(8)
        await until_state(caller, "delivered")
        output = receiver.news[0]["output"]
        assert output == {} if flaw == "no-image" else output["image"].startswith(begins)


async def test_who_named_no_webhook_is_told_nothing() -> None:
    """Tasks without a webhook and blocking calls end in silence, and use up no fault of deliveries."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.webhook", "early", "duplicate")
        await caller.post(CREATE, {"prompt": "hills", "aspect_ratio": "1:1"})
        caller.clock.advance(8)
        assert caller.sandbox.deliveries == []
        assert caller.sandbox.statistics().faults_waiting == 2


async def test_an_unhappy_receiver_is_tried_again() -> None:
    """Whatever is not a 2xx is tried again ten seconds later, and a redirect is not followed."""
    async with receiving(500, 302) as receiver, calling() as caller:
        await submit(caller, receiver.url)
        caller.clock.advance(8)
        await until(lambda: statuses(only(caller)) == [500])
        caller.clock.advance(9.9)
        assert len(receiver.bodies) == 1
        caller.clock.advance(0.1)
        await until(lambda: statuses(only(caller)) == [500, 302])
        caller.clock.advance(10)
        delivery = await until_state(caller, "delivered")
        assert (statuses(delivery), moments(caller, delivery)) == ([500, 302, 204], [8.0, 18.0, 28.0])
        assert [attempt.accepted for attempt in delivery.attempts] == [False, False, True]
        assert receiver.paths == ["/hook?secret=s"] * 3
        assert len(set(receiver.bodies)) == 1


async def test_a_port_that_refuses_is_given_up() -> None:
    """After the last attempt it is over, and what happened is told."""
    async with calling(time="jumping") as caller:
        await submit(caller, f"http://127.0.0.1:{port_nobody_listens_on()}/hook")
        delivery = await until_state(caller, "given_up")
        assert (statuses(delivery), moments(caller, delivery)) == ([None] * 3, [8.0, 18.0, 28.0])
        assert "Connect call failed" in delivery.attempts[0].error
        assert caller.sandbox.statistics().deliveries == 0


async def test_a_reset_is_no_answer() -> None:
    """How often it is tried, and how long it waits between, is the sandbox's to set."""
    async with answering_never(reset=True) as url, calling(webhook_attempts=2, webhook_interval=0.5) as caller:
        await submit(caller, url)
        caller.clock.advance(8)
        await until(lambda: len(only(caller).attempts) == 1)
        caller.clock.advance(0.5)
        delivery = await until_state(caller, "given_up")
        assert statuses(delivery) == [None, None]
        assert all(attempt.error for attempt in delivery.attempts)


async def test_silence_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver has some seconds of real time to answer."""
    monkeypatch.setattr(posting, "_PATIENCE", 0.02)
    async with answering_never() as url, calling(webhook_attempts=1) as caller:
        await submit(caller, url)
        caller.clock.advance(8)
        delivery = await until_state(caller, "given_up")
        assert [attempt.error for attempt in delivery.attempts] == ["no answer within 0.02 seconds"]


def forbid_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first attempt to open a connection fail the test."""

    def connect(**_: Any) -> None:
        pytest.fail("a connection was about to be opened")

    monkeypatch.setattr(aiohttp, "TCPConnector", connect)


@pytest.mark.parametrize(
    "host",
    [
        "8.8.8.8",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.2.1",
        "[2001:4860:4860::8888]",
        "[::ffff:8.8.8.8]",
        "[fe80::1]",
    ],
)
async def test_a_foreign_address_is_never_called(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaves this machine and its private network; the delivery says why it was not attempted."""
    async with calling() as caller:
        await submit(caller, f"http://{host}:8080/hook")
        forbid_connections(monkeypatch)
        caller.clock.advance(8)
        delivery = await until_state(caller, "refused")
        assert delivery.attempts == ()
        assert delivery.reason == "refused: not an address of this machine or its private network"


def looking_up(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Let every name stand for these addresses; return the names that will be looked up."""
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(2, 1, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    return asked


async def test_a_name_of_a_foreign_address_is_never_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is the address a name stands for, and being asked again does not change that."""
    async with calling() as caller:
        await submit(caller, "http://hooks.example/")
        asked = looking_up(monkeypatch, "203.0.113.7")
        forbid_connections(monkeypatch)
        caller.clock.advance(8)
        reason = (await until_state(caller, "refused")).reason
        again = await caller.sandbox.redeliver(1)
        assert (again.status, again.error, again.accepted) == (None, reason, False)
        assert only(caller).attempts == ()
        assert asked == ["hooks.example"] * 2


async def test_a_name_is_looked_up_once_and_its_near_address_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that was looked at is the one that is called, and the receiver still reads the name."""
    async with receiving() as receiver, calling() as caller:
        await submit(caller, receiver.url.replace("127.0.0.1", "hooks.example"))
        asked = looking_up(monkeypatch, "203.0.113.7", "127.0.0.1")
        caller.clock.advance(8)
        await until_state(caller, "delivered")
        assert asked == ["hooks.example"]
        assert receiver.heads[0]["Host"].startswith("hooks.example:")


async def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would carry the news outside."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port_nobody_listens_on()}")
    async with receiving() as receiver, calling() as caller:
        await submit(caller, receiver.url)
        caller.clock.advance(8)
        await until_state(caller, "delivered")


@pytest.mark.parametrize(
    ("url", "token", "reason"),
    [
        ("http://127.0.0.1:99999/", None, "Port out of range"),
        ("http:///hook", None, "no host in 'http:///hook'"),
        (f"http://{'a' * 70}.example/", None, "label"),
        ("http://127.0.0.1:1/", "two\nlines", "a header cannot hold what is in the auth_token"),
        ("http://127.0.0.1:1/", "half \ud800", "a header cannot hold what is in the auth_token"),
    ],
)
async def test_what_cannot_be_sent_is_refused(url: str, token: str | None, reason: str) -> None:
    """An address or a token that HTTP has no room for is no reason to try again."""
    with pytest.raises(posting.RefusedError, match=rf"^refused: .*{reason}"):
        await posting.post(url, token=token, body=b"{}")


async def test_a_duplicate_is_the_same_body_twice() -> None:
    """The second copy follows the first that was accepted, and the delivery counts once."""
    async with receiving(500) as receiver, calling() as caller:
        caller.sandbox.fail("mirako.webhook", "duplicate")
        await submit(caller, receiver.url)
        caller.clock.advance(8)
        await until(lambda: statuses(only(caller)) == [500])
        caller.clock.advance(10)
        await until(lambda: statuses(only(caller)) == [500, 204, 204])
        assert receiver.bodies[1] == receiver.bodies[2]
        assert only(caller).fault == "flaw=duplicate"
        assert caller.sandbox.statistics().deliveries == 1


async def test_reordered_news_are_overtaken() -> None:
    """The first delivery waits until the second has been made."""
    async with receiving() as receiver, calling() as caller:
        caller.sandbox.fail("mirako.webhook", "reordered")
        first = await submit(caller, receiver.url)
        caller.clock.advance(1)
        second = await submit(caller, receiver.url)
        caller.clock.advance(7)
        assert [delivery.state for delivery in caller.sandbox.deliveries] == ["waiting"]
        caller.clock.advance(1)
        await until(lambda: len(receiver.bodies) == 2)
        assert receiver.job_ids == [second, first]
        assert [delivery.fault for delivery in caller.sandbox.deliveries] == ["flaw=reordered", ""]


async def test_news_that_nothing_overtakes_go_after_the_interval() -> None:
    """Held back for ever would be another fault."""
    async with receiving() as receiver, calling(time="jumping") as caller:
        await submit(caller, receiver.url, prompt="[[fault:reordered]] hills")
        delivery = await until_state(caller, "delivered")
        assert moments(caller, delivery) == [18.0]


async def test_of_two_that_shall_be_overtaken_the_second_goes_first() -> None:
    """Two deliveries that waited for each other would wait in vain."""
    async with receiving() as receiver, calling() as caller:
        caller.sandbox.fail("mirako.webhook", "reordered", times=None)
        first, second = [await submit(caller, receiver.url) for _ in range(2)]
        caller.clock.advance(8)
        await until(lambda: len(receiver.bodies) == 2)
        assert receiver.job_ids == [second, first]


async def test_a_delivery_held_back_can_be_made_by_hand() -> None:
    """Delivered by hand, it is not delivered once more when its wait is over."""
    async with receiving() as receiver, calling() as caller:
        caller.sandbox.fail("mirako.webhook", "reordered")
        await submit(caller, receiver.url)
        caller.clock.advance(8)
        assert (await caller.sandbox.redeliver(1)).accepted
        await until(lambda: caller.clock.waiting == 0)
        assert (len(receiver.bodies), only(caller).state) == (1, "delivered")


async def test_a_wrong_token_is_another_one() -> None:
    """Every attempt of that delivery carries it; made by hand, the delivery carries the right one."""
    async with receiving(401) as receiver, calling(webhook_attempts=1) as caller:
        caller.sandbox.fail("mirako.webhook", "wrong-token")
        await submit(caller, receiver.url)
        caller.clock.advance(8)
        delivery = await until_state(caller, "given_up")
        assert statuses(delivery) == [401]
        assert (await caller.sandbox.redeliver(delivery.id)).status == 204
        wrong, right = (head["Authorization"] for head in receiver.heads)
        assert wrong.startswith("Bearer ")
        assert TOKEN not in wrong
        assert right == f"Bearer {TOKEN}"
        assert only(caller).state == "delivered"


@pytest.mark.parametrize("order", ["undelivered", "hang@webhook"])
async def test_what_is_undelivered_waits_for_a_hand(order: str) -> None:
    """It is never attempted by itself and can be delivered when the client has missed it."""
    async with receiving() as receiver, calling() as caller:
        await submit(caller, receiver.url, prompt=f"hills [[fault:{order}]]")
        caller.clock.advance(1000)
        assert (only(caller).state, only(caller).attempts, receiver.bodies) == ("withheld", (), [])
        attempt = await caller.sandbox.redeliver(1)
        assert (attempt.status, round(attempt.at - caller.began, 3)) == (204, 1000.0)
        assert only(caller).attempts == (attempt,)
        assert caller.sandbox.statistics().deliveries == 1


async def test_a_stall_makes_a_delivery_late() -> None:
    """It comes so many seconds after the end of its task."""
    async with receiving() as receiver, calling(time="jumping") as caller:
        caller.sandbox.fail("mirako.webhook", Fault(stall=5))
        await submit(caller, receiver.url)
        delivery = await until_state(caller, "delivered")
        assert (moments(caller, delivery), delivery.fault) == ([13.0], "stall=5")


async def test_a_clock_that_jumped_far_has_waited_already() -> None:
    """Lateness counts from the end of the task, not from the moment somebody noticed it."""
    async with receiving() as receiver, calling() as caller:
        caller.sandbox.fail("mirako.webhook", Fault(stall=5))
        await submit(caller, receiver.url)
        caller.clock.advance(100)
        delivery = await until_state(caller, "delivered")
        assert moments(caller, delivery) == [100.0]


async def test_an_order_that_means_nothing_to_a_delivery_is_refused() -> None:
    """A status is for answers; the sandbox is the one that asks here."""
    async with calling() as caller:
        fields = {"prompt": "hills [[fault:429@webhook]]", "aspect_ratio": "1:1"}
        reply = await caller.post("/v1/image/async_generate", fields)
        assert reply.status == 400
        assert "a delivery takes late and early, duplicate, " in reply.json["detail"]


async def test_early_news_arrive_before_the_submit_reply() -> None:
    """The client learns the id from the webhook first, and the news do not come again at the end."""
    async with receiving() as receiver, calling() as caller:
        caller.sandbox.fail("mirako.webhook", "early")
        seen: list[list[int | None]] = []

        async def look(_: bytes) -> None:
            seen.append([request.status for request in caller.sandbox.requests])

        receiver.before_answer = look
        task_id = await submit(caller, receiver.url)
        assert seen == [[None]]
        assert receiver.job_ids == [task_id]
        assert (receiver.news[0]["status"], receiver.news[0]["executionTime"]) == ("COMPLETED", 0)
        status = await caller.get(f"{CREATE}/{task_id}/status", BEARER)
        assert status.json["data"]["status"] == "COMPLETED"
        caller.clock.advance(100)
        assert (statuses(only(caller)), only(caller).fault) == ([204], "flaw=early")


async def test_a_reply_waits_for_the_first_attempt_only() -> None:
    """Early news that nobody took are tried again later, when the client has had its reply."""
    async with receiving(500) as receiver, calling() as caller:
        await submit(caller, receiver.url, prompt="[[fault:early]] hills")
        assert statuses(only(caller)) == [500]
        caller.clock.advance(10)
        await until_state(caller, "delivered")


@pytest.mark.parametrize(
    ("order", "state"), [("undelivered", "withheld"), ("late:5", "waiting"), ("reordered", "waiting")]
)
async def test_a_reply_does_not_wait_for_news_that_do_not_come(order: str, state: str) -> None:
    """Early news can be ordered to have another flaw as well, and then the reply goes first after all."""
    async with receiving() as receiver, calling() as caller:
        await submit(caller, receiver.url, prompt=f"[[fault:early]] [[fault:{order}]] hills")
        assert (only(caller).state, receiver.bodies) == (state, [])
        assert only(caller).fault.startswith("flaw=early ")


async def test_a_task_without_work_is_announced_early_once() -> None:
    """A task that ended as it began is announced already; the reply waits for that."""
    async with receiving() as receiver, calling(durations=0.0) as caller:
        caller.sandbox.fail("mirako.webhook", "early")
        await submit(caller, receiver.url)
        assert statuses(only(caller)) == [204]
        assert len(receiver.bodies) == 1


async def test_time_does_not_jump_while_a_receiver_thinks() -> None:
    """An attempt under way is work, the wait for the next one is not."""

    async def think(_: bytes) -> None:
        await asyncio.sleep(0.03)

    async with receiving(500) as receiver, calling(time="jumping") as caller:
        receiver.before_answer = think
        await submit(caller, receiver.url)
        caller.clock.call_at(caller.began + 9, lambda: None)
        delivery = await until_state(caller, "delivered")
        assert moments(caller, delivery) == [8.0, 18.0]


async def test_so_many_deliveries_are_made_at_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand tasks that end together must not use up the connections a process may have."""
    monkeypatch.setattr(webhooks, "_MOST_AT_ONCE", 2)
    here: list[int] = []
    most: list[int] = []

    async def count(_: bytes) -> None:
        here.append(1)
        most.append(len(here))
        await asyncio.sleep(0.005)
        here.pop()

    async with receiving() as receiver, calling() as caller:
        receiver.before_answer = count
        for _ in range(6):
            await submit(caller, receiver.url)
        caller.clock.advance(8)
        await until(lambda: caller.sandbox.statistics().deliveries == 6)
        assert max(most) == 2


async def test_a_delivery_made_by_hand_is_not_tried_again() -> None:
    """What is waiting for its next attempt is done once somebody made one that succeeded."""
    async with receiving(500) as receiver, calling() as caller:
        await submit(caller, receiver.url)
        caller.clock.advance(8)
        await until(lambda: len(only(caller).attempts) == 1)
        assert (await caller.sandbox.redeliver(1)).accepted
        caller.clock.advance(10)
        await until(lambda: not caller.sandbox._deliveries._running)
        assert statuses(only(caller)) == [500, 204]
        receiver.answers.append(503)
        assert (await caller.sandbox.redeliver(1)).status == 503
        assert (only(caller).state, caller.sandbox.statistics().deliveries) == ("delivered", 1)


async def test_an_unknown_delivery_cannot_be_made() -> None:
    """The error shows the number and how many there are."""
    async with calling() as caller:
        with pytest.raises(ValueError, match=r"no delivery 7 among the 0 that are kept"):
            await caller.sandbox.redeliver(7)


async def hung_up(caller: Caller, url: str) -> None:
    """Order one delivery each that is under way, waits for its next attempt, is late, and is held back."""
    refusing = f"http://127.0.0.1:{port_nobody_listens_on()}/hook"
    caller.sandbox.fail("mirako.webhook", Fault(stall=60), prompt="late")
    caller.sandbox.fail("mirako.webhook", "reordered", prompt="held")
    for address, prompt in ((url, "under way"), (refusing, "waits"), (url, "late"), (url, "held")):
        await submit(caller, address, prompt=prompt)
    caller.clock.advance(8)
    await until(lambda: caller.clock.waiting == 3)


async def test_a_reset_forgets_deliveries_and_calls_them_off() -> None:
    """Nothing of them is left, and the next one has the first number again."""
    async with answering_never() as silent, receiving() as receiver, calling() as caller:
        await hung_up(caller, silent)
        waiting = asyncio.create_task(caller.sandbox.redeliver(1))
        await asyncio.sleep(0)
        caller.sandbox.reset("state")
        assert (caller.sandbox.deliveries, caller.sandbox.statistics().deliveries) == ([], 0)
        with pytest.raises(RuntimeError, match=r"delivery 1 was called off: the sandbox was reset or left"):
            await waiting
        await until(lambda: not caller.sandbox._deliveries._running)
        assert caller.clock.waiting == 0
        await submit(caller, receiver.url)
        caller.clock.advance(8)
        assert (await until_state(caller, "delivered")).id == 1


async def test_what_was_held_before_a_reset_holds_back_nothing_after_it() -> None:
    """The next one that shall be overtaken is held back in its turn."""
    async with receiving() as receiver, calling() as caller:
        caller.sandbox.fail("mirako.webhook", "reordered", times=2)
        await submit(caller, receiver.url)
        caller.clock.advance(8)
        await until(lambda: caller.clock.waiting == 1)
        caller.sandbox.reset("state")
        first = await submit(caller, receiver.url)
        second = await submit(caller, receiver.url)
        caller.clock.advance(8)
        await until(lambda: len(receiver.bodies) == 2)
        assert receiver.job_ids == [second, first]


async def test_leaving_calls_everything_off_at_once() -> None:
    """No task stays behind, an early reply is not waited for, and what was waiting is given up."""
    before = asyncio.all_tasks()
    async with answering_never() as silent, calling() as caller:
        await hung_up(caller, silent)
        early = asyncio.create_task(submit(caller, silent, prompt="[[fault:early]]"))
        waiting = asyncio.create_task(caller.sandbox.redeliver(1))
        await until(lambda: len(caller.sandbox.deliveries) == 5)
        async with asyncio.timeout(30):
            await caller.sandbox.__aexit__(None, None, None)
        with pytest.raises(aiohttp.ClientError):
            await early
        with pytest.raises(RuntimeError, match="called off"):
            await waiting
        assert {delivery.state for delivery in caller.sandbox.deliveries} == {"given_up"}
        with pytest.raises(RuntimeError, match=r"delivery 1 was called off"):
            await caller.sandbox.redeliver(1)
    await until(lambda: asyncio.all_tasks() == before)


async def test_what_ends_after_the_sandbox_was_left_is_not_announced() -> None:
    """A sandbox that was left can still be looked at, which lets its time go on."""
    async with receiving() as receiver, calling() as caller:
        await submit(caller, receiver.url)
        await caller.sandbox.__aexit__(None, None, None)
        caller.clock.advance(8)
        assert caller.sandbox.statistics().open_jobs == 0
        assert caller.sandbox.deliveries == []


async def test_early_news_are_no_news_once_the_sandbox_is_being_left() -> None:
    """A request that is served in the last moment gets its reply and nothing else."""
    async with receiving() as receiver, calling() as caller:
        await caller.sandbox._deliveries.stop()
        caller.sandbox.fail("mirako.webhook", "early")
        await submit(caller, receiver.url)
        assert (caller.sandbox.deliveries, receiver.bodies) == ([], [])


async def test_only_the_newest_deliveries_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes when there is no more room; numbers and figures go on."""
    monkeypatch.setattr(webhooks, "_MOST_KEPT", 2)
    async with receiving() as receiver, calling() as caller:
        for _ in range(3):
            await submit(caller, receiver.url)
        caller.clock.advance(8)
        await until(lambda: caller.sandbox.statistics().deliveries == 3)
        assert [delivery.id for delivery in caller.sandbox.deliveries] == [2, 3]


@pytest.mark.parametrize("answer", [204, 401, None])
async def test_no_view_and_no_log_shows_the_token(answer: int | None, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever prints a delivery, or reads the logs of a failed one, does not learn the token."""
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    async with receiving(*[answer or 204] * 3) as receiver, calling(webhook_attempts=1) as caller:
        url = receiver.url if answer else f"http://127.0.0.1:{port_nobody_listens_on()}/hook"
        await submit(caller, url)
        caller.clock.advance(8)
        shown += [repr(task) for task in asyncio.all_tasks()]
        await until(lambda: only(caller).attempts)
        deliveries = caller.sandbox._deliveries
        assert repr(deliveries) == f"<Deliveries {int(answer == 204)} made, 0 waiting>"
        shown += [repr(thing) for thing in (caller.sandbox, only(caller), deliveries, deliveries._parcels)]
        shown += [repr(await caller.sandbox.redeliver(1))]
    assert TOKEN not in json.dumps(shown) + caplog.text


BAD_SETTINGS: list[tuple[Callable[[], Sandbox], str]] = [
    (lambda: Sandbox(webhook_attempts=0), r"webhook_attempts must be a whole number from 1, got 0"),
    (lambda: Sandbox(webhook_attempts=True), r"webhook_attempts must be a whole number from 1, got True"),
    (lambda: Sandbox(webhook_attempts=1.5), r"webhook_attempts .* got 1\.5"),  # type: ignore[arg-type]
    (lambda: Sandbox(webhook_interval=0), r"webhook_interval must be more than 0 seconds, got 0"),
    (lambda: Sandbox(webhook_interval=True), r"webhook_interval must be more than 0 seconds, got True"),
    (lambda: Sandbox(webhook_interval=float("nan")), r"webhook_interval .* got nan"),
    (lambda: Sandbox(webhook_interval=float("inf")), r"webhook_interval .* got inf"),
]


@pytest.mark.parametrize(("make", "message"), BAD_SETTINGS)
def test_settings_out_of_range_are_refused(make: Callable[[], Sandbox], message: str) -> None:
    """The error shows what was given and what is allowed."""
    with pytest.raises(ValueError, match=message):
        make()
