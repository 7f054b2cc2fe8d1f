"""What passes between the codecs and the rest: requests and replies as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mirage_async import media
from mirage_async.models import Avatar, JobStatus

__all__ = ["Call", "Form", "Piece", "Reply", "Report", "Submitted"]

JSON_LIMIT = 1 << 20  # no answer without picture data is anywhere near 1 MiB
PICTURE_LIMIT = 40 << 20  # base64 of the largest picture we accept (32 MiB decoded is 43 MB, no provider comes near)


class _Unshown(msgspec.Struct, frozen=True):
    """Shows nothing of itself to rich, whose tracebacks print local variables; each class has a short repr."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class Form(_Unshown, frozen=True):
    """Fields to be sent as multipart/form-data, in order."""

    fields: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        """Name the fields only; what they hold may be a prompt."""
        return f"<Form {', '.join(name for name, _ in self.fields)}>"


class Call(_Unshown, frozen=True, kw_only=True, gc=False):
    """One HTTP request, ready to leave, without address and key: the transport adds those.

    Attributes:
        method: "GET" or "POST".
        path: begins with a slash; holds no characters that need escaping.
        body: the encoded body, fields for a multipart body, or None.
        content_type: of `body` where it is bytes.
        max_reply_bytes: how much of the decoded answer is read before giving up.
        picture_fields: names of the answer's fields that hold pictures as base64; these may be decoded on the way in.
        private: texts of the caller's, such as the prompt, that must not come back inside an error.
        callback: of these, the ones that say where to call back; they are others each time the same is asked for.
        label: of these, the one that the provider will list the result under, or None.
    """

    method: str
    path: str
    body: bytes | Form | None = None
    content_type: str | None = None
    max_reply_bytes: int = JSON_LIMIT
    picture_fields: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    callback: tuple[str, ...] = ()
    label: str | None = None

    def __repr__(self) -> str:
        """Leave the body out; it holds the prompt."""
        return f"<Call {self.method} {self.path}>"


class Reply(_Unshown, frozen=True, kw_only=True, gc=False):
    """One HTTP answer, read whole.

    Attributes:
        status: the HTTP status.
        headers: looked up by lower-case names; a case-insensitive mapping works too.
        body: the decoded bytes.
        received_at: seconds since the epoch on our clock, the fallback for dates in headers.
        pictures: those decoded on the way in, by the JSON that stands in their place; None is for no picture. An
            answer may just as well hold the base64 itself.
    """

    status: int
    headers: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    body: bytes = b""
    received_at: float = 0.0
    pictures: Mapping[bytes, bytes | None] = msgspec.field(default_factory=dict[bytes, bytes | None])

    def __repr__(self) -> str:
        """Leave headers and body out; either may repeat what was asked."""
        return f"<Reply {self.status}, {len(self.body)} bytes>"


class Piece(_Unshown, frozen=True, kw_only=True):
    """One picture as a provider hands it over: bytes, or a link.

    Attributes:
        data: the picture's bytes, or None where there is a link.
        url: the link, or None where there are bytes.
        mime_type: what the provider says it is, or None.
        file_size: bytes, where the provider says so.
        revised_prompt: the prompt really used.
        text: what the model said beside the picture.
        facts: what the header of the bytes says; set from `data`, whatever is passed.
        flaw: why the bytes are no whole picture; None where nothing speaks against them, or where there are none. Set
            from `data` as well.
    """

    data: bytes | None = None
    url: str | None = None
    mime_type: str | None = None
    file_size: int | None = None
    revised_prompt: str | None = None
    text: str | None = None
    facts: media.Facts | None = None
    flaw: str | None = None

    def __post_init__(self) -> None:
        """Look at the bytes, once for all who want to know."""
        facts, flaw = (None, None) if self.data is None else media.appraise(self.data)
        msgspec.structs.force_setattr(self, "facts", facts)
        msgspec.structs.force_setattr(self, "flaw", flaw)

    def __repr__(self) -> str:
        """Say what there is without showing it."""
        return f"<Piece {'link' if self.data is None else f'{len(self.data)} bytes'}>"


class Report(_Unshown, frozen=True, kw_only=True):
    """What a provider says about one job, translated.

    Attributes:
        status: where it stands, or None for a word this version does not know (then the wait goes on).
        word: the provider's own word.
        progress: share done, 0 to 1, or None.
        pieces: the pictures of a finished job. A report that says `SUCCEEDED` with neither pieces nor avatar is
            hollow: the provider claims success without a usable result, and `reason` says what is wrong with it.
        temporary: whether the document calls the links short-lived.
        avatar: the avatar, for a build.
        reason: why a job failed, in the provider's words, or what makes the report hollow.
        credits: what was charged, in the provider's unit.
        took: seconds from acceptance to the end of a finished job by the provider's own clock, above 0, or None.
        retry_after: seconds the provider asks to leave the job alone, or None. A webhook, a new wait and the last look
            before the end of one come all the same.
        raw: the decoded answer without picture data; may be left empty while the job goes on.
    """

    status: JobStatus | None
    word: str = ""
    progress: float | None = None
    pieces: tuple[Piece, ...] = ()
    temporary: bool = False
    avatar: Avatar | None = None
    reason: str | None = None
    credits: float | None = None
    took: float | None = None
    retry_after: float | None = None
    raw: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])

    def __repr__(self) -> str:
        """Leave `raw` out; it may repeat the prompt."""
        return f"<Report {self.word or self.status} with {len(self.pieces)} pieces>"


class Submitted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The provider has accepted a job.

    Attributes:
        id: its id for status calls, checked to be harmless in a path.
        report: the state it announced along with the id, or None where it announced none.
    """

    id: str
    report: Report | None = None

    @property
    def reason(self) -> str | None:
        """What the report gives as its reason."""
        return None if self.report is None else self.report.reason
