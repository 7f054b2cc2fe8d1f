"""What `media` reads out of bytes, and that it never takes a cut picture for a whole one."""

from __future__ import annotations

import base64
import importlib.util
import io
import random
import struct
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mirage_async import media

if TYPE_CHECKING:
    from types import ModuleType


def picture(kind: str, size: tuple[int, int] = (33, 17), **options: object) -> bytes:
    """Return a small picture with some noise in it, so that its data have all kinds of bytes."""
    noise = random.Random(7)
    image = Image.frombytes("RGB", size, noise.randbytes(size[0] * size[1] * 3))
    if options.pop("alpha", False):
        image.putalpha(128)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_thumbnail() -> bytes:
    """Return a JPEG that carries another whole JPEG inside its EXIF segment."""
    inner = b"Exif\x00\x00" + picture("JPEG", (8, 8))
    outer = picture("JPEG")
    return outer[:2] + b"\xff\xe1" + struct.pack(">H", len(inner) + 2) + inner + outer[2:]


SAMPLES = {
    "jpeg": picture("JPEG"),
    "progressive jpeg": picture("JPEG", progressive=True),
    "jpeg with thumbnail": with_thumbnail(),
    "png": picture("PNG"),
    "webp lossy": picture("WEBP", quality=70),
    "webp lossless": picture("WEBP", lossless=True),
    "webp extended": picture("WEBP", quality=70, alpha=True),
    "gif": picture("GIF"),
    "avif": picture("AVIF"),
}
MIME_TYPES = {
    name: f"image/{next(kind for kind in ('jpeg', 'png', 'webp', 'gif', 'avif') if kind in name)}" for name in SAMPLES
}


@pytest.mark.parametrize("name", SAMPLES)
def test_type_and_size_come_from_the_bytes(name: str) -> None:
    """Every known format tells its type; all but AVIF tell their size."""
    size = (None, None) if name == "avif" else (33, 17)
    assert media.inspect(SAMPLES[name]) == media.Facts(MIME_TYPES[name], *size)


def test_the_webp_samples_are_the_three_flavours() -> None:
    """The samples really cover lossy, lossless and extended WebP."""
    kinds = {SAMPLES[f"webp {flavour}"][12:16] for flavour in ("lossy", "lossless", "extended")}
    assert kinds == {b"VP8 ", b"VP8L", b"VP8X"}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_whole_picture_is_whole(name: str) -> None:
    """Nothing is held against a picture as an encoder wrote it, with all or a few of its bytes in view."""
    data = SAMPLES[name]
    assert media.incomplete(data, data, len(data)) is None
    assert media.incomplete(data[:300], data[-32:], len(data)) is None


@pytest.mark.parametrize("name", [*SAMPLES, "text"])
def test_one_look_says_what_two_would(name: str) -> None:
    """Of a picture that is whole, of one cut anywhere, and of what is none."""
    data = SAMPLES.get(name, b"not a picture at all")
    for end in range(len(data) + 1):
        cut = data[:end]
        assert media.appraise(cut) == (media.inspect(cut), media.incomplete(cut, cut, len(cut)))


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "gif"])
def test_a_picture_cut_anywhere_is_never_whole(name: str) -> None:
    """One missing byte is enough, wherever the cut falls and however little of the picture is in view."""
    data = SAMPLES[name]
    for end in range(len(data)):
        cut = data[:end]
        assert media.incomplete(cut, cut, end), end
        if name != "avif":  # the boxes of an AVIF can only be walked as far as the head shows them
            assert media.incomplete(cut[:256], cut[-32:], end), end


def test_a_gif_without_its_trailer_is_cut() -> None:
    """A GIF's end is one byte after a block terminator; without it the picture is not whole."""
    data = SAMPLES["gif"]
    assert media.incomplete(data[:-1], data[:-1], len(data) - 1) == f"image/gif of {len(data) - 1} bytes has no trailer"


@pytest.mark.parametrize("name", ["jpeg", "png", "gif"])
def test_padding_after_the_end_is_forgiven(name: str) -> None:
    """Zero bytes and line ends behind the end marker do no harm."""
    data = SAMPLES[name] + b"\x00\x00\r\n"
    assert media.incomplete(data, data[-64:], len(data)) is None


