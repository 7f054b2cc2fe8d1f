"""The values people hold: what they show, and what they never show."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from mirage_async.exceptions import InputError, ServerError
from mirage_async.media import Facts
from mirage_async.models import (
    Avatar,
    AvatarStatus,
    GeneratedImage,
    Generation,
    ImageRequest,
    JobStatus,
    JobUpdate,
    Outcome,
    Pace,
    Reference,
    Timings,
)

pytestmark = pytest.mark.anyio

PROMPT = "a secret cat in a hat"


def encoded(kind: str, size: tuple[int, int] = (12, 7)) -> bytes:
    """Return a small picture."""
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, kind)
    return buffer.getvalue()


class FakeReader:
    """Fetches what it was given and remembers what it was asked to save."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self.reads = 0
        self.saved: list[tuple[Path, bool]] = []

    async def read(self, image: GeneratedImage) -> bytes:  # noqa: ARG002 - the port's signature
        """Give the bytes."""
        self.reads += 1
        return self.data

    async def save(
        self,
        image: GeneratedImage,  # noqa: ARG002 - the port's signature
        path: Path,
        *,
        overwrite: bool,
    ) -> Path:
        """Remember it."""
        self.saved.append((path, overwrite))
        return path


# --- pictures ---


async def test_a_link_is_read_once_and_kept() -> None:
    """Reading is lazy, fetches on first use, and learns type and size from the bytes."""
    reader = FakeReader(encoded("PNG"))
    image = GeneratedImage(reader, url="https://a.example/x", mime_type="image/jpeg")
    assert (image.data, image.width, image.height, image.mime_type) == (None, None, None, "image/jpeg")
    assert await image.read() == reader.data
    assert await image.read() == reader.data
    assert reader.reads == 1
    assert (image.data, image.width, image.height, image.mime_type) == (reader.data, 12, 7, "image/png")


async def test_bytes_that_came_with_the_answer_are_not_fetched() -> None:
    """A picture sent inline needs no reader."""
    reader = FakeReader()
    image = GeneratedImage(reader, data=encoded("WEBP"), revised_prompt="r", text="t", name="mira-1")
    assert (image.mime_type, image.width, image.height) == ("image/webp", 12, 7)
    assert (image.revised_prompt, image.text, image.name, image.url) == ("r", "t", "mira-1", None)
    assert await image.read() == image.data
    assert reader.reads == 0


def test_bytes_nobody_knows_keep_the_providers_word() -> None:
    """A header that says nothing changes nothing."""
    image = GeneratedImage(FakeReader(), data=b"unknown", mime_type="image/jpeg")
    assert (image.mime_type, image.width) == ("image/jpeg", None)
    image.note(Facts("image/png", 3, 4))
    assert (image.mime_type, image.width, image.height) == ("image/png", 3, 4)


async def test_saving_hands_a_path_to_the_reader() -> None:
    """Text and path objects both do; `overwrite` is off unless asked for."""
    reader = FakeReader()
    image = GeneratedImage(reader, url="https://a.example/x")
    assert await image.save("pictures/cat") == Path("pictures/cat")
    await image.save(Path("cat.png"), overwrite=True)
    assert reader.saved == [(Path("pictures/cat"), False), (Path("cat.png"), True)]


def test_a_pil_image_needs_bytes_that_are_here() -> None:
    """Before reading there is nothing to open; the message says what to do."""
    with pytest.raises(InputError, match=r"await image\.read\(\) before to_pil\(\)"):
        GeneratedImage(FakeReader(), url="https://a.example/x").to_pil()
    opened = GeneratedImage(FakeReader(), data=encoded("JPEG")).to_pil()
    assert (opened.format, opened.size) == ("JPEG", (12, 7))


