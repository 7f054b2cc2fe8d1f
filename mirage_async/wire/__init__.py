"""Codecs: one provider's HTTP as pure functions. No I/O, no clock, no aiohttp."""

from mirage_async.wire._callbacks import with_callback
from mirage_async.wire._checks import is_web_address, passed_id
from mirage_async.wire._errors import is_well_formed_error
from mirage_async.wire._message import Call, Form, Piece, Reply, Report, Submitted
from mirage_async.wire._quotes import read_unquoted
from mirage_async.wire._streaming import PictureReader

__all__ = [
    "Call",
    "Form",
    "PictureReader",
    "Piece",
    "Reply",
    "Report",
    "Submitted",
    "is_web_address",
    "is_well_formed_error",
    "passed_id",
    "read_unquoted",
    "with_callback",
]