def test_webp_may_have_one_byte_more_than_it_announces() -> None:
    """One pad byte is forgiven, two are not, and a missing one is not."""
    data = SAMPLES["webp lossy"]
    assert media.incomplete(data, data, len(data) + 1) is None
    assert (
        media.incomplete(data, data, len(data) + 2)
        == f"image/webp of {len(data) + 2} bytes announces {len(data)} bytes"
    )


def test_avif_boxes_are_walked_to_the_end() -> None:
    """64-bit lengths and a last box without length are understood; a box without size cannot stall the walk."""
    start = struct.pack(">I4s4s4s", 16, b"ftyp", b"avif", bytes(4))
    long_box = struct.pack(">I4sQ", 1, b"mdat", 20) + bytes(4)
    open_box = struct.pack(">I4s", 0, b"mdat") + bytes(9)
    tiny_box = struct.pack(">I4s", 2, b"mdat")
    for box in (long_box, open_box, tiny_box):
        assert media.incomplete(start + box, b"", len(start + box)) is None
    assert media.incomplete(start, b"", len(start)) == "image/avif of 16 bytes has no picture data"
    assert media.incomplete(start + long_box[:-1], b"", 35) == "image/avif of 35 bytes is cut inside a box"
    assert media.incomplete(start, b"", 500) is None  # no more of it is in view: nothing speaks against it


def test_jpeg_fill_bytes_and_bare_markers_are_skipped() -> None:
    """A marker may be preceded by FF bytes, and some markers have no length."""
    data = SAMPLES["jpeg"]
    padded = data[:2] + b"\xff\xff\xff\x01" + data[2:]
    assert media.inspect(padded) == media.Facts("image/jpeg", 33, 17)


@pytest.mark.parametrize(("fill", "size"), [(1000, (16, 8)), (3000, (None, None))])
def test_a_header_without_end_is_not_walked_for_ever(fill: int, size: tuple[int | None, int | None]) -> None:
    """Megabytes of tiny segments would hold up the event loop; no picture is like that."""
    frame = b"\xff\xc0\x00\x11\x08\x00\x08\x00\x10" + bytes(10)
    facts = media.inspect(b"\xff\xd8\xff" + b"\xff" * fill + frame)
    assert facts is not None
    assert (facts.width, facts.height) == size
    boxes = b"\x00\x00\x00\x0cftypavif" + b"\x00\x00\x00\x08free" * fill + b"\x00\x00\x00\x08mdat"
    assert (media.incomplete(boxes, boxes, len(boxes)) is None) == (size[0] is not None)


def test_padding_without_end_is_not_forgiven() -> None:
    """A few bytes are forgiven, not a megabyte: the end of the picture is looked for near the end of the data."""
    data = SAMPLES["png"]
    assert media.incomplete(data, data + bytes(1000), len(data) + 1000) is None
    assert media.incomplete(data, data + bytes(1 << 20), len(data) + (1 << 20)) is not None


def test_jpeg_without_a_scan_is_cut() -> None:
    """An end marker right after the header does not make a picture."""
    assert media.incomplete(b"\xff\xd8\xff\xd9", b"\xff\xd9", 4) == "image/jpeg of 4 bytes has no picture data"


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dJUNK" + bytes(8), "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"\xff\xd8\xff\xc0\x00\x11\x08\x00", "image/jpeg"),
        (b"\xff\xd8\xff\xc0\x00\x11\x08\x00\x00\x00\x00", "image/jpeg"),
        (b"\xff\xd8\xffnonsense that is no segment", "image/jpeg"),
        (b"RIFF\x00\x00\x00\x00WEBP", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8X", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8L\x00\x00\x00\x00/", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 \x00\x00\x00\x00\x00\x00\x00\x9d\x01\x2a", "image/webp"),
        (b"GIF89a", "image/gif"),
    ],
)
def test_a_cut_header_leaves_the_size_open(data: bytes, mime_type: str) -> None:
    """The type is known from the first bytes even where the size is not."""
    assert media.inspect(data) == media.Facts(mime_type, None, None)


