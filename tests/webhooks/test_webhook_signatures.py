"""Standard Webhooks signatures: what is accepted, what is refused, and the reference library as judge."""

from __future__ import annotations

import base64
import copy
import gc
import hashlib
import hmac
import io
import itertools
import os
import pickle
import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import pytest
import rich
import standardwebhooks
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.pretty import pretty_repr
from webhook_bench import SIGNING, signed

from mirage_async.exceptions import ConfigurationError, InputError, WebhookVerificationError
from mirage_async.testing import FakeClock
from mirage_async.webhooks import StandardWebhooks

if TYPE_CHECKING:
    from collections.abc import Callable

LONGER = int(os.environ.get("MIRAGE_FUZZ", "1"))
MUTATIONS = LONGER * 5_000
OTHER = "whsec_" + base64.b64encode(bytes(range(40, 72))).decode()
BODY = b'{"id": "task-1", "status": "COMPLETED"}'
NOW = 1_750_000_000.0


def verifier(*secrets: str, clock: FakeClock | None = None) -> StandardWebhooks:
    """Return one whose clock stands at `NOW`."""
    return StandardWebhooks(secrets or SIGNING, clock=clock or FakeClock(epoch=NOW))


def accepts(headers: dict[str, str], body: bytes = BODY, *, by: StandardWebhooks | None = None) -> bool:
    """Return whether a delivery is taken; anything but our own refusal fails the test."""
    try:
        (by or verifier()).verify(headers, body)
    except WebhookVerificationError:
        return False
    return True


def test_a_signed_delivery_is_taken_and_tells_its_id() -> None:
    """The id is what a duplicate is recognised by."""
    assert verifier().verify(signed(BODY, NOW, message_id="msg_7"), BODY) == "msg_7"


def test_the_reference_librarys_signatures_are_taken() -> None:
    """What others sign by the book is signed for us."""
    moment = datetime.fromtimestamp(NOW, UTC)
    signature = standardwebhooks.Webhook(SIGNING).sign("msg_1", moment, BODY.decode())
    assert accepts({"webhook-id": "msg_1", "webhook-timestamp": str(int(NOW)), "webhook-signature": signature})


def test_names_of_headers_are_taken_in_any_case_and_from_pairs() -> None:
    """Frameworks differ in how they hand headers over."""
    headers = signed(BODY, NOW)
    assert accepts({name.upper(): value for name, value in headers.items()})
    pairs = [(name.title().encode(), value.encode()) for name, value in headers.items()]
    assert verifier().verify(pairs, BODY) == "msg_1"
    assert verifier().verify([*headers.items(), ("x", cast("str", None))], BODY) == "msg_1"


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_header_that_is_missing_is_a_refusal(missing: str) -> None:
    """All three are signed or sign."""
    headers = signed(BODY, NOW)
    del headers[missing]
    with pytest.raises(WebhookVerificationError, match="has webhook-id, webhook-timestamp and webhook-signature"):
        verifier().verify(headers, BODY)


@pytest.mark.parametrize(("off", "taken"), [(0, True), (300, True), (-300, True), (301, False), (-301, False)])
def test_a_timestamp_may_be_five_minutes_off_either_way(off: int, taken: bool) -> None:
    """Neither an old delivery nor one from the future is taken."""
    assert accepts(signed(BODY, NOW + off)) is taken


def test_secrets_are_rotated_on_both_sides() -> None:
    """A sender may sign with several, and a receiver accept several."""
    ours, other = signed(BODY, NOW), signed(BODY, NOW, secret=OTHER)
    both = {**ours, "webhook-signature": f"{other['webhook-signature']} {ours['webhook-signature']}"}
    assert accepts(other) is False
    assert accepts(both) is True
    assert accepts(other, by=verifier(SIGNING, OTHER)) is True
    assert accepts(ours, by=verifier(OTHER)) is False


def test_signatures_of_other_schemes_are_passed_over() -> None:
    """A sender that also signs in a scheme to come is understood."""
    ours = signed(BODY, NOW)
    assert accepts({**ours, "webhook-signature": f"v1a,AAAA v9,zzzz {ours['webhook-signature']}"})


