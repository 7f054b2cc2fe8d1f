"""Whatever the bytes: a reader gives a value or one of our own errors, and a body holds what was set."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_samples import JPEG, names, picture, sample, sent

from mirage_async.exceptions import MirageError
from mirage_async.wire import Reply, milady, mira, miragic, mirako
from mirage_async.wire._errors import is_well_formed_error, raise_for_status, retry_after

Reader = Callable[[Reply], object]

READERS: dict[str, tuple[Reader, ...]] = {
    "mirako": (
        mirako.read_generated,
        mirako.read_submitted,
        mirako.read_status,
        mirako.read_avatar_submitted,
        mirako.read_avatar_status,
        mirako.read_avatar,
        mirako.read_avatars,
    ),
    "miragic": (miragic.read_submitted, miragic.read_status),
    "mira": (mira.read_generated,),
    "milady": (milady.read_generated,),
}
EVERY = [reader for readers in READERS.values() for reader in readers]
SAMPLES = [(provider, name) for provider in READERS for name in names(provider)]

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # machines may be busy


def field_names(value: Any) -> set[str]:
    """Return the names of all fields in decoded JSON, so that made-up answers use those of the real ones."""
    if isinstance(value, dict):
        return set(value).union(*map(field_names, value.values()))
    return set().union(*map(field_names, value)) if isinstance(value, list) else set()


STATUSES = st.sampled_from([200, 201, 204, 302, 307, 400, 402, 403, 422, 429, 500, 503])
HEADERS = st.dictionaries(st.sampled_from(["retry-after", "date", "x-request-id", "content-type"]), st.text())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(sorted({name for _, entry in SAMPLES for name in field_names(json.loads(sample(entry)))}))
WORDS = st.sampled_from(["COMPLETED", "READY", "FAILED", "PENDING", "https://a.example/1.png", "a1", "data:,", "2025"])
ANSWERS = st.recursive(
    JSON | WORDS | st.just(base64.b64encode(JPEG).decode()),
    lambda children: st.dictionaries(FIELDS, children, max_size=6) | st.lists(children, max_size=3),
    max_leaves=20,
)


def survives(reader: Reader, reply: Reply) -> None:
    """Let a reader loose on a reply; anything but a value or one of our errors escapes."""
    try:
        reader(reply)
    except MirageError as error:
        message = str(error)
        assert len(message) <= 400
        assert message.isprintable()


@patient
@given(body=st.binary(max_size=300), status=STATUSES, headers=HEADERS)
def test_any_bytes_give_a_value_or_our_own_error(body: bytes, status: int, headers: dict[str, str]) -> None:
    """No reader lets a foreign exception through."""
    reply = Reply(status=status, headers=headers, body=body)
    for reader in EVERY:
        survives(reader, reply)
    survives(lambda answer: raise_for_status(answer, "mira"), reply)
    seconds = retry_after(reply)
    assert seconds is None or seconds >= 0
    assert is_well_formed_error(reply) in {True, False}


@patient
@given(value=ANSWERS, status=STATUSES)
def test_any_json_gives_a_value_or_our_own_error(value: Any, status: int) -> None:
    """Shapes close to the real ones, with the wrong things in them."""
    reply = Reply(status=status, body=json.dumps(value).encode())
    for reader in EVERY:
        survives(reader, reply)


@patient
@given(data=ANSWERS, outer=st.sampled_from(["data", "images"]))
def test_any_json_inside_the_envelope_gives_a_value_or_our_own_error(data: Any, outer: str) -> None:
    """One level further in."""
    reply = Reply(status=200, body=json.dumps({outer: data, "success": True}).encode())
    for reader in EVERY:
        survives(reader, reply)


@patient
@given(
    chosen=st.sampled_from(SAMPLES),
    status=STATUSES,
    cut=st.floats(0, 1),
    patch=st.binary(max_size=4),
    keep=st.booleans(),
)
def test_a_mutated_sample_gives_a_value_or_our_own_error(
    chosen: tuple[str, str],
    status: int,
    cut: float,
    patch: bytes,
    keep: bool,
) -> None:
    """Cut anywhere, or with a few bytes replaced anywhere."""
    provider, name = chosen
    body = sample(name)
    position = int(cut * len(body))
    mutated = body[:position] + patch + (body[position + len(patch) :] if keep else b"")
    for reader in READERS[provider]:
        survives(reader, Reply(status=status, body=mutated))


@pytest.mark.parametrize(("provider", "name"), SAMPLES)
@pytest.mark.parametrize("status", [200, 400, 500])
def test_every_sample_survives_every_reader_of_its_provider(provider: str, name: str, status: int) -> None:
    """An answer that comes to the wrong reader is unreadable at worst."""
    for reader in READERS[provider]:
        survives(reader, Reply(status=status, body=sample(name)))


PROMPTS = st.text(min_size=1, max_size=50).filter(lambda text: text.strip() and "\0" not in text)


@patient
@given(
    prompt=PROMPTS,
    ratio=st.sampled_from(mirako.ASPECT_RATIOS),
    seed=st.none() | st.integers(-(1 << 31), (1 << 31) - 1),
    label=st.none() | PROMPTS,
)
def test_a_mirako_body_decodes_to_exactly_what_was_set(
    prompt: str, ratio: str, seed: int | None, label: str | None
) -> None:
    """Unset fields are left out, set ones come back as they went in."""
    call = mirako.submit_call(
        prompt, aspect_ratio=ratio, seed=seed, images=[picture(JPEG, label)], webhook=("https://a.example/h", label)
    )
    image = {"data": "data:image/jpeg;base64," + base64.b64encode(JPEG).decode(), "label": label}
    hook = {"url": "https://a.example/h", "auth_token": label}
    expected = {"prompt": prompt, "aspect_ratio": ratio, "seed": seed, "images": [image], "webhook": hook}
    assert sent(call) == _set(expected)


@patient
@given(
    prompt=PROMPTS,
    size=st.none() | st.sampled_from(mira.SIZES),
    n=st.none() | st.integers(1, 4),
    quality=st.none() | st.sampled_from(mira.QUALITIES),
)
def test_a_mira_body_decodes_to_exactly_what_was_set(
    prompt: str, size: str | None, n: int | None, quality: str | None
) -> None:
    """Unset fields are left out, set ones come back as they went in."""
    call = mira.generate_call(prompt, size=size, n=n, quality=quality, reference_images=())
    assert sent(call) == _set({"prompt": prompt, "size": size, "n": n, "quality": quality})


@patient
@given(
    prompt=PROMPTS,
    model=st.none() | PROMPTS,
    ratio=st.none() | st.sampled_from(milady.ASPECT_RATIOS),
    count=st.none() | st.integers(1, 4),
    preset=st.none() | st.sampled_from(milady.STYLE_PRESETS),
)
def test_a_milady_body_decodes_to_exactly_what_was_set(
    prompt: str, model: str | None, ratio: str | None, count: int | None, preset: str | None
) -> None:
    """Unset fields are left out, set ones come back as they went in."""
    call = milady.generate_call(
        prompt, model=model, aspect_ratio=ratio, num_images=count, style_preset=preset, source_image=None
    )
    expected = {"prompt": prompt, "model": model, "aspectRatio": ratio, "numImages": count, "stylePreset": preset}
    assert sent(call) == _set(expected)


def _set(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _set(entry) for name, entry in value.items() if entry is not None}
    return [_set(entry) for entry in value] if isinstance(value, list) else value
