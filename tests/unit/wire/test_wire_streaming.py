"""However an answer is cut into chunks: what the reader gives says the same as the answer read whole."""

from __future__ import annotations

import base64
import json
import random
import tracemalloc
from typing import TYPE_CHECKING, Any, TypeAlias
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from wire_samples import JPEG

from mirage_async.exceptions import MirageError, ResponseError
from mirage_async.wire import PictureReader, Reply, _streaming, milady, mira, mirako
from mirage_async.wire._json import decode
from mirage_async.wire._results import picture_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Pictures: TypeAlias = "Mapping[bytes, bytes | None]"

NAMES = ("image", "b64_json")
PNG = b"\x89PNG\r\n\x1a\n"
LARGE = JPEG[:2] + b"\xff\xfe\x04\x02" + b"+/" * 512 + JPEG[2:]  # a comment makes it worth streaming
LARGE += bytes(-len(LARGE) % 3)
TEXT = base64.b64encode(LARGE).decode()

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def streamed(chunks: Sequence[bytes], length: int = 0) -> tuple[bytes, Pictures]:
    """Return what the reader makes of the chunks."""
    reader = PictureReader(NAMES, length=length)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


def cut(body: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Cut a body into chunks of these sizes, the last of which repeats."""
    chunks: list[bytes] = []
    for size in (*sizes, *[max(sizes[-1], 1)] * len(body)):
        if not body:
            break
        chunks.append(body[:size])
        body = body[size:]
    return chunks


def meaning(raw: bytes | msgspec.Raw, pictures: Pictures) -> object:
    """Return what JSON says, the texts of picture fields as the pictures they are."""
    for shape in (dict[str, msgspec.Raw], list[msgspec.Raw], object):
        try:
            value: Any = decode(raw, shape)
        except ResponseError:
            continue
        if shape is object:
            return value
        if isinstance(value, list):
            return [meaning(entry, pictures) for entry in value]
        return {name: field_meaning(name, entry, pictures) for name, entry in value.items()}
    return "unreadable"


def field_meaning(name: str, raw: msgspec.Raw, pictures: Pictures) -> object:
    """Return what a field says; of the text of a picture field only the picture counts."""
    is_text = bytes(memoryview(raw)[:1]) == b'"'
    return ("picture", picture_bytes(raw, pictures)) if name in NAMES and is_text else meaning(raw, pictures)


# --- answers: JSON as the world writes it ---


def spelled(text: str, style: random.Random) -> str:
    """Write a JSON string as PHP, .NET, Python or nobody in particular would."""
    way = style.choice(["python", "php", "net", "unicode", "any"])
    plain = json.dumps(text, ensure_ascii=way != "unicode")
    if way == "php":
        return plain.replace("/", "\\/")
    if way == "net":
        return plain.replace("+", style.choice(["\\u002B", "\\u002b"]))
    if way == "any":
        return '"' + "".join(f"\\u{ord(each):04x}" if style.random() < 0.2 else each for each in plain[1:-1]) + '"'
    return plain


def written(value: Any, style: random.Random) -> str:
    """Write JSON; objects are lists of pairs, so that names can be repeated."""
    space = style.choice(["", " ", "\n\t", "\r\n    "])
    if isinstance(value, tuple):
        pairs = (f"{spelled(name, style)}{space}:{space}{written(entry, style)}" for name, entry in value)
        return "{" + space + f"{space},{space}".join(pairs) + space + "}"
    if isinstance(value, list):
        return "[" + f",{space}".join(written(entry, style) for entry in value) + "]"
    return spelled(value, style) if isinstance(value, str) else json.dumps(value)


@st.composite
def picture_texts(draw: st.DrawFn) -> str:
    """Return base64 that is nearly always right, with the liberties that servers take."""
    text = base64.b64encode(draw(st.sampled_from([PNG, b""])) + draw(st.binary(max_size=600))).decode()
    text = draw(st.sampled_from(["", "", "data:image/png;base64,", " data:;,", "DATA:image/é,", "data:"])) + text
    if draw(st.booleans()):
        text = text.rstrip("=")
    for odd in draw(st.lists(st.sampled_from([" ", "\n", "\r\n", "=", "==", "-", '"', "\\", "é", "\0"]), max_size=2)):
        position = draw(st.integers(0, len(text)))
        text = text[:position] + odd + text[position:]
    return text


WORDS = st.sampled_from([*NAMES, "data", "x", '"image":"', '\\"image\\":', "image\\", "", "imag", "<0>"])
SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | WORDS | picture_texts()
VALUES = st.recursive(
    SCALARS,
    lambda children: (
        st.lists(children, max_size=4)
        | st.lists(st.tuples(WORDS | st.text(max_size=3), children | picture_texts()), max_size=5).map(tuple)
    ),
    max_leaves=12,
)
SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=12) | st.sampled_from([[1], [2], [3], [1000]])
STYLES = st.integers(0, 1 << 16).map(random.Random)


@patient
@given(value=VALUES, style=STYLES, sizes=SIZES, shortest=st.sampled_from([1, 8, 300, 1024]), length=st.booleans())
def test_every_chunking_of_every_answer_says_what_the_answer_says(
    value: Any, style: random.Random, sizes: list[int], shortest: int, *, length: bool
) -> None:
    """Nested, repeated, pretty-printed, escaped, prefixed, broken: the picture and all that stands around it."""
    body = written(value, style).encode()
    with patch.object(_streaming, "SHORTEST_STREAMED", shortest):
        left, pictures = streamed(cut(body, sizes), length=len(body) if length else 0)
    assert meaning(left, pictures) == meaning(body, {})


@patient
@given(
    value=VALUES,
    style=STYLES,
    sizes=SIZES,
    place=st.floats(0, 1),
    patched=st.binary(max_size=3) | st.sampled_from([b'"', b"\\", b"\\u00", b"\n", b"{", b'":"', b"\xff"]),
    keep=st.booleans(),
)
def test_an_answer_that_is_no_json_is_none_after_streaming_either(
    value: Any, style: random.Random, sizes: list[int], place: float, patched: bytes, *, keep: bool
) -> None:
    """Cut short or damaged anywhere: what cannot be read whole cannot be read in parts, and what can be is the same."""
    body = written(value, style).encode()
    position = int(place * len(body))
    body = body[:position] + patched + (body[position + len(patched) :] if keep else b"")
    with patch.object(_streaming, "SHORTEST_STREAMED", 8):
        left, pictures = streamed(cut(body, sizes))
    assert meaning(left, pictures) == meaning(body, {})


@pytest.mark.parametrize("odd", ["\n", "\0", "\t", "\\q", "\\u00", "\xff", '\\"', "=", "!"])
@pytest.mark.parametrize("place", [0, 100, 300, 1023, 1024, 1025, 1200, -1])
@pytest.mark.parametrize("escaped", [False, True])
def test_one_odd_character_in_a_picture_spoils_it_for_both(odd: str, place: int, *, escaped: bool) -> None:
    """Before and behind the bound for streaming, in a text that needs unescaping and in one that does not."""
    text = TEXT[:place] + odd + TEXT[place:]
    if escaped:
        text = "".join(f"\\u{ord(each):04x}" for each in TEXT[:place]) + odd + TEXT[place:]
    body = f'{{"image": "{text}"}}'.encode("latin-1")
    for size in (1, 5, 700, 1 << 20):
        left, pictures = streamed(cut(body, [size]))
        assert meaning(left, pictures) == meaning(body, {})


@patient
@given(body=st.binary(max_size=200), sizes=SIZES)
@example(body=b'{"image":"', sizes=[1])
def test_what_holds_no_picture_is_left_as_it_is(body: bytes, sizes: list[int]) -> None:
    """To the byte, whatever the bytes."""
    assert streamed(cut(body, sizes)) == (body, {})


# --- the codecs, fed either way ---

ANSWERS: dict[str, tuple[Callable[[Reply], object], object]] = {
    "mirako": (mirako.read_generated, {"data": {"image": TEXT, "task_id": "a1"}}),
    "mirako-status": (mirako.read_status, {"data": {"status": "COMPLETED", "image": TEXT}}),
    "mirako-submitted": (mirako.read_submitted, {"data": {"task_id": "a1", "status": "COMPLETED", "image": TEXT}}),
    "mira": (mira.read_generated, {"created": 1, "data": [{"b64_json": TEXT}, {"b64_json": TEXT + "AAAA"}]}),
    "milady": (milady.read_generated, {"images": [{"image": "data:image/jpeg;base64," + TEXT, "url": None}]}),
    "no picture": (mirako.read_generated, {"data": {"image": TEXT[4:]}}),
    "not base64": (mirako.read_status, {"data": {"status": "COMPLETED", "image": TEXT + "!" + TEXT}}),
    "refused": (mira.read_generated, {"success": False, "error": "no", "data": [{"b64_json": TEXT}]}),
}


def read(reader: Callable[[Reply], object], reply: Reply) -> object:
    """Return what a codec says of a reply, be it an error."""
    try:
        return reader(reply)
    except MirageError as error:
        return type(error), str(error)


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
def test_a_codec_reads_a_streamed_answer_like_a_whole_one(name: str, size: int) -> None:
    """The same report or the same error, word for word."""
    reader, answer = ANSWERS[name]
    body = json.dumps(answer).encode()
    left, pictures = streamed(cut(body, [size]))
    assert len(pictures) == {"mira": 2, "not base64": 0}.get(name, 1)
    assert len(left) < 1000 or name == "not base64"
    assert read(reader, Reply(status=200, body=left, pictures=pictures)) == read(reader, Reply(status=200, body=body))


def test_the_calls_that_may_bring_pictures_say_under_which_names() -> None:
    """What the transport looks for is what the codecs read."""
    image = mirako.generate_call("x", aspect_ratio="1:1", seed=None, images=())
    task = mirako.submit_call("x", aspect_ratio="1:1", seed=None, images=(), webhook=None)
    several = mira.generate_call("x", size=None, n=None, quality=None, reference_images=())
    inline = milady.generate_call(
        "x", model=None, aspect_ratio=None, num_images=None, style_preset=None, source_image=None
    )
    for call in (image, task, mirako.status_call("a1"), inline):
        assert call.picture_fields == ("image",)
    assert several.picture_fields == ("b64_json",)
    assert mirako.avatars_call().picture_fields == ()


# --- bounds ---


def test_a_text_is_streamed_from_its_bound_on() -> None:
    """One character decides, however the text is cut."""
    text = base64.b64encode(LARGE).decode()
    for length, count in ((1023, 0), (1024, 1)):
        body = json.dumps({"image": text[:length]}).encode()
        for size in (1, 1000, 5000):
            assert len(streamed(cut(body, [size]))[1]) == count


def test_beyond_its_bounds_the_reader_leaves_everything_to_the_codec() -> None:
    """An answer of thousands of strings or pictures is hostile; it costs little and says the same as ever."""
    many = json.dumps([{"image": TEXT}] * (_streaming.MOST_PICTURES + 3)).encode()
    left, pictures = streamed([many])
    assert len(pictures) == _streaming.MOST_PICTURES
    assert meaning(left, pictures) == meaning(many, {})
    late = json.dumps(["x"] * _streaming.MOST_STRINGS + [{"image": TEXT}]).encode()
    assert streamed([late]) == (late, {})
    assert streamed(cut(late, [5000])) == (late, {})


def test_a_name_that_is_spelled_otherwise_is_the_same_name() -> None:
    """JSON has several ways to write a letter; a name that is no JSON, or endless, is no name of a picture's."""
    for name, count in (("im\\u0061ge", 1), ("im\\u00", 0), ("image" + "\\u0000" * 50, 0), ("\\/image", 0)):
        body = f'{{"{name}": "{TEXT}"}}'.encode()
        left, pictures = streamed([body])
        assert len(pictures) == count
        assert (left == body) == (not count)


def test_a_name_ends_where_its_string_begins() -> None:
    """A name with a quote in it, or a text that looks like a field, is not the field that it ends like."""
    for body in (
        f'{{"x\\"image": "{TEXT}"}}',
        f'["\\"image\\": ", "image", "{TEXT}"]',
        f'{{"x": "\\"image", "y": "{TEXT}"}}',
    ):
        assert streamed([body.encode()]) == (body.encode(), {})


def test_a_picture_whose_name_came_with_the_chunk_before_is_one() -> None:
    """And the next picture in the same chunk is another."""
    for beginning in ('{"image"', '{"image": ', '{"ima', '{"image": "' + TEXT[:9]):
        whole = f'{{"image": "{TEXT}", "b64_json": "{TEXT}"}}'
        body = [beginning.encode(), whole.removeprefix(beginning).encode()]
        assert list(streamed(body)[1].values()) == [LARGE, LARGE]


def test_a_mark_cannot_be_sent_by_a_server() -> None:
    """Marks differ from reader to reader, so a text that was one a moment ago is a text."""
    left, pictures = streamed([f'{{"image": "{TEXT}"}}'.encode()])
    again, others = streamed([left])
    assert again == left
    assert not others
    assert picture_bytes(decode(left, dict[str, msgspec.Raw])["image"], pictures) == LARGE
    assert not set(pictures) & set(streamed([f'{{"image": "{TEXT}"}}'.encode()])[1])


def big_answer(size: int) -> tuple[bytes, Iterator[bytes]]:
    """Return a picture of that size and an answer with it, chunk by chunk."""
    picture = PNG + random.Random(1).randbytes(size)

    def chunks() -> Iterator[bytes]:
        yield b'{"data": {"image": "'
        for start in range(0, len(picture), 3 << 15):
            yield base64.b64encode(picture[start : start + (3 << 15)])
        yield b'"}}'

    return picture, chunks()


@pytest.mark.parametrize("announced", [True, False])
def test_a_picture_is_held_once(*, announced: bool) -> None:
    """Its text is never there as a whole, and its bytes are never copied."""
    picture, chunks = big_answer(8 << 20)
    tracemalloc.start()
    try:
        reader = PictureReader(NAMES, length=len(picture) * 4 // 3 if announced else 0)
        for chunk in chunks:
            reader.feed(chunk)
        _, pictures = reader.finish()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert list(pictures.values()) == [picture]
    assert peak <= 1.2 * len(picture)
