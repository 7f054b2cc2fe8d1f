"""Whatever a caller offers as a picture becomes bytes with a known type, or a link; everything else a clear no."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import anyio
import pytest
from PIL import Image

from mirage_async.clients import _inputs
from mirage_async.clients._inputs import load, load_all
from mirage_async.exceptions import InputError
from mirage_async.media import Facts, Picture
from mirage_async.models import Reference

pytestmark = pytest.mark.anyio


def encoded(kind: str, mode: str = "RGB") -> bytes:
    """Return a small picture."""
    buffer = io.BytesIO()
    Image.new(mode, (12, 7)).save(buffer, kind)
    return buffer.getvalue()


PNG, JPEG, WEBP = encoded("PNG"), encoded("JPEG"), encoded("WEBP")


async def loaded(value: Any) -> Picture:
    """Load one picture as a client does."""
    with anyio.fail_after(30):
        return await load("image", value, provider="mirako")


async def refused(value: Any) -> str:
    """Return the message with which a value is refused; it names the parameter and says what was expected."""
    with anyio.fail_after(30), pytest.raises(InputError, match=r"^image(\[\d\])? must be ") as caught:
        await load("image", value, provider="mirako")
    assert (caught.value.provider, caught.value.billed) == ("mirako", "no")
    return str(caught.value)


# --- what is taken ---


@pytest.mark.parametrize(("data", "mime_type"), [(PNG, "image/png"), (JPEG, "image/jpeg"), (WEBP, "image/webp")])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_bytes_of_any_kind_tell_their_own_type(data: bytes, mime_type: str, kind: type[Any]) -> None:
    """The type is read from the bytes."""
    picture = await loaded(kind(data))
    assert picture == Picture(data=data, facts=Facts(mime_type, 12, 7))
    assert isinstance(picture.data, bytes)


async def test_a_path_is_read_and_its_name_means_nothing(tmp_path: Path) -> None:
    """A JPEG called .png is a JPEG."""
    path = tmp_path / "wrong.png"
    path.write_bytes(JPEG)
    picture = await loaded(path)
    assert picture.data == JPEG
    assert picture.facts is not None
    assert picture.facts.mime_type == "image/jpeg"


async def test_any_path_object_will_do(tmp_path: Path) -> None:
    """What has `__fspath__` is a path."""

    class Place:
        def __fspath__(self) -> str:
            return str(tmp_path / "x.png")

    (tmp_path / "x.png").write_bytes(PNG)
    assert (await loaded(Place())).data == PNG


@pytest.mark.parametrize("declared", ["image/png", "image/jpeg", "IMAGE/PNG", "application/octet-stream"])
async def test_a_data_url_is_decoded_and_its_declared_type_means_nothing(declared: str) -> None:
    """The bytes decide here as well."""
    picture = await loaded(f"data:{declared};base64,{base64.b64encode(PNG).decode()}")
    assert (picture.data, picture.facts) == (PNG, Facts("image/png", 12, 7))


@pytest.mark.parametrize("url", ["https://a.example/x.png", "http://a.example/x?sig=1"])
async def test_a_link_travels_as_it_is(url: str) -> None:
    """Nothing is fetched here."""
    assert await loaded(url) == Picture(url=url)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "1", "I;16"])
async def test_a_pil_image_becomes_a_png(mode: str) -> None:
    """Every mode PIL has becomes a PNG of the same size."""
    picture = await loaded(Image.new(mode, (12, 7)))
    assert picture.facts == Facts("image/png", 12, 7)
    opened = Image.open(io.BytesIO(picture.data or b""))
    assert opened.mode == (mode if mode in {"1", "RGB", "RGBA", "L", "P"} else "RGB")


async def test_a_pil_image_keeps_its_transparency() -> None:
    """Grey with alpha is a mode PNG has."""
    picture = await loaded(Image.new("LA", (12, 7), (200, 0)))
    opened = Image.open(io.BytesIO(picture.data or b""))
    assert opened.convert("RGBA").getpixel((0, 0)) == (200, 200, 200, 0)


@pytest.mark.parametrize("data", [PNG, "https://a.example/x.png"])
async def test_a_reference_adds_its_label(data: bytes | str) -> None:
    """The label goes along, whatever is inside."""
    picture = await loaded(Reference(data, label="cat"))
    assert picture.label == "cat"
    assert (picture.url or picture.data) == data


# --- what is refused ---


async def test_a_bare_string_is_never_opened_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A form field with a file name in it must not become an upload; the message neither opens nor repeats it."""
    path = tmp_path / "x.png"
    path.write_bytes(PNG)
    monkeypatch.chdir(tmp_path)
    for text in (str(path), "x.png", "./x.png", "~/x.png", f"file://{path}", "", "ftp://a.example/x.png"):
        message = await refused(text)
        assert "must be a data URL or an http(s) URL where it is a str" in message
        assert "for a file pass pathlib.Path(...)" in message
        assert "x.png" not in message


