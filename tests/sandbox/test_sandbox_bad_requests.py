"""Bad requests: every one is refused in its provider's own words, buys nothing, and upsets nobody.

`MIRAGE_FUZZ=100` tries a hundred times as many requests, and others every time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import pytest
from bad_requests import MALFORMED, Sent, good_key, odd_names, sent
from calling import until
from documented_rules import FACTS, NO_PLACE, OPERATIONS, Operation, Request, judged
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mirage_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

MIRAGIC = "/api/v1/image/generate"
FUZZ = int(os.environ.get("MIRAGE_FUZZ", "1"))


def campaign(examples: int) -> settings:
    """Return settings for `examples` requests, the same ones in every ordinary run."""
    return settings(
        max_examples=examples * FUZZ,
        derandomize=FUZZ == 1,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A whole answer as it came over the socket."""

    status: int
    content_type: str
    body: bytes


class Complaints(logging.Handler):
    """Keeps what the server's loggers have to complain about."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        self.lines.append(f"{record.name}: {self.format(record)}")

    def take(self) -> list[str]:
        """Return what has come in, and forget it."""
        lines, self.lines = self.lines, []
        return lines


@dataclass
class Served:
    """A running sandbox and a bare client that sends exactly the bytes it is given."""

    sandbox: Sandbox
    runner: asyncio.Runner
    complaints: Complaints

    def send(self, request: Request) -> Reply:
        """Send a request with its Content-Length on a connection of its own and return the answer."""
        (reply,) = replies(self.exchange(wire(request)), request.method)
        return reply

    def exchange(self, raw: bytes) -> bytes:
        """Send bytes, and return everything that comes back until the server hangs up."""
        return self.runner.run(self._exchange(raw))

    async def _exchange(self, raw: bytes) -> bytes:
        async with asyncio.timeout(20):
            reader, writer = await self.connect()
            writer.write(raw)
            answer = await reader.read()
            writer.close()
            return answer

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection."""
        return await asyncio.open_connection("127.0.0.1", int(self.sandbox.url.rpartition(":")[2]))

    @property
    def bought(self) -> dict[str, int]:
        """The purchases so far, by provider."""
        return dict(self.sandbox.statistics().purchases)


def wire(request: Request, *, version: bytes = b"1.1", close: bool = True) -> bytes:
    """Return the bytes of a request with its Content-Length."""
    lines = [b"%b: %b" % header for header in request.headers]
    lines += [b"Host: sandbox", b"Connection: %b" % (b"close" if close else b"keep-alive")]
    lines += [b"Content-Length: %d" % len(request.body)]
    first = b"%b %b HTTP/%b" % (request.method.encode(), request.target, version)
    return b"\r\n".join([first, *lines, b"", request.body])


def replies(raw: bytes, *methods: str) -> list[Reply]:
    """Cut what a server sent into its answers, one for each of `methods`."""
    found: list[Reply] = []
    for method in methods:
        head, _, raw = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = 0 if method == "HEAD" else int(headers.get("content-length", 0))
        found.append(Reply(status=int(first.split(" ")[1]), content_type=headers["content-type"], body=raw[:length]))
        raw = raw[length:]
    assert raw == b""
    return found


@contextmanager
def serving(*, strict: bool) -> Iterator[Served]:
    """Run a sandbox and collect its complaints; there must be none in the end."""
    complaints = Complaints()
    logging.getLogger().addHandler(complaints)
    try:
        with asyncio.Runner() as runner:
            sandbox = Sandbox(strict=strict, durations=0.0, link_lifetime=1e9)
            runner.run(sandbox.__aenter__())
            try:
                yield Served(sandbox, runner, complaints)
            finally:
                runner.run(sandbox.__aexit__(None, None, None))
    finally:
        logging.getLogger().removeHandler(complaints)
    assert complaints.lines == []


def json_post(path: str, fields: Any) -> Request:
    """Return a request with JSON fields and a bearer key."""
    headers = (*good_key("mirako"), (b"Content-Type", b"application/json"))
    return Request(method="POST", target=path.encode(), headers=headers, body=json.dumps(fields).encode())


def form_post(fields: dict[str, str]) -> Request:
    """Return Miragic's request with a form."""
    headers = (*good_key("miragic"), (b"Content-Type", b"application/x-www-form-urlencoded"))
    return Request(method="POST", target=MIRAGIC.encode(), headers=headers, body=urlencode(fields).encode())