@pytest.mark.parametrize(
    "change",
    [
        lambda good: good.removeprefix("v1,"),
        lambda good: good.replace("v1,", "v2,"),
        lambda good: good.replace("v1,", "V1,"),
        lambda good: good + "=",
        lambda good: good + "AAAA",
        lambda good: good.rstrip("="),
        lambda good: good[:-2] + chr(ord(good[-2]) ^ 1) + "=",
        lambda good: f"nonsense {good}",
        lambda good: f"{good} nonsense",
        lambda good: f"{good}  {good}",
        lambda good: f" {good}",
        lambda good: " ".join([good] * 9),
        lambda good: good.swapcase(),
        lambda good: f"{good}é",
        lambda good: f"{good},",
        lambda good: "v1," + "\ud800" * 44,  # noqa: ARG005 - has nothing of the good one
        lambda good: "v1,",  # noqa: ARG005 - same
        lambda good: "",  # noqa: ARG005 - same
    ],
    ids=itertools.count(),
)
def test_a_signature_that_is_not_exactly_one_is_refused(change: object) -> None:
    """Stricter than the reference: nothing behind it, nothing beside it, no other spelling."""
    headers = signed(BODY, NOW)
    headers["webhook-signature"] = change(headers["webhook-signature"])  # type: ignore[operator]
    assert accepts(headers) is False


@pytest.mark.parametrize(
    "timestamp",
    [
        "",
        "+{}",
        " {}",
        "{} ",
        "{}.0",
        "{}e0",
        "1_750000000",
        "-{}",
        "nan",
        "inf",
        "\u0661\u0667\u0665\u0660",
        "0" * 4 + "{}",
    ],
)
def test_a_timestamp_that_is_not_plain_digits_is_refused(timestamp: str) -> None:
    """Even where the sender signed just that."""
    text = timestamp.format(int(NOW))
    key = base64.b64decode(SIGNING.removeprefix("whsec_"))
    mac = hmac.new(key, b"msg_1." + text.encode() + b"." + BODY, hashlib.sha256).digest()
    signature = "v1," + base64.b64encode(mac).decode()
    assert accepts({"webhook-id": "msg_1", "webhook-timestamp": text, "webhook-signature": signature}) is False


def test_a_dot_in_an_id_is_refused() -> None:
    """It would move the border between id, timestamp and body: one signature, two messages."""
    body = b"1750000000.5"
    good = signed(body, NOW, message_id="a")
    assert accepts(good, body)
    assert accepts({**good, "webhook-id": f"a.{int(NOW)}"}, b"5") is False


@pytest.mark.parametrize("message_id", ["", "a b", "a.b", "é", "x" * 129, "a\n", "a/b"])
def test_an_id_that_is_none_is_refused(message_id: str) -> None:
    """Ids are letters, digits, dashes and underscores, up to 128."""
    assert accepts(signed(BODY, NOW, message_id=message_id)) is False


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("whsec_", "at least 24 random bytes; got 0"),
        ("whsec_!!!!", "characters that are no base64"),
        ("whsec_" + base64.b64encode(b"short").decode(), "at least 24 random bytes; got 5"),
        ("whsec_" + base64.b64encode(b"a" * 32).decode(), "one that repeats itself"),
        (b"changeme-changeme-changeme!", "a placeholder"),
        ((), "one secret or up to 8 of them; got 0"),
        (7, "text or bytes; got a value of type int"),
    ],
)
def test_a_signing_secret_that_is_none_is_refused_at_the_start(secret: object, why: str) -> None:
    """An empty key would verify what anybody signs with nothing."""
    with pytest.raises(ConfigurationError, match=why):
        StandardWebhooks(cast("str", secret))


def test_bytes_are_a_key_as_they_are() -> None:
    """Who has the key itself need not encode it."""
    assert accepts(signed(BODY, NOW), by=StandardWebhooks(bytes(range(7, 39)), clock=FakeClock(epoch=NOW)))