@pytest.mark.parametrize(
    "url", ["data:", "data:image/png,abc", "data:image/png;base64,!!!", "data:;base64,AAAA", "data:image/png;base64,A"]
)
async def test_a_damaged_data_url_is_refused_without_repeating_it(url: str) -> None:
    """Only its kind and length are told."""
    message = await refused(url + "A" * 40 if url.endswith(",abc") else url)
    assert "must be a whole data URL; got <data URL" in message
    assert "AAAA" not in message


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"<html></html>", b'{"error": "x"}', b"\x00" * 100, b"%PDF-1.7"],
    ids=["nothing", "text", "page", "json", "noise", "pdf"],
)
async def test_bytes_that_are_no_picture_are_refused(data: bytes, tmp_path: Path) -> None:
    """As bytes, as a file, as a data URL: a text file is no picture."""
    path = tmp_path / "x.png"
    path.write_bytes(data)
    assert f"got <{len(data)} bytes>, which is none" in await refused(data)
    assert f"got Path({str(path)!r}), which is none" in await refused(path)
    if data:
        message = await refused(f"data:image/png;base64,{base64.b64encode(data).decode()}")
        assert "got <data URL" in message


async def test_an_oversize_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is looked at first; a file of several gigabytes costs nothing."""
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(_inputs.LARGEST_FILE + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))
    assert "must be a file of at most 67108864 bytes" in await refused(path)


async def test_a_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    """Missing files and folders are input errors in the system's own words."""
    assert "No such file or directory" in await refused(tmp_path / "missing.png")
    assert "which is no regular file" in await refused(tmp_path)


@pytest.mark.parametrize("value", [None, 5, 1.5, object(), ["x"], {"data": "x"}, (1, 2)])
async def test_anything_else_is_refused_by_its_type(value: Any) -> None:
    """The message lists what is taken."""
    message = await refused(value)
    assert message.endswith(f"got {type(value).__name__}")
    assert "bytes, a pathlib.Path, a data URL, an http(s) URL, a PIL image or a Reference" in message


# --- several ---


async def test_several_pictures_keep_their_order() -> None:
    """Lists, tuples and generators of different kinds."""
    values: list[Any] = [PNG, Reference(JPEG, label="b"), "https://a.example/c"]
    for offered in (values, tuple(values), iter(values)):
        pictures = await load_all("images", offered, provider="mirako", at_most=3)
        assert [picture.data or picture.url for picture in pictures] == [PNG, JPEG, "https://a.example/c"]
    assert await load_all("images", (), provider="mirako", at_most=3) == ()


async def test_too_many_are_refused_before_the_first_is_read(tmp_path: Path) -> None:
    """The count comes first."""
    with pytest.raises(InputError, match=r"images must be at most 2 pictures; got 3"):
        await load_all("images", [tmp_path / "missing"] * 3, provider="mirako", at_most=2)


async def test_the_bad_one_among_several_is_named() -> None:
    """The message has its index."""
    with pytest.raises(InputError, match=r"images\[1\] must be a picture"):
        await load_all("images", [PNG, b"text"], provider="mirako", at_most=5)


@pytest.mark.parametrize("value", [PNG, "https://a.example/x.png", Path("x.png"), Reference(PNG)])
async def test_a_single_picture_is_no_sequence(value: Any) -> None:
    """A forgotten pair of brackets is said so, instead of iterating over letters."""
    with pytest.raises(InputError, match=r"images must be a sequence of pictures; got a single .*: write \[picture\]"):
        await load_all("images", value, provider="mirako", at_most=5)


@pytest.mark.parametrize("value", [Image.new("RGB", (12, 7)), bytearray(PNG), memoryview(PNG), None, 5])
async def test_what_is_no_sequence_at_all_is_refused_as_well(value: Any) -> None:
    """Every other single value gets the same clear no."""
    with pytest.raises(InputError, match=r"images must be a sequence of pictures; got"):
        await load_all("images", value, provider="mirako", at_most=5)
