"""What `media` reads out of bytes, and that it never takes a cut picture for a whole one."""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mirage_async import media


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

JPEG_START = b"\xff\xd8"


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


@pytest.mark.parametrize("name", SAMPLES)
def test_a_beginning_that_shows_all_leads_to_the_same_verdict_as_the_whole(name: str) -> None:
    """Whatever it is cut down to: what a longer one would add concerns neither the size nor the wholeness."""
    data = SAMPLES[name]
    enough = [length for length in range(64, len(data) + 1) if media.shows_all(data[:length])]
    for length in enough:
        assert media.inspect(data[:length]) == media.inspect(data)
        for end in (len(data), len(data) - 1, len(data) - 30):
            assert media.incomplete(data[:length], data[:end][-64:], end) == media.incomplete(
                data[:end], data[:end], end
            )
    assert bool(enough) == (name != "avif")  # nothing in front of those tells a size


def test_a_beginning_with_a_thumbnail_or_nothing_but_metadata_does_not_show_all() -> None:
    """It shows where the picture itself begins, or more of it is wanted; of what is no picture no more is."""
    metadata = b"\xff\xe1\xff\xff" + bytes(65533)
    assert not media.shows_all(JPEG_START + metadata[:8000])
    assert not media.shows_all(JPEG_START + metadata * 2)
    assert media.shows_all(JPEG_START + metadata + picture("JPEG")[2:])
    sized = picture("JPEG").partition(b"\xff\xda")[0]
    assert media.inspect(sized) == media.Facts("image/jpeg", 33, 17)
    assert not media.shows_all(sized + metadata)
    assert media.shows_all(b"<html>" + b"x" * 8000)


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
