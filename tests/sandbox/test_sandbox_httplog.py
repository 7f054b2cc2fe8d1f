"""The HTTP server's log: silent about its clients' mistakes, and not about its own."""

from __future__ import annotations

import pytest
from aiohttp.http_exceptions import BadStatusLine, HttpProcessingError
from aiohttp.web import RequestPayloadError

from mirage_async.sandbox.httplog import HTTP_LOGGER


@pytest.mark.parametrize(
    "error", [BadStatusLine("TLS"), HttpProcessingError(code=400, message="no"), RequestPayloadError("cut short")]
)
def test_a_request_that_cannot_be_read_is_not_logged(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever sent it has been told."""
    HTTP_LOGGER.error("Error handling request", exc_info=error)
    assert caplog.records == []


@pytest.mark.parametrize("error", [None, ValueError("no"), HttpProcessingError(code=500, message="no")])
def test_a_fault_of_the_server_is_logged(error: Exception | None, caplog: pytest.LogCaptureFixture) -> None:
    """Everything else is kept, with its traceback."""
    HTTP_LOGGER.error("Error handling request", exc_info=error)
    (record,) = caplog.records
    assert (record.name, record.exc_info and record.exc_info[1]) == ("mirage_async.sandbox.http", error)
