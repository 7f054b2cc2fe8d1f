"""Addresses that only we can have given out: what is in them, what is taken, and that nothing else ever is."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import os
import random
import string
import warnings
from typing import TYPE_CHECKING, cast

import pytest
from webhook_bench import OTHER_SECRET, PUBLIC, SECRET, Bench, path_of

from mirage_async.clients import Providers
from mirage_async.exceptions import ConfigurationError, InputError
from mirage_async.testing import FakeClock
from mirage_async.webhooks import WebhookReceiver
from mirage_async.webhooks._tokens import CallbackTokens

if TYPE_CHECKING:
    from collections.abc import Iterator

FORGERIES = int(os.environ.get("MIRAGE_FUZZ", "1")) * 100_000
KEY = "0123456789abcdef0123456789abcdef"
ALPHABET = string.ascii_letters + string.digits + "-_"
NOW = 1_750_000_000.0


def made(*secrets: str | bytes, clock: FakeClock | None = None) -> WebhookReceiver:
    """Return a receiver with these secrets."""
    return WebhookReceiver(public_url=PUBLIC, secret=secrets or SECRET, clock=clock or FakeClock())


def status(receiver: WebhookReceiver, path: str, **headers: str) -> int:
    """Return what a delivery at a path is answered with."""
    return receiver.handle("POST", path, headers, b"{}").status


def test_a_token_is_what_its_description_says() -> None:
    """Form, key id, expiry, key and half a MAC, computed here from the description alone."""
    token, bearer = CallbackTokens([SECRET.encode()]).mint("mirako", KEY, NOW, bearer=True)
    raw = base64.urlsafe_b64decode(token)
    label = b"mirage_async/callback-url/v1"
    key = hmac.new(SECRET.encode(), label + b"/key", hashlib.sha256).digest()
    number = hmac.new(SECRET.encode(), label + b"/id", hashlib.sha256).digest()[0]
    head = bytes([2, number]) + int(NOW).to_bytes(5, "big") + bytes.fromhex(KEY)
    mac = hmac.new(key, label + b"\0\x06mirako" + head, hashlib.sha256).digest()
    assert len(token) == 52
    assert raw == head + mac[:16]
    assert bearer == mac[16:].hex()


def test_an_address_is_taken_by_every_replica_with_the_secret() -> None:
    """Nothing is stored: another receiver knows what the first has given out."""
    url = made().callback_url("mirako", KEY)
    assert url.startswith(f"{PUBLIC}/mirako/")
    reply = made().handle("POST", path_of(url), {}, b"")
    assert reply.status == 204
    assert reply.hint is not None
    assert (reply.hint.provider, reply.hint.key) == ("mirako", KEY)


def test_only_the_last_two_segments_of_a_path_matter() -> None:
    """A proxy may rewrite what comes before them, and a query changes nothing."""
    receiver = made()
    tail = "/".join(receiver.callback_url("miragic", KEY).split("/")[-2:])
    for path in (tail, f"/{tail}", f"/a/b/c/{tail}", f"/hooks/{tail}?utm=1", f"//{tail}"):
        assert status(receiver, path) == 204, path


def test_a_token_for_one_provider_is_none_for_another() -> None:
    """The provider's name is part of what is signed."""
    receiver = made()
    path = path_of(receiver.callback_url("mirako", KEY))
    assert status(receiver, path.replace("mirako", "miragic")) == 401


def test_a_bearer_token_has_to_come_where_one_was_given_out() -> None:
    """Whoever has seen only the address in somebody's log can do nothing with it."""
    receiver = made()
    url, bearer = receiver.callback("mirako", KEY)
    path = path_of(url)
    assert status(receiver, path) == 401
    for wrong in (
        "Bearer",
        "Bearer ",
        f"Basic {bearer}",
        f"Bearer {bearer[:-1]}",
        f"Bearer {bearer}0",
        bearer,
        "Bearer é",
    ):
        assert status(receiver, path, Authorization=wrong) == 401, wrong
    for right in (f"Bearer {bearer}", f"bearer {bearer}", f"BEARER  {bearer} "):
        assert status(receiver, path, authorization=right) == 204, right
    assert receiver.handle("POST", path, {}, b"").headers == {"WWW-Authenticate": "Bearer"}


