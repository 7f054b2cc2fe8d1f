"""From a request, as plain values, to an answer: every status, in the order of what is cheapest to refuse."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webhook_bench import BODY, DONE, PUBLIC, SECRET, SIGNING, Bench, path_of, signed

from mirage_async.exceptions import ConfigurationError, InputError
from mirage_async.webhooks import WebhookReceiver

if TYPE_CHECKING:
    from mirage_async.jobs import Job
    from mirage_async.webhooks import WebhookReply

pytestmark = pytest.mark.anyio

LONGER = int(os.environ.get("MIRAGE_FUZZ", "1"))
KEY = "0123456789abcdef0123456789abcdef"


def bare(
    bench: Bench, *, method: str = "POST", body: bytes = BODY, headers: dict[str, str] | None = None
) -> WebhookReply:
    """Deliver at an address that needs no bearer token."""
    path = path_of(bench.receiver.callback_url("miragic", KEY))
    return bench.receiver.handle(method, path, headers or {}, body)


def test_a_genuine_delivery_is_answered_with_204_and_nothing_else() -> None:
    """No body, no headers, nothing echoed."""
    reply = bare(Bench())
    assert (reply.status, dict(reply.headers), reply.body) == (204, {}, b"")


def test_what_a_delivery_claims_is_told_but_stands_apart_from_what_is_proven() -> None:
    """Provider and key are proven by the token, the rest is what the body says."""
    hint = bare(Bench()).hint
    assert hint is not None
    assert (hint.provider, hint.key, hint.job_id, hint.status) == ("miragic", KEY, "task-1", "COMPLETED")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b' {"a": [1, {"b": null}]} ',
        b'{"id": 5, "status": ["x"]}',
        b'{"id": "\\u0000"}',
        b'{"id": "' + b"x" * 129 + b'"}',
        b'{"id": ""}',
    ],
)
def test_a_body_may_say_anything_or_nothing(body: bytes) -> None:
    """Since it is not believed, an unknown shape is no reason to lose a hint; nothing odd is passed on."""
    reply = bare(Bench(), body=body)
    assert reply.status == 204
    assert reply.hint is not None
    assert reply.hint.job_id in {None, ""}


@pytest.mark.parametrize(
    "body",
    [
        b"x",
        b"[]",
        b"null",
        b'"text"',
        b"5",
        b"{",
        b'{"a": 1} x',
        b"\xff\xfe",
        b'{"id": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"a=1&b=2",
    ],
    ids=range(12),
)
def test_a_body_that_is_no_json_object_is_malformed(body: bytes) -> None:
    """Whatever a decoder may raise, the answer is 400."""
    assert bare(Bench(), body=body).status == 400


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/x",
        "/a/b",
        "/hooks/dalle/" + "A" * 52,
        "/hooks/mirako",
        "/hooks/Mirako/x",
        "/hooks/mirako/x/y",
        "mirako",
    ],
)
def test_a_foreign_path_is_404_whatever_else_is_wrong(path: str) -> None:
    """There is nothing there, for any method."""
    receiver = Bench().receiver
    for method in ("POST", "GET", "HEAD"):
        assert receiver.handle(method, path, {}, b"").status == 404


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "post", "", "BREW"])
def test_only_post_is_allowed(method: str) -> None:
    """And the answer says so."""
    reply = bare(Bench(), method=method)
    assert (reply.status, dict(reply.headers)) == (405, {"Allow": "POST"})


@pytest.mark.parametrize(
    "token", ["", "x", "A" * 52, "A" * 51, "A" * 53, "é" * 52, "%41" * 20, "=" * 52, "\ud800" * 52]
)
def test_a_bad_token_is_401(token: str) -> None:
    """Whatever is wrong with it, the answer is the same."""
    assert Bench().receiver.handle("POST", f"/hooks/mirako/{token}", {}, BODY).status == 401


@pytest.mark.parametrize(
    ("coding", "status"),
    [
        ("gzip", 415),
        ("br", 415),
        ("identity, gzip", 415),
        ("GZIP", 415),
        ("identity", 204),
        ("IDENTITY", 204),
        ("", 204),
    ],
)
def test_an_encoded_body_is_refused(coding: str, status: int) -> None:
    """What is signed is the raw bytes, and what inflates is a bomb."""
    assert bare(Bench(), headers={"Content-Encoding": coding}).status == status


def test_of_several_codings_none_is_overlooked() -> None:
    """Also where they come in headers of their own."""
    bench = Bench()
    path = path_of(bench.receiver.callback_url("miragic", KEY))
    headers = [(b"content-encoding", b"identity"), (b"Content-Encoding", b"gzip")]
    assert bench.receiver.handle("POST", path, headers, BODY).status == 415


@pytest.mark.parametrize(
    ("declared", "status"),
    [("101", 413), ("9" * 400, 413), ("100", 204), ("-5", 204), ("x", 204), ("\u0669\u0669\u0669", 413)],
)
def test_a_body_that_is_declared_too_long_is_refused_before_it_is_read(declared: str, status: int) -> None:
    """What is no number is left to whoever reads the body."""
    assert bare(Bench(max_body_bytes=100), headers={"Content-Length": declared}).status == status


def test_a_body_that_is_too_long_is_refused() -> None:
    """Also where nothing was declared."""
    bench = Bench(max_body_bytes=100)
    assert bare(bench, body=b'{"a":"' + b"x" * 92 + b'"}').status == 204
    assert bare(bench, body=b'{"a":"' + b"x" * 93 + b'"}').status == 413


def test_a_stranger_learns_nothing_about_encodings_and_sizes() -> None:
    """Credentials come first: without them every answer is 401."""
    receiver = Bench(max_body_bytes=10).receiver
    headers = {"Content-Encoding": "gzip", "Content-Length": "99999"}
    assert receiver.handle("POST", "/hooks/mirako/" + "A" * 52, headers, b"x" * 100).status == 401


@pytest.mark.parametrize("number", [0, -1, True, 1.5, "5", None])
def test_the_cap_of_a_body_is_a_number_of_bytes(number: object) -> None:
    """Anything else is a mistake."""
    with pytest.raises(InputError, match="max_body_bytes must be a whole number from 1"):
        WebhookReceiver(public_url=PUBLIC, secret=SECRET, max_body_bytes=cast("int", number))


@pytest.mark.parametrize(
    "arguments", [(None, "/x", {}, b""), ("POST", b"/x", {}, b""), ("POST", "/x", {}, "text"), ("POST", "/x", {}, None)]
)
def test_arguments_of_the_wrong_type_are_the_callers_mistake(arguments: tuple[Any, ...]) -> None:
    """No request can cause that."""
    with pytest.raises(InputError, match="takes the method and path as text and the body as bytes"):
        Bench().receiver.handle(*arguments)


@pytest.mark.parametrize("headers", [None, 5, "text", [("a",)], [("a", "b", "c")], [5]])
def test_headers_that_are_none_are_the_callers_mistake(headers: Any) -> None:
    """A view that passes the wrong thing hears of it in our words."""
    bench = Bench()
    path = path_of(bench.receiver.callback_url("miragic", KEY))
    with pytest.raises(InputError, match="headers must be a mapping or pairs"):
        bench.receiver.handle("POST", path, headers, BODY)


# --- signatures ---


def signing_bench(**options: Any) -> Bench:
    """Return a bench whose Miragic signs."""
    return Bench(signing_secrets={"miragic": SIGNING}, **options)


def test_a_provider_that_signs_has_to() -> None:
    """There is no way back to unsigned, and no other provider is touched by it."""
    bench = signing_bench()
    now = bench.clock.time()
    assert bare(bench).status == 401
    assert bare(bench, headers={**signed(BODY, now), "webhook-id": "msg_2"}).status == 401
    assert bare(bench, headers=signed(BODY, now - 301)).status == 401
    assert bare(bench, headers=signed(BODY, now)).status == 204
    path = path_of(bench.receiver.callback_url("mira", KEY))
    assert bench.receiver.handle("POST", path, {}, BODY).status == 204


def test_a_signature_alone_opens_nothing() -> None:
    """It comes on top of the token."""
    bench = signing_bench()
    assert (
        bench.receiver.handle("POST", "/hooks/miragic/" + "A" * 52, signed(BODY, bench.clock.time()), BODY).status
        == 401
    )


def test_the_signature_is_checked_before_anything_is_parsed() -> None:
    """A body that is no JSON and not signed is unauthorized, not malformed."""
    bench = signing_bench()
    assert bare(bench, body=b"x").status == 401
    assert bare(bench, body=b"x", headers=signed(b"x", bench.clock.time())).status == 400


def test_a_repeated_delivery_is_taken_again_and_does_nothing() -> None:
    """The sender is content, and nobody is woken twice by one delivery."""
    bench = signing_bench()
    headers = signed(BODY, bench.clock.time())
    first, second = bare(bench, headers=headers), bare(bench, headers=headers)
    assert (first.status, second.status) == (204, 204)
    assert first.hint is not None
    assert second.hint is None
    other = bare(bench, headers=signed(BODY, bench.clock.time(), message_id="msg_2"))
    assert other.hint is not None
    assert bench.receiver.statistics().duplicates == 1


def test_an_id_is_remembered_for_as_long_as_its_signature_could_be_good() -> None:
    """A delivery from five minutes ahead can be repeated for ten; afterwards its timestamp refuses it."""
    bench = signing_bench()
    headers = signed(BODY, bench.clock.time() + 300)
    assert bare(bench, headers=headers).hint is not None
    bench.clock._now += 600
    assert bare(bench, headers=headers).hint is None
    assert bare(bench, headers=headers).status == 204
    bench.clock._now += 1
    assert bare(bench, headers=headers).status == 401


def test_a_malformed_delivery_is_not_remembered() -> None:
    """Once its sender has mended it, it is news."""
    bench = signing_bench()
    now = bench.clock.time()
    assert bare(bench, body=b"x", headers=signed(b"x", now)).status == 400
    assert bare(bench, headers=signed(BODY, now)).hint is not None


def test_signing_secrets_are_by_provider() -> None:
    """A name that is none, or a secret that is none, is told at the start."""
    with pytest.raises(InputError, match="provider must be one of"):
        Bench(signing_secrets={"dalle": SIGNING})
    with pytest.raises(InputError, match="signing_secrets must be a mapping by provider; got a value of type str"):
        Bench(signing_secrets=SIGNING)
    with pytest.raises(ConfigurationError, match="signing_secrets must have at least 24 random bytes"):
        Bench(signing_secrets={"mirako": "whsec_"})


# --- whatever comes ---


@settings(max_examples=200 * LONGER, deadline=None)
@given(
    method=st.one_of(st.just("POST"), st.text(max_size=9)),
    tail=st.one_of(st.just("genuine"), st.text(max_size=70), st.text("abc/?%.", max_size=70)),
    headers=st.dictionaries(
        st.one_of(
            st.sampled_from(
                [
                    "authorization",
                    "Content-Length",
                    "content-encoding",
                    "webhook-id",
                    "webhook-timestamp",
                    "webhook-signature",
                ]
            ),
            st.text(max_size=20),
        ),
        st.text(max_size=60),
        max_size=6,
    ),
    body=st.one_of(st.binary(max_size=300), st.just(BODY)),
    signing=st.booleans(),
)
def test_any_request_gets_one_of_the_answers_and_raises_nothing(
    method: str, tail: str, headers: dict[str, str], body: bytes, *, signing: bool
) -> None:
    """No exception of ours or of any other library leaves it."""
    bench = signing_bench() if signing else Bench()
    path = path_of(bench.receiver.callback_url("miragic", KEY)) if tail == "genuine" else f"/hooks/miragic/{tail}"
    reply = bench.receiver.handle(method, path, headers, body)
    assert reply.status in {204, 400, 401, 404, 405, 413, 415}
    assert (reply.hint is not None) <= (reply.status == 204)


def test_statistics_count_the_answers() -> None:
    """By status, and nothing per request is kept."""
    bench = Bench()
    for _ in range(3):
        bare(bench)
    bare(bench, method="GET")
    bare(bench, body=b"x")
    statistics = bench.receiver.statistics()
    assert statistics.replies == {204: 3, 400: 1, 405: 1}
    assert (statistics.hints_unknown, statistics.parked, statistics.expected) == (3, 1, 0)
    assert repr(bench.receiver) == f"<WebhookReceiver {PUBLIC} expecting 0 jobs>"


def test_nothing_that_identifies_a_token_reaches_a_log(caplog: pytest.LogCaptureFixture) -> None:
    """At the lowest level a refused token is told by eight digits of its hash, and nothing at all above DEBUG."""
    caplog.set_level(logging.DEBUG)
    bench = Bench()
    url, bearer = bench.receiver.callback("mirako", KEY)
    token = url.rpartition("/")[2]
    bench.receiver.handle("POST", f"/hooks/mirako/{token}", {"Authorization": "Bearer wrong"}, BODY)
    bench.receiver.handle("POST", f"/hooks/mirako/{token[:-1]}!", {}, BODY)
    bench.receiver.handle("POST", f"/hooks/mirako/{token}", {"Authorization": f"Bearer {bearer}"}, BODY)
    assert len(caplog.records) == 2
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    assert [text for text in (token, token[:-1], token[:8], bearer) if text in caplog.text] == []


# --- threads ---


async def test_a_delivery_in_another_thread_wakes_the_job_in_its_loop() -> None:
    """As a view of Django or Flask does it: the scheduler is only ever touched by its own loop."""
    bench = Bench()
    job = await bench.accepted()
    threads: list[int] = []

    class Waker:
        def wake(self, _: object) -> None:
            threads.append(threading.get_ident())

    job.kind.waker = cast("Any", Waker())
    reply = await asyncio.to_thread(bench.deliver, job)
    assert reply.status == 204
    await asyncio.sleep(0)
    assert threads == [threading.get_ident()]


async def test_many_threads_deliver_at_once_and_every_delivery_is_counted() -> None:
    """Bookkeeping holds, and one delivery is taken once whoever brings it."""
    bench = Bench(signing_secrets={"mirako": SIGNING})
    job = await bench.accepted()
    headers = [signed(BODY, bench.clock.time(), message_id=f"msg_{number % 50}") for number in range(200)]
    replies = await asyncio.gather(*(asyncio.to_thread(bench.deliver, job, BODY, one) for one in headers))
    assert {reply.status for reply in replies} == {204}
    assert sum(reply.hint is not None for reply in replies) == 50
    assert bench.receiver.statistics().replies == {204: 200}


def test_a_delivery_after_the_loop_has_ended_is_taken_and_forgotten() -> None:
    """A view may be called while the service goes down."""
    bench = Bench()

    async def expect() -> str:
        return (await bench.accepted()).key

    key = asyncio.run(expect())
    url, bearer = bench.receiver.callback("mirako", key)
    replies: list[int] = []

    def view() -> None:
        reply = bench.receiver.handle("POST", path_of(url), {"Authorization": f"Bearer {bearer}"}, BODY)
        replies.append(reply.status)

    thread = threading.Thread(target=view)
    thread.start()
    thread.join()
    view()  # also in the thread in which the loop was
    assert replies == [204, 204]


async def test_a_receiver_with_jobs_in_one_event_loop_takes_none_in_another() -> None:
    """A delivery would wake jobs of one loop from within the other; the next loop may have it once that is closed."""
    bench = Bench()
    job = await bench.accepted()
    other = Bench()
    other.receiver = bench.receiver

    async def expect() -> None:
        with pytest.raises(ConfigurationError, match="a receiver belongs to one event loop"):
            other.job()

    await asyncio.to_thread(asyncio.run, expect())
    bench.answer = DONE
    bench.deliver(job)
    await bench.clock.advance(0)
    assert await job.result() == "picture of task-1"


def test_a_receiver_goes_on_in_the_next_event_loop() -> None:
    """As one that a module holds does, when the service is run again."""
    bench = Bench()

    async def expect() -> Job[str]:
        return bench.job()

    jobs = [asyncio.run(expect()) for _ in range(2)]
    assert bench.receiver.statistics().expected == len(jobs)


def test_a_process_without_a_hub_takes_deliveries_in_any_number_of_threads() -> None:
    """A web worker may do nothing but verify, while the jobs are in another process."""
    bench = Bench()
    paths = [path_of(bench.receiver.callback_url("mira", f"{number:032x}")) for number in range(400)]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda path: bench.receiver.handle("POST", path, {}, BODY).status, paths))
    assert replies == [204] * 400
    assert bench.receiver.statistics().parked == 400


def test_deliveries_before_there_is_a_hub_are_parked() -> None:
    """Nobody has been expected yet, and nothing is lost."""
    bench = Bench()
    assert bare(bench, body=json.dumps({"id": "x"}).encode()).status == 204
    assert bench.receiver.statistics().parked == 1
