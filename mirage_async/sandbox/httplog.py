"""The log of the HTTP server, without what its clients have done wrong."""

from __future__ import annotations

import logging

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError

__all__ = ["HTTP_LOGGER"]

_OWN_FAULT = 500


def _is_of_interest(record: logging.LogRecord) -> bool:
    """Tell whether a record is about anything but a request that cannot be read.

    Such a request has had its answer, or its connection has been closed; a traceback per request would bury whatever
    does go wrong here.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        return error.code >= _OWN_FAULT
    return not isinstance(error, RequestPayloadError)


HTTP_LOGGER = logging.getLogger("mirage_async.sandbox.http")
HTTP_LOGGER.addFilter(_is_of_interest)