def test_the_bearer_token_of_one_job_does_not_open_another() -> None:
    """Each address has its own."""
    receiver = made()
    _, bearer = receiver.callback("mirako", KEY)
    other, _ = receiver.callback("mirako", "f" * 32)
    assert status(receiver, path_of(other), Authorization=f"Bearer {bearer}") == 401


def test_an_address_expires() -> None:
    """After its lifetime and five minutes in which clocks may differ it is worth nothing."""
    clock = FakeClock()
    receiver = WebhookReceiver(public_url=PUBLIC, secret=SECRET, lifetime=60, clock=clock)
    path = path_of(receiver.callback_url("mirako", KEY))
    clock._now = 60 + 299.0
    assert status(receiver, path) == 204
    clock._now = 60 + 302
    assert status(receiver, path) == 401


def test_secrets_are_rotated_without_losing_a_delivery() -> None:
    """A new secret signs, the old one is still accepted; once it is taken out, it is not."""
    old = path_of(made(SECRET).callback_url("mirako", KEY))
    both = made(OTHER_SECRET, SECRET)
    new = path_of(both.callback_url("mirako", KEY))
    assert (status(both, old), status(both, new)) == (204, 204)
    assert (status(made(OTHER_SECRET), old), status(made(OTHER_SECRET), new)) == (401, 204)
    assert (status(made(SECRET), old), status(made(SECRET), new)) == (204, 401)


def test_secrets_whose_ids_collide_are_both_accepted() -> None:
    """An id is one byte, so that two secrets may share one."""

    def number(secret: str) -> str:
        return base64.urlsafe_b64decode(made(secret).callback_url("mira", KEY).rpartition("/")[2])[1:2].hex()

    found: dict[str, str] = {}
    twins: tuple[str, str] | None = None
    for count in range(1000):
        secret = hashlib.sha256(str(count).encode()).hexdigest()
        if (shared := number(secret)) in found:
            twins = found[shared], secret
            break
        found[shared] = secret
    assert twins is not None
    both = made(*twins)
    assert [status(both, path_of(made(secret).callback_url("mira", KEY))) for secret in twins] == [204, 204]


def neighbours(token: str) -> Iterator[str]:
    """Yield every change of one character to any of 300, and every shorter, longer and shifted form."""
    signs = [chr(code) for code in range(256)] + ["é", "\u0660", "\uff21", "\U0001f98a", "\ud800"]
    for position in range(len(token)):
        for sign in signs:
            if sign != token[position]:
                yield token[:position] + sign + token[position + 1 :]
        yield token[:position]
        yield token[position + 1 :]
        yield token[:position] + token[position + 1 :]
        yield token[: position + 1] + token[position:]
    yield from (f"{token}{sign}" for sign in ["=", "==", "A", " ", "\n", "%00", "?x", "/x", "/"])
    yield from (f"{sign}{token}" for sign in ["=", "A", " ", "%2F"])
    yield from (token.lower(), token.upper(), token.swapcase(), token[::-1], token * 2)


def test_no_neighbour_of_a_token_is_accepted() -> None:
    """Every change of a single character, every truncation and every extension is refused."""
    tokens = CallbackTokens([SECRET.encode()])
    for bearer in (False, True):
        token, _ = tokens.mint("mirako", KEY, NOW, bearer=bearer)
        tried = [other for other in neighbours(token) if other != token]
        assert len(tried) > 10_000
        assert [other for other in tried if tokens.read("mirako", other) is not None] == []
        assert tokens.read("mirako", token) is not None