_PORTRAIT = next(text for text, facts in FACTS.items() if facts == ("PNG", 512, 512))
_SMALL = next(text for text, facts in FACTS.items() if facts == ("PNG", 8, 8))
_TASK = json_post("/v1/image/async_generate", {"prompt": "p", "aspect_ratio": "1:1"})
_AVATAR = json_post("/v1/avatar/async_build", {"name": "Ada", "image": _PORTRAIT})
_JOB = form_post({"prompt": "p", "model": "flux", "width": "256", "height": "256"})
# What has to be bought before an operation has something to show, and where the answer names it.
_PURCHASES: dict[str, tuple[Any, ...]] = {
    "mirako.status": (_TASK, "data", "task_id"),
    "mirako.avatar_status": (_AVATAR, "data", "avatar_id"),
    "miragic.status": (_JOB, "data", "jobId"),
    "miragic.download": (_JOB, "data", "jobId"),
    "mira.download": (json_post("/v1/images/generate", {"prompt": "p"}), "data", 0, "url"),
    "milady.download": (json_post("/api/v1/generate-image", {"prompt": "p"}), "images", 0, "url"),
}

AVATARS = Request(method="GET", target=b"/v1/avatar/list", headers=good_key("mirako"))
GOOD_PURCHASES = (
    _TASK,
    _AVATAR,
    _JOB,
    json_post("/v1/image/generate", {"prompt": "p", "aspect_ratio": "1:1"}),
    json_post("/v1/images/generate", {"prompt": "p"}),
    json_post("/v1/images/generations", {"prompt": "p"}),
    json_post("/api/v1/generate-image", {"prompt": "p"}),
)


def known_path(served: Served, operation: Operation) -> str:
    """Buy what `operation` asks about, and return its path with the name of that."""
    if "{name}" not in operation.path:
        return operation.path
    purchase, *place = _PURCHASES[operation.name]
    found = json.loads(served.send(purchase).body)
    for name in place:
        found = found[name]
    if operation.name == "miragic.download":
        path = f"/api/v1/image/jobs/{found}"
        status = Request(method="GET", target=path.encode(), headers=good_key("miragic"))
        found = json.loads(served.send(status).body)["data"]["processedImageUrl"]
    return urlsplit(found).path if operation.name.endswith("download") else operation.path.replace("{name}", str(found))


def check_refusal(provider: str, reply: Reply, method: str = "POST") -> str:
    """Check that a refusal has exactly the shape its provider documents; return its message."""
    assert reply.content_type == ("application/problem+json" if provider == "mirako" else "application/json")
    if method == "HEAD":
        return ""
    said = json.loads(reply.body)
    match provider:
        case "mirako":
            assert set(said) == {"title", "status", "detail", "errors"}
            assert (said["title"], said["status"]) == (HTTPStatus(reply.status).phrase, reply.status)
            assert all(set(error) == {"location", "message", "value"} for error in said["errors"] or ())
            message = said["detail"]
        case "miragic":
            assert set(said) == {"success", "error"}
            assert said["success"] is False
            assert set(said["error"]) == {"code", "message"}
            assert re.fullmatch("[A-Z_]+", said["error"]["code"])
            message = said["error"]["message"]
        case "mira":
            assert set(said) == {"detail"}
            message = said["detail"]
        case _:
            assert set(said) == ({"error", "required"} if reply.status == HTTPStatus.PAYMENT_REQUIRED else {"error"})
            message = said["error"]
    assert isinstance(message, str)
    assert message
    return message


def check_place(provider: str, reply: Reply, message: str, faults: set[str]) -> None:
    """Check that a refusal names one of the places at fault."""
    # Of a name that somebody made up, its beginning will do.
    shown = {re.sub(r"([^.]{80})[^.]+$", r"\1...", fault) for fault in faults}
    if provider == "mirako":
        locations = {error["location"] for error in json.loads(reply.body)["errors"] or ()}
        assert locations & {"body" if fault == "body" else f"body.{fault}" for fault in shown}, (message, faults)
    else:
        assert any(fault in message or (fault == "body" and "Content-Type" in message) for fault in shown), message


def check(served: Served, case: Sent) -> None:
    """Send one request to a strict sandbox and compare what it does with what the documents say."""
    provider, verdict = case.operation.provider, judged(case.operation, case.request, exists=case.exists)
    before = served.bought
    reply = served.send(case.request)
    assert served.complaints.take() == []
    if reply.status == HTTPStatus.OK:
        assert not verdict.faults
        buys = case.operation.method == "POST"
        assert served.bought == ({**before, provider: before.get(provider, 0) + 1} if buys else before)
        return
    assert served.bought == before
    assert verdict.faults or verdict.open, reply.body
    message = check_refusal(provider, reply, case.request.method)
    if verdict.open:
        assert 400 <= reply.status < 500
        return
    assert reply.status in verdict.statuses
    if verdict.faults != {NO_PLACE}:
        check_place(provider, reply, message, verdict.faults)
    elif provider == "mirako" and reply.body:
        assert not any(error["location"].startswith("body") for error in json.loads(reply.body)["errors"] or ())


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.path)
def test_strict_mode_serves_exactly_what_the_documents_allow(operation: Operation) -> None:
    """A request is served if and only if it follows every rule; a refusal names the field and buys nothing."""
    with serving(strict=True) as served:

        @campaign(70)
        @given(sent(operation, known_path(served, operation)))
        def every(case: Sent) -> None:
            check(served, case)

        every()