@given(st.binary(max_size=200), st.sampled_from([b"", *(sample[:30] for sample in SAMPLES.values())]))
def test_no_bytes_upset_the_sniffer(noise: bytes, start: bytes) -> None:
    """Whatever the bytes, the answer is a value."""
    data = start + noise
    facts = media.inspect(data)
    assert facts is None or facts.mime_type in media.PICTURE_SUFFIXES.values()
    media.incomplete(data, data, len(data))
    assert "bytes" in media.describe(data)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"", "nothing"),
        (b" \n", "white space"),
        (b"  <!DOCTYPE html><p>", "HTML"),
        (b"\xef\xbb\xbf<html>", "HTML"),
        (b'<?xml version="1.0"?><svg/>', "SVG"),
        (b"<svg xmlns=''/>", "SVG"),
        (b'<?xml version="1.0"?><Error/>', "XML or other markup"),
        (b'{"error": 1}', "JSON"),
        (b"%PDF-1.7", "PDF"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"BM6\x00", "BMP or TIFF"),
        (b"not found\n", "plain text"),
        (b"\x00\x01\x02", "unknown data"),
        (b"\xff\xd8", "unknown data"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, name: str) -> None:
    """An error page or a document is called by what it looks like."""
    assert media.inspect(data) is None
    assert media.incomplete(data, data, len(data)) == f"not a picture but {name}"


@pytest.mark.parametrize(
    ("mime_type", "suffix"),
    [
        ("image/jpeg", ".jpg"),
        ("image/png", ".png"),
        ("image/webp", ".webp"),
        ("image/gif", ".gif"),
        ("image/avif", ".avif"),
    ],
)
def test_every_type_has_its_usual_suffix(mime_type: str, suffix: str) -> None:
    """The suffix is the one people expect, and it leads back to the type."""
    assert media.Facts(mime_type, None, None).suffix == suffix
    assert media.PICTURE_SUFFIXES[suffix] == mime_type


@given(st.binary(max_size=300))
def test_base64_goes_there_and_back(data: bytes) -> None:
    """What was encoded is decoded to the same bytes, in every tolerated form."""
    text = media.encode_base64(data).decode()
    broken = "\n".join(text[start : start + 5] for start in range(0, len(text), 5))
    for form in (text, text.encode(), text.rstrip("="), broken, f" {text}\r\n", f"data:image/png;base64,{text}"):
        assert media.decode_base64(form) == data


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "ab*=",
        "aGk_",
        "aGk-",
        "é",
        "aG=k",
        "aGk==",
        "aGk====",
        "=",
        "data:" + "x" * 400,
        "data:;base64,!",
        "aGVs\x00bG8=",
    ],
)
def test_what_is_not_base64_is_refused(text: str) -> None:
    """Characters outside the alphabet, wrong padding and impossible lengths raise, and the text is not repeated."""
    with pytest.raises(ValueError, match=r"^not base64: <") as caught:
        media.decode_base64(text)
    assert caught.value.__context__ is None


def without_the_fast_library() -> ModuleType:
    """Return the module as it is where the `speed` extra is not installed."""
    spec = importlib.util.find_spec("mirage_async.media")
    assert spec is not None
    assert spec.loader is not None
    plain = importlib.util.module_from_spec(spec)
    with patch.dict(sys.modules, {"pybase64": None}):
        spec.loader.exec_module(plain)
    return plain


def decoded(module: ModuleType, text: bytes) -> bytes | None:
    """Return the bytes, or None where the text is refused."""
    try:
        return cast("bytes", module.decode_base64(text))
    except ValueError:
        return None


PLAIN = without_the_fast_library()
ALMOST_BASE64 = st.text(alphabet='QUJD09+/== \n-"\\é', max_size=14).map(str.encode)


@given(text=ALMOST_BASE64)
def test_every_text_is_taken_or_refused_alike_without_the_fast_library(text: bytes) -> None:
    """The extra makes it fast, not different; strictness about padding and alphabet included."""
    assert decoded(PLAIN, text) == decoded(media, text)


@given(
    text=st.one_of(ALMOST_BASE64, st.binary(max_size=600).map(media.encode_base64)),
    prefix=st.sampled_from([b"", b"data:image/png;base64,", b" DATA:,", b"data:", b"data:" + b"x" * 249 + b","]),
    sizes=st.lists(st.integers(0, 9), min_size=1) | st.just([300]),
    module=st.sampled_from(["fast", "plain"]),
    expected=st.integers(0, 500),
)
def test_base64_in_parts_is_taken_or_refused_like_the_whole(
    text: bytes, prefix: bytes, sizes: list[int], module: str, expected: int
) -> None:
    """Wherever it is cut: in the prefix, in the padding, inside of four characters."""
    chosen = media if module == "fast" else PLAIN
    decoder = chosen.Base64Decoder(expected=expected)
    left = whole = prefix + text
    try:
        for size in (*sizes, *[max(sizes[-1], 1)] * len(whole)):
            decoder.feed(left[:size])
            left = left[size:]
        found: bytes | None = decoder.finish()
    except ValueError:
        found = None
    assert found == decoded(chosen, whole)