def test_a_hundred_thousand_forged_and_mutated_tokens_are_refused() -> None:
    """Random ones, ones of the right form, and genuine ones with some bits turned over."""
    tokens = CallbackTokens([SECRET.encode(), OTHER_SECRET.encode()])
    strangers = CallbackTokens([b"another secret of somebody else."])
    dice = random.Random(5)
    genuine = [tokens.mint("mirako", dice.randbytes(16).hex(), NOW, bearer=True)[0] for _ in range(100)]
    accepted: list[str] = []
    for number in range(FORGERIES):
        kind = number % 4
        if kind == 0:
            token = "".join(dice.choices(ALPHABET, k=52))
        elif kind == 1:
            raw = bytearray(base64.urlsafe_b64decode(genuine[number % 100]))
            for _ in range(dice.randint(1, 3)):
                raw[dice.randrange(39)] ^= 1 << dice.randrange(8)
            token = base64.urlsafe_b64encode(raw).decode()
        elif kind == 2:
            token, _ = strangers.mint("mirako", dice.randbytes(16).hex(), NOW, bearer=False)
        else:
            left, right = dice.sample(genuine, 2)
            cut = dice.randrange(1, 52)
            token = left[:cut] + right[cut:]
        if token not in genuine and tokens.read("mirako", token) is not None:
            accepted.append(token)
    assert accepted == []


def test_a_token_signed_with_an_unknown_key_of_zeros_is_refused() -> None:
    """What an unknown key id is checked against is nobody's key."""
    tokens = CallbackTokens([SECRET.encode()])
    known = base64.urlsafe_b64decode(tokens.mint("mirako", KEY, NOW, bearer=False)[0])[1]
    head = bytes([1, (known + 1) % 256]) + int(NOW).to_bytes(5, "big") + bytes.fromhex(KEY)
    signed = b"mirage_async/callback-url/v1\0\x06mirako" + head
    for key in (b"", bytes(32), SECRET.encode()):
        mac = hmac.new(key, signed, hashlib.sha256).digest()
        assert tokens.read("mirako", base64.urlsafe_b64encode(head + mac[:16]).decode()) is None


def test_a_token_of_a_form_to_come_is_refused() -> None:
    """The form is signed, and this version knows two."""
    tokens = CallbackTokens([SECRET.encode()])
    head = bytearray(base64.urlsafe_b64decode(tokens.mint("mirako", KEY, NOW, bearer=False)[0])[:23])
    head[0] = 3
    begun = tokens._macs("mirako", head[1])[0].copy()
    begun.update(head)
    assert tokens.read("mirako", base64.urlsafe_b64encode(bytes(head) + begun.digest()[:16]).decode()) is None


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("", "at least 32 random bytes; got 0"),
        (b"", "at least 32 random bytes; got 0"),
        ("short", "at least 32 random bytes; got 5"),
        (os.urandom(31), "at least 32 random bytes; got 31"),
        ("a" * 32, "one that repeats itself"),
        (bytes(64), "one that repeats itself"),
        ("abcdefghijkl" * 4, "one that repeats itself"),
        ("changeme-changeme-0123456789-xyz!", "a placeholder"),
        ("your-webhook-secret-at-least-32-long", "a placeholder"),
        ("EXAMPLE-0123456789-abcdefghijklmnop", "a placeholder"),
        ("<put your own key of 32 bytes here>", "a placeholder"),
        ("my-webhook-secret-for-production-1", "a placeholder"),
        ("INSERT-32-RANDOM-BYTES-HERE-PLEASE", "a placeholder"),
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZ012345", "a placeholder"),
        ([], "one secret or up to 8 of them; got 0"),
        ([SECRET] * 9, "one secret or up to 8 of them; got 9"),
        ([SECRET, "short"], "at least 32 random bytes; got 5"),
        (None, "text or bytes; got a value of type NoneType"),
        (12345, "text or bytes; got a value of type int"),
        ("\ud800" * 2, "at least 32 random bytes; got 6"),
    ],
    ids=itertools.count(),
)
def test_a_secret_that_is_none_is_refused_at_the_start(secret: object, why: str) -> None:
    """Short, empty, repeated and placeholder secrets make no receiver, and no message repeats one."""
    with pytest.raises(ConfigurationError, match=why) as refusal:
        WebhookReceiver(public_url=PUBLIC, secret=cast("str", secret))
    for text in (secret, *(secret if isinstance(secret, list) else ())):
        if isinstance(text, str) and len(text) > 3:
            assert text not in str(refusal.value)