def test_it_shows_no_secret() -> None:
    """Not in its repr, and not to what looks at everything an object holds."""
    one = verifier()
    assert repr(one) == pretty_repr(one) == "<StandardWebhooks 1 secrets>"
    shown = io.StringIO()
    rich.inspect(one, console=Console(file=shown, width=500), private=True, value=True)
    key = base64.b64decode(SIGNING.removeprefix("whsec_"))
    assert "StandardWebhooks" in shown.getvalue()
    assert repr(key)[2:-1] not in shown.getvalue()
    assert all(key.hex() not in str(getattr(one, name)) for name in one.__slots__)
    assert not any(key in gc.get_referents(held) for held in (one, *gc.get_referents(one)))


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_its_secrets_go_nowhere(take: Callable[[object], object]) -> None:
    """It is refused in words that say why, in whatever holds it as well."""
    for holder in (verifier(), [verifier()]):
        if take is copy.copy and isinstance(holder, list):
            continue  # the copy holds the same one
        with pytest.raises(TypeError, match="StandardWebhooks holds secrets and is neither copied nor pickled"):
            take(holder)


# --- the reference library as judge ---

_headers = st.dictionaries(
    st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]),
    st.one_of(st.text(max_size=80), st.sampled_from(["v1,", "v1a,x v1,y", str(int(NOW)), "msg_1"])),
)


@settings(max_examples=100 * LONGER, deadline=None)
@given(headers=_headers, body=st.binary(max_size=200))
def test_any_input_is_taken_or_refused_in_our_own_words(headers: dict[str, str], body: bytes) -> None:
    """No exception but ours leaves it; the reference raises others on most such inputs."""
    assert accepts(headers, body) is False


def _mutated(headers: dict[str, str], body: bytes, dice: random.Random) -> tuple[dict[str, str], bytes]:
    """Change some characters somewhere in a delivery."""
    changed, raw = dict(headers), bytearray(body)
    for _ in range(dice.randint(0, 2)):
        name = dice.choice([*headers, "body"])
        if name == "body":
            raw[dice.randrange(len(raw))] = dice.choice(b'{}[]":, 019ax')
            continue
        text = changed[name]
        where = dice.randrange(len(text) + 1)
        sign = dice.choice("v1,= .+-_09AZaz\t\u0661éV")
        changed[name] = text[:where] + dice.choice(["", sign]) + text[where + dice.randint(0, 1) :]
    if dice.random() < 0.2:
        extra = dice.choice(["v1,", "v1", "v2,x", "", "v1a,", changed["webhook-signature"]])
        parts = changed["webhook-signature"].split(" ")
        parts.insert(dice.randint(0, len(parts)), extra)
        changed["webhook-signature"] = " ".join(parts)
    return changed, bytes(raw)


def test_nothing_is_accepted_that_the_reference_library_refuses() -> None:
    """Mutated deliveries: the reference accepts all that is accepted here, and some of them are accepted."""
    reference = standardwebhooks.Webhook(SIGNING)
    ours = StandardWebhooks(SIGNING)
    dice = random.Random(11)
    counts = {"both": 0, "neither": 0, "only the reference": 0}
    for _ in range(MUTATIONS):
        headers, body = _mutated(signed(BODY, time.time() + dice.choice([0, 0, -100, 200, 400])), BODY, dice)
        accepted = accepts(headers, body, by=ours)
        try:
            reference.verify(body, headers)
            judged = True
        except Exception:  # noqa: BLE001 - it has many ways to refuse
            judged = False
        assert judged or not accepted, (headers, body)
        counts["both" if accepted else "only the reference" if judged else "neither"] += 1
    assert min(counts.values()) > 0, counts


@pytest.mark.parametrize("body", ["text", None, 5])
def test_a_body_that_is_no_bytes_is_the_callers_mistake(body: Any) -> None:
    """Decoded or parsed before it was checked, it is not what was signed."""
    with pytest.raises(InputError, match="body must be the raw bytes; got a value of type"):
        verifier().verify(signed(BODY, NOW), body)
    assert verifier().verify(signed(BODY, NOW), bytearray(BODY)) == "msg_1"