@pytest.mark.parametrize("chosen", [media, PLAIN], ids=["fast", "plain"])
def test_long_texts_in_lines_or_with_a_flaw_far_inside_are_taken_or_refused_like_the_whole(chosen: Any) -> None:
    """What was decoded before the flaw was met is forgotten again: the part can still be taken without it."""
    data = bytes(range(256)) * 1500
    text = base64.b64encode(data)
    lines = chosen.Base64Decoder()
    for start in range(0, 600_000, 1000):
        lines.feed(base64.encodebytes(data)[start : start + 1000])
    assert lines.finish() == data
    decoder = chosen.Base64Decoder()
    decoder.feed(text[:1002])
    assert not decoder.takes(text[1002:300_001] + b"-" + text[300_002:])
    assert decoder.takes(memoryview(text)[1002:])
    assert decoder.finish() == data


def test_the_standard_library_decodes_alike() -> None:
    """Without the fast library the same texts are taken and refused."""
    plain = PLAIN
    assert plain._decode_strictly is not media._decode_strictly
    assert plain.encode_base64(b"hello") == b"aGVsbG8="
    assert plain.decode_base64(" aGVs\nbG8 ") == b"hello"
    for wrong in ("a", "aG=k", "aGk_", "aGk====", "é"):
        with pytest.raises(ValueError, match=r"^not base64"):
            plain.decode_base64(wrong)


def test_a_data_url_names_the_type_of_its_bytes() -> None:
    """The type is read from the bytes unless one is given; unknown bytes are an octet stream."""
    png = SAMPLES["png"]
    assert media.parse_data_url(media.data_url(png)) == ("image/png", png)
    assert media.parse_data_url(media.data_url(png, "image/x-test")) == ("image/x-test", png)
    assert media.data_url(b"hi") == "data:application/octet-stream;base64,aGk="
    assert media.parse_data_url("DATA:Image/PNG;Base64,aGk=") == ("image/png", b"hi")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "data:image/png,aGk=",
        "data:;base64,aGk=",
        "data:image/png;charset=x;base64,aGk=",
        "http://x/y",
        "data:image/png;base64,?",
    ],
)
def test_other_data_urls_are_refused(text: str) -> None:
    """Only the one form with a type and base64 is taken; the message shows no payload."""
    with pytest.raises(ValueError, match=r"(not of the form|not base64).*characters>$"):
        media.parse_data_url(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (SAMPLES["png"], f"<{len(SAMPLES['png'])} bytes, image/png>"),
        (bytearray(b"secret"), "<6 bytes>"),
        ("data:image/png;base64,aGk=", "<data URL, 26 characters>"),
        ("https://u:secret@example.com/", "<https URL, 29 characters>"),
        ("HTTP://example.com", "<http URL, 18 characters>"),
        ("some text", "<str, 9 characters>"),
        (PurePosixPath("x.png"), "Path('x.png')"),
        (Path("a") / "b.png", f"Path({str(Path('a') / 'b.png')!r})"),
        (None, "None"),
        ([b"secret"], "<list>"),
        (5, "<int>"),
    ],
)
def test_descriptions_never_show_the_content(value: object, text: str) -> None:
    """A description has kind and length and nothing that could be secret or long."""
    assert media.describe(value) == text


def test_a_picture_shows_no_payload() -> None:
    """Neither `repr` nor rich's version of it repeats bytes or link."""
    loaded = media.Picture(data=SAMPLES["png"], label="mug", facts=media.inspect(SAMPLES["png"]))
    linked = media.Picture(url="https://example.com/?token=secret")
    assert repr(loaded) == f"Picture(<{len(SAMPLES['png'])} bytes, image/png>, label='mug')"
    assert repr(linked) == "Picture(<https URL, 33 characters>, label=None)"
    assert loaded.__rich_repr__() == [("label", "mug"), ("facts", loaded.facts)]