def test_random_secrets_of_every_usual_kind_are_taken() -> None:
    """Nobody's good secret is mistaken for a bad one."""
    for _ in range(300):
        raw = os.urandom(32)
        for secret in (raw, raw.hex(), base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw)):
            made(secret)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "app.example",
        "ftp://app.example",
        "https://",
        "https://u:p@a.example",
        "https://a.example/?x=1",
        "https://a.example/#x",
        "https://a b/",
        "https://a.example/" + "x" * 2000,
        None,
    ],
)
def test_a_public_url_that_leads_nowhere_is_refused(url: object) -> None:
    """It is configured, never guessed, so it has to be right."""
    with pytest.raises(ConfigurationError, match="public_url must be"):
        WebhookReceiver(public_url=cast("str", url), secret=SECRET)


@pytest.mark.parametrize("url", ["http://app.example/hooks", "HTTP://10.0.0.7:8080", "http://0.0.0.0:8420"])
def test_tokens_in_clear_are_warned_of_once_where_the_receiver_is_made(url: str) -> None:
    """Whoever is on the way can use them."""
    with pytest.warns(UserWarning, match="tokens that open its addresses travel in clear") as warned:
        WebhookReceiver(public_url=url, secret=SECRET)
    assert [warning.filename for warning in warned] == [__file__]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8420", "http://[::1]/hooks", "http://localhost", "https://a.example"]
)
def test_an_address_of_this_machine_or_under_tls_is_not_warned_of(url: str) -> None:
    """Nobody listens in there."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        WebhookReceiver(public_url=url, secret=SECRET)


def test_the_slash_at_the_end_of_a_public_url_does_not_matter() -> None:
    """Both spellings give the same address."""
    assert (
        WebhookReceiver(public_url="https://a.example/", secret=SECRET)
        .callback_url("mira", KEY)
        .startswith("https://a.example/mira/")
    )


@pytest.mark.parametrize("key", ["", "x", KEY.upper(), KEY + "0", KEY[:-1], "../" + KEY, None, 5])
def test_what_is_no_key_of_a_job_gets_no_address(key: object) -> None:
    """An address is for a job of ours."""
    with pytest.raises(InputError, match=r"key must be Job\.key"):
        made().callback_url("mirako", cast("str", key))


def test_what_is_no_provider_gets_no_address() -> None:
    """The message names the four."""
    with pytest.raises(InputError, match="provider must be one of milady, mira, miragic, mirako; got 'dall-e'"):
        made().callback_url("dall-e", KEY)


def test_every_provider_there_is_has_addresses() -> None:
    """The receiver knows the providers of the registry, no more and no fewer."""
    receiver = made()
    for name in Providers.classes():
        assert status(receiver, path_of(receiver.callback_url(name, KEY))) == 204


@pytest.mark.parametrize("lifetime", [0, -1, 8 * 24 * 3600, float("nan"), float("inf"), True, "5"])
def test_a_lifetime_is_seconds_up_to_a_week(lifetime: object) -> None:
    """Anything else is a mistake."""
    with pytest.raises(InputError, match="lifetime must be above 0 and at most 604800 seconds"):
        WebhookReceiver(public_url=PUBLIC, secret=SECRET, lifetime=cast("float", lifetime))


def test_nothing_shows_a_secret_or_a_token() -> None:
    """Not the receiver, not what it makes, not a reply."""
    bench = Bench()
    url, bearer = bench.receiver.callback("mirako", KEY)
    token = url.rpartition("/")[2]
    claim = bench.receiver._tokens.read("mirako", token)
    reply = bench.receiver.handle("POST", path_of(url), {"Authorization": f"Bearer {bearer}"}, b"")
    shown = f"{bench.receiver!r} {claim!r} {reply!r} {bench.receiver.statistics()!r}"
    assert [secret for secret in (SECRET, token, bearer) if secret in shown] == []