FOUND = {
    "a list for a choice": json_post("/v1/images/generate", {"prompt": "p", "size": []}),
    "an object for a choice": json_post("/v1/images/generations", {"prompt": "p", "size": {}}),
    "a type nobody documents": replace(
        json_post("/api/v1/generate-image", {"prompt": "p"}),
        headers=(*good_key("milady"), (b"Content-Type", b"text/plain")),
    ),
    "an address without a host": form_post(
        {"prompt": "p", "model": "kontext", "width": "256", "height": "256", "image_url": "http://"}
    ),
    "an address in capitals": form_post(
        {"prompt": "p", "model": "kontext", "width": "256", "height": "256", "image_url": "HTTP://LOCALHOST:9/A"}
    ),
    "a fault inside a list": json_post(
        "/v1/image/generate", {"prompt": "p", "aspect_ratio": "1:1", "images": [{"label": "a"}]}
    ),
    "a fault inside an object": json_post(
        "/v1/image/async_generate", {"prompt": "p", "aspect_ratio": "1:1", "webhook": {"url": "http://x/y", "z": 1}}
    ),
    "no name at all for a choice": json_post("/v1/image/generate", {"prompt": "p", "aspect_ratio": 5}),
    "null for what is required": json_post("/v1/image/generate", {"prompt": None, "aspect_ratio": "1:1"}),
    "an unknown field with a long name": json_post("/v1/images/generate", {"prompt": "p", "x" * 5000: 1}),
    "base64 with one sign too many": json_post(
        "/api/v1/generate-image", {"prompt": "p", "sourceImage": f"data:image/png;base64,{_SMALL}="}
    ),
    "braces in a name": Request(method="GET", target=b"/v1/avatar/%7Bname%7D", headers=good_key("mirako")),
    "the head of no picture": Request(method="HEAD", target=b"/img/%7B.png", headers=()),
    "braces and a line break in a name": Request(method="GET", target=b"/img/%0A%7B.png", headers=()),
}


@pytest.mark.parametrize("request_", FOUND.values(), ids=FOUND)
def test_faults_found_before_do_not_return(request_: Request) -> None:
    """Requests that were once served, misnamed or answered with a failure of the server."""
    path = request_.target.decode()
    operation = next(each for each in OPERATIONS if each.path in {path, re.sub("[^/]*%7B[^/.]*", "{name}", path)})
    with serving(strict=True) as served:
        check(served, Sent(operation=operation, request=request_, exists=False))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.path)
def test_lenient_mode_refuses_in_the_same_shape(operation: Operation) -> None:
    """Whatever arrives is served or refused in the provider's words, and only what is served is charged."""
    with serving(strict=False) as served:

        @campaign(20)
        @given(sent(operation, known_path(served, operation)))
        def every(case: Sent) -> None:
            before = served.bought
            reply = served.send(case.request)
            if reply.status != HTTPStatus.OK:
                assert 400 <= reply.status < 500
                check_refusal(operation.provider, reply, case.request.method)
                assert served.bought == before
            elif operation.method == "POST":
                assert sum(served.bought.values()) == sum(before.values()) + 1
            assert served.complaints.take() == []

        every()


# --- below the requests: connections and malformed HTTP ---------------------------------------------------------------

ONE_OF_EACH = st.sampled_from([operation for operation in OPERATIONS if "{name}" not in operation.path]).flatmap(
    lambda operation: sent(operation, operation.path)
)