@pytest.mark.parametrize(("kind", "mime_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_a_notebook_gets_the_bytes_of_what_it_can_show(kind: str, mime_type: str) -> None:
    """PNG and JPEG have a place of their own in the bundle."""
    image = GeneratedImage(FakeReader(), data=encoded(kind))
    assert image._repr_mimebundle_() == {"text/plain": repr(image), mime_type: image.data}


def test_a_notebook_gets_a_webp_as_html() -> None:
    """Other types travel inside a data URL."""
    bundle = GeneratedImage(FakeReader(), data=encoded("WEBP"))._repr_mimebundle_(include=None, exclude=None)
    assert set(bundle) == {"text/plain", "text/html"}
    assert str(bundle["text/html"]).startswith('<img src="data:image/webp;base64,')


def test_a_notebook_gets_a_link_as_html_with_nothing_to_break_out_of() -> None:
    """A link is escaped and tells its server nothing about the notebook."""
    bundle = GeneratedImage(FakeReader(), url='https://a.example/?a=1&b="><script>')._repr_mimebundle_()
    assert bundle["text/html"] == (
        '<img src="https://a.example/?a=1&amp;b=&quot;&gt;&lt;script&gt;" referrerpolicy="no-referrer">'
    )


def test_a_notebook_gets_text_where_there_is_nothing_else() -> None:
    """Neither bytes nor link: the repr alone."""
    image = GeneratedImage(FakeReader())
    assert image._repr_mimebundle_() == {"text/plain": "<GeneratedImage image unknown type unread>"}


# --- reprs ---


TALKATIVE: list[object] = [
    GeneratedImage(FakeReader(), data=encoded("PNG"), url="https://a.example/?sig=s3cr3t", text=PROMPT, name="x"),
    GeneratedImage(FakeReader(), url="https://a.example/?sig=s3cr3t", revised_prompt=PROMPT),
    Reference(encoded("PNG"), label="cat"),
    Reference("data:image/png;base64,iVBORw0KGgo" + "A" * 500),
    Reference("https://a.example/?sig=s3cr3t"),
    ImageRequest(prompt=PROMPT, provider="mira", references=(b"iVBORw0KGgo",), options={"note": PROMPT}),
    Generation(images=(GeneratedImage(FakeReader(), revised_prompt=PROMPT),), provider="mira", raw={"prompt": PROMPT}),
    Outcome(request=ImageRequest(prompt=PROMPT), error=ServerError("500", status=500, body=PROMPT)),
    Outcome(
        request=ImageRequest(prompt=PROMPT),
        generation=Generation(images=(), provider="mira", raw={"prompt": PROMPT}),
    ),
]
TALKATIVE_IDS = ["picture", "link", "bytes", "data url", "url", "request", "generation", "outcome error", "outcome"]


@pytest.mark.parametrize("value", TALKATIVE, ids=TALKATIVE_IDS)
def test_no_repr_holds_a_prompt_a_payload_or_a_secret(value: object) -> None:
    """Reprs end up in logs and tracebacks."""
    shown = repr(value)
    assert len(shown) < 300
    assert not any(word in shown for word in ("secret", "s3cr3t", "iVBOR", "PNG\\r", "AAAA"))


@pytest.mark.parametrize("value", TALKATIVE, ids=TALKATIVE_IDS)
def test_no_rich_repr_holds_a_prompt_or_a_payload(value: object) -> None:
    """Rich asks a struct for all its fields, for its tracebacks too, unless the struct says otherwise."""
    shown = str(list(getattr(value, "__rich_repr__", list)()))
    assert not any(word in shown for word in ("secret", "s3cr3t", "iVBOR", "PNG\\r", "AAAA"))


def test_reprs_tell_what_one_looks_for() -> None:
    """Provider, id, counts and sizes."""
    image = GeneratedImage(FakeReader(), data=encoded("PNG"), name="mira-1")
    assert repr(image) == "<GeneratedImage mira-1 image/png 12x7>"
    assert repr(Generation(images=(image,), provider="mira", key="k", requested=4)) == "<Generation mira k 1 of 4>"
    assert repr(Generation(images=(image,), provider="miragic", job_id="j1")) == "<Generation miragic j1 1 of 1>"
    assert repr(ImageRequest(prompt="cat", provider="mira")) == ("ImageRequest(provider='mira', prompt=<3 characters>)")
    assert repr(Reference(Path("cat.png"), label="cat")) == "Reference(Path('cat.png'), label='cat')"


# --- values ---


def test_the_first_picture_is_the_image() -> None:
    """`image` is short for `images[0]`."""
    images = (GeneratedImage(FakeReader()), GeneratedImage(FakeReader()))
    assert Generation(images=images, provider="mira").image is images[0]


@pytest.mark.parametrize(
    "value",
    [
        JobUpdate(status=JobStatus.QUEUED),
        ImageRequest(prompt="cat"),
        Pace(first=1, interval=1, maximum=1, max_wait=1),
        Timings(),
        Generation(images=(), provider="mira"),
        Avatar(id="a", name="n", status=AvatarStatus.READY),
        Outcome(request=ImageRequest(prompt="cat")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_do_not_change(value: Any) -> None:
    """Everything that is handed out is frozen."""
    with pytest.raises(AttributeError):
        setattr(value, value.__struct_fields__[0], None)


def test_two_generations_are_never_the_same() -> None:
    """Generations and outcomes compare by identity, so they can be keys."""
    generations = {Generation(images=(), provider="mira") for _ in range(2)}
    outcomes = {Outcome(request=ImageRequest(prompt="cat")) for _ in range(2)}
    assert (len(generations), len(outcomes)) == (2, 2)


def test_four_states_are_terminal() -> None:
    """Uncertain is none of them: something may still heal it."""
    assert {status.value for status in JobStatus if status.terminal} == {"succeeded", "failed", "cancelled", "expired"}


def test_an_avatar_of_a_new_status_keeps_the_word() -> None:
    """Words this version does not know are text; known ones equal theirs."""
    created = datetime(2026, 1, 1, tzinfo=UTC)
    avatar = Avatar(id="a", name="n", status="PONDERING", created_at=created)
    assert (avatar.status, avatar.themes, avatar.created_at) == ("PONDERING", (), created)
    assert AvatarStatus("READY") == "READY"


def test_a_request_can_be_changed_as_a_copy() -> None:
    """Requests are values: a change makes another one."""
    request = ImageRequest(prompt="cat", n=2)
    assert msgspec.structs.replace(request, n=3) == ImageRequest(prompt="cat", n=3)
    assert request.n == 2
