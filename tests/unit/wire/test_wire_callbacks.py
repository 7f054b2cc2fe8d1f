"""An address to call back under a name no document has: one field more, nothing else changed, and kept to ourselves."""

from __future__ import annotations

import json
from typing import Any, cast
from urllib.parse import parse_qsl

import pytest

from mirage_async.exceptions import InputError
from mirage_async.wire import Call, Form, Reply, milady, mira, miragic, mirako, with_callback
from mirage_async.wire._quotes import unquoted

URL = "https://app.example/hooks/mira/" + "T0ken" * 10
OPTIONS: dict[str, Any] = {
    "model": None,
    "aspect_ratio": None,
    "num_images": None,
    "style_preset": None,
    "source_image": None,
}
CALLS: dict[str, Call] = {
    "miragic": miragic.generate_call("a fox", model="flux", width=512, height=512, image_url=None),
    "miragic urlencoded": miragic.generate_call(
        "a fox & ü", model="flux", width=512, height=512, image_url=None, multipart=False
    ),
    "mira": mira.generate_call("a fox", size=None, n=2, quality=None, reference_images=()),
    "milady": milady.generate_call("a fox", **OPTIONS),
}


def fields(call: Call) -> dict[str, Any]:
    """Return the fields of a request, however they are encoded."""
    if isinstance(call.body, Form):
        return dict(call.body.fields)
    body = (call.body or b"").decode()
    return (
        cast("dict[str, Any]", json.loads(body)) if call.content_type == "application/json" else dict(parse_qsl(body))
    )


@pytest.mark.parametrize("name", CALLS)
def test_the_field_is_added_and_nothing_else_changes(name: str) -> None:
    """Whatever the encoding."""
    before = CALLS[name]
    after = with_callback(before, "webhook_url", URL, provider="mira")
    assert fields(after) == {**fields(before), "webhook_url": URL}
    assert (after.method, after.path, after.content_type) == (before.method, before.path, before.content_type)


@pytest.mark.parametrize("name", CALLS)
def test_a_field_the_request_has_already_is_not_replaced(name: str) -> None:
    """The prompt is not overwritten by an address."""
    with pytest.raises(
        InputError, match="callback_parameter must be a name the request does not have yet; got 'prompt'"
    ):
        with_callback(CALLS[name], "prompt", URL, provider="mira")


@pytest.mark.parametrize("parameter", ["", "1a", "a b", "a\r\nb", "é", "x" * 65, 5, None])
def test_what_is_no_name_of_a_field_is_refused(parameter: object) -> None:
    """Names are words."""
    with pytest.raises(InputError, match="callback_parameter must be 1 to 64 letters"):
        with_callback(CALLS["mira"], cast("str", parameter), URL, provider="mira")


def test_an_answer_that_quotes_the_address_does_not_give_it_away() -> None:
    """Neither the one that is added here nor Mirako's own, nor its token."""
    webhook = (URL, "b3arer-t0ken")
    own = mirako.submit_call("a fox", aspect_ratio="1:1", seed=None, images=(), webhook=webhook)
    for call in (with_callback(CALLS["mira"], "webhook_url", URL, provider="mira"), own):
        quoting = json.dumps({"error": f"cannot reach {URL} or {URL.rpartition('/')[2]}"}).encode()
        assert URL.rpartition("/")[2].encode() not in unquoted(Reply(status=400, body=quoting), call.private).body
    assert b"b3arer" not in unquoted(Reply(status=400, body=b"bad token b3arer-t0ken"), own.private).body