def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests sent in one go on one connection get the answers they get alone, each in its turn."""
    with serving(strict=True) as served:

        @campaign(20)
        @given(st.lists(ONE_OF_EACH, min_size=2, max_size=5))
        def every(cases: list[Sent]) -> None:
            alone = [served.send(case.request) for case in cases]
            raw = b"".join(wire(case.request, close=case is cases[-1]) for case in cases)
            together = replies(served.exchange(raw), *(case.request.method for case in cases))
            assert [reply.status for reply in together] == [reply.status for reply in alone]
            assert served.complaints.take() == []

        every()


def test_the_old_version_of_http_is_served_too() -> None:
    """HTTP/1.0 gets the status that HTTP/1.1 gets."""
    with serving(strict=True) as served:

        @campaign(20)
        @given(ONE_OF_EACH)
        def every(case: Sent) -> None:
            (reply,) = replies(served.exchange(wire(case.request, version=b"1.0")), case.request.method)
            assert reply.status == served.send(case.request).status
            assert served.complaints.take() == []

        every()


def test_a_path_of_any_characters_that_leads_nowhere_is_not_found() -> None:
    """Where there is nothing, the answer is 404 as JSON, whatever the path is made of."""
    with serving(strict=True) as served:

        @campaign(20)
        @example(b"%0A")
        @given(odd_names())
        def every(name: bytes) -> None:
            reply = served.send(replace(AVATARS, target=b"/nowhere/" + name))
            assert (reply.status, reply.content_type) == (404, "application/json")
            assert set(json.loads(reply.body)) == {"error"}
            assert served.complaints.take() == []

        every()


def check_alive(served: Served) -> None:
    """Check that the sandbox serves others, has sold nothing and logged nothing."""
    served.runner.run(asyncio.sleep(0))
    assert served.send(AVATARS).status == HTTPStatus.OK
    assert served.bought == {}
    assert served.complaints.take() == []


@pytest.mark.parametrize("missing", [1, 10, 2**40])
@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each.judge], ids=lambda operation: operation.path)
def test_a_body_shorter_than_declared_buys_nothing(operation: Operation, missing: int) -> None:
    """A client that promises more bytes than it sends, and leaves, has not asked for anything yet."""
    with serving(strict=True) as served:
        purchase = next(request for request in GOOD_PURCHASES if request.target.decode() == operation.path)
        length = b"Content-Length: %d" % len(purchase.body)
        raw = wire(purchase).replace(length, b"Content-Length: %d" % (len(purchase.body) + missing))

        async def leave() -> None:
            _, writer = await served.connect()
            writer.write(raw)
            await until(lambda: served.sandbox.requests)
            writer.close()
            await writer.wait_closed()

        served.runner.run(leave())
        check_alive(served)


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
def test_malformed_http_is_refused_without_a_traceback(raw: bytes) -> None:
    """What is hardly HTTP gets 4xx or a closed connection; nobody's log fills up and nothing is bought."""
    with serving(strict=True) as served:
        answer = served.exchange(raw)
        assert re.match(rb"HTTP/[01]\.[019] 4[0-9][0-9] |$", answer), answer
        check_alive(served)


def test_noise_is_refused_without_a_traceback() -> None:
    """Arbitrary bytes ahead of a request do no harm to the next one."""
    with serving(strict=True) as served:

        @campaign(20)
        @given(st.binary(min_size=1, max_size=60))
        def every(noise: bytes) -> None:
            answer = served.exchange(noise + b"\r\n\r\n" + wire(AVATARS))
            assert re.match(rb"HTTP/1\.[01] [24][0-9][0-9] ", answer), answer
            check_alive(served)

        every()


# --- what the documents print, although it breaks their rules ---------------------------------------------------------

CUT = "base64,iVBORw0KGgoAAAANSUhEUgAA..."
IMAGE_URL = "https://images.tech.co/wp-content/uploads/2023/11/21202640/AI-generated-landscape-708x400.jpg"
SUNSET = {"prompt": "A beatiful sunset over the ocean", "model": "flux", "width": "2048", "height": "1024"}
WATERCOLOUR = {"prompt": "Transform this into a watercolor painting", "sourceImage": "data:image/png;" + CUT}
LENIENT_ONLY = {
    "Miragic's picture for a model that takes none": form_post({**SUNSET, "image_url": IMAGE_URL}),
    "Milady's picture cut short": json_post("/api/v1/generate-image", WATERCOLOUR),
    "Milady's model nobody knows": json_post("/api/v1/generate-image", {"prompt": "p", "model": "nobody/knows"}),
    "Mirako's picture cut short": json_post(
        "/v1/image/async_generate",
        {
            "prompt": "[tshirt]",
            "aspect_ratio": "16:9",
            "images": [{"label": "tshirt", "data": "data:image/jpeg;" + CUT}],
        },
    ),
    "Mirako's shape left to its default": json_post("/v1/image/generate", {"prompt": "Professional headshot"}),
}


@pytest.mark.parametrize("request_", LENIENT_ONLY.values(), ids=LENIENT_ONLY)
def test_documented_examples_that_break_documented_rules_are_taken_in_lenient_mode_only(request_: Request) -> None:
    """What a document prints works by default; strict mode holds it against the rules of the same document."""
    with serving(strict=False) as served:
        assert served.send(request_).status == HTTPStatus.OK
    with serving(strict=True) as served:
        assert served.send(request_).status in {400, 422}
        assert served.bought == {}
