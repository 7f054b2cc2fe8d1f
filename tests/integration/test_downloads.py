"""Downloads against real servers on this machine: retries, wholeness, renewal, sharing, closing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest
from aiohttp import web
from picture_servers import JPEG, LARGE, PNG, Gate, QuickClock, linked, serving, serving_raw

from mirage_async import _fetching, downloads
from mirage_async.downloads import Downloader
from mirage_async.exceptions import ClosedError, DownloadError, DownloadExpiredError, ServerError
from mirage_async.models import GeneratedImage
from mirage_async.wire import Piece

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> QuickClock:
    """Return the clock the downloader of the test waits on."""
    return QuickClock()


@pytest.fixture
async def downloader(clock: QuickClock) -> AsyncIterator[Downloader]:
    """Return a downloader that is closed after the test."""
    downloader = Downloader(clock=clock, limit=4, max_bytes=8 << 20)
    yield downloader
    await downloader.aclose()


# -- reading ---------------------------------------------------------------------------------------------------------


async def test_a_link_is_read_once_and_its_facts_are_noted(downloader: Downloader) -> None:
    """The bytes come back whole, type and size are read from them, and a second read needs no request."""
    async with serving((200, PNG)) as server:
        image = linked(downloader, server.url, mime_type="image/jpeg", file_size=len(PNG))
        assert await image.read() == PNG
        assert await image.read() == PNG
        assert await downloader.read(image) == PNG
        assert (image.mime_type, image.width, image.height) == ("image/png", 40, 30)
        assert len(server.requests) == 1


async def test_requests_carry_no_credentials_and_ask_for_plain_bytes(downloader: Downloader) -> None:
    """No cookie and no authorization travels, and no compression is asked for."""
    async with serving((503, b"", {"Set-Cookie": "a=b"}), (200, PNG)) as server:
        await linked(downloader, server.url).read()
        headers = server.requests[-1].headers
        assert headers["Accept-Encoding"] == "identity"
        assert not {"Cookie", "Authorization", "X-API-Key", "Proxy-Authorization"} & set(headers)


async def test_inline_bytes_need_no_link(downloader: Downloader) -> None:
    """A picture that came as bytes is read and saved without a request."""
    image = downloader.image(Piece(data=JPEG, text="hi"), name="n", provider="mira", allow_private=False, renew=None)
    assert await image.read() == JPEG
    assert image.text == "hi"


async def test_a_picture_with_neither_bytes_nor_link_says_so(downloader: Downloader) -> None:
    """An empty piece is an error of ours, not a crash."""
    image = GeneratedImage(downloader)
    with pytest.raises(DownloadError, match="neither bytes nor a link"):
        await image.read()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_a_busy_server_is_asked_again(downloader: Downloader, clock: QuickClock, status: int) -> None:
    """Four refusals in a row are no reason to give up, and the waits grow."""
    async with serving((status, b""), (status, b""), (status, b""), (status, b""), (200, PNG)) as server:
        assert await linked(downloader, server.url).read() == PNG
        assert len(server.requests) == 5
        assert clock.slept == sorted(clock.slept)
        assert sum(clock.slept) < 60


async def test_attempts_end_within_a_minute(downloader: Downloader, clock: QuickClock) -> None:
    """A server that never recovers is asked at least five times, then the error tells the last reason."""
    async with serving((500, b"")) as server:
        with pytest.raises(DownloadError, match=r"not fetched in 8 attempts, last: the server answers 500") as caught:
            await linked(downloader, server.url).read()
        assert len(server.requests) == 8
        assert sum(clock.slept) < 60
        assert caught.value.provider == "milady"
        assert caught.value.url == server.url.partition("?")[0]
        assert "secret" not in repr(caught.value)
        assert caught.value.__context__ is None


async def test_retry_after_is_the_least_to_wait(downloader: Downloader, clock: QuickClock) -> None:
    """The server's wish is honoured where it fits into the minute."""
    async with serving((429, b"", {"Retry-After": "20"}), (200, PNG)) as server:
        await linked(downloader, server.url).read()
        assert clock.slept[0] >= 20


async def test_an_overlong_retry_after_does_not_end_the_attempts(downloader: Downloader, clock: QuickClock) -> None:
    """A wish that does not fit into the minute gives way to our own delays."""
    async with serving((503, b"", {"Retry-After": "3600"})) as server:
        with pytest.raises(DownloadError, match=r"not fetched in \d+ attempts"):
            await linked(downloader, server.url).read()
        assert len(server.requests) >= 5
        assert max(clock.slept) < 60


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (PNG[:-1], "has no IEND chunk"),
        (PNG[: len(PNG) // 2], "has no IEND chunk"),
        (JPEG[:-2], "has no end marker"),
        (b"<html>soon", "not a picture but HTML"),
        (b'{"error": "x"}', "not a picture but JSON"),
        (b"<svg/>", "not a picture but SVG"),
        (b"", "not a picture but nothing"),
    ],
)
async def test_what_is_not_whole_is_fetched_again(downloader: Downloader, body: bytes, reason: str) -> None:
    """A cut picture or an error page with status 200 is tried again, and never handed over."""
    async with serving((200, body), (200, PNG)) as server:
        assert await linked(downloader, server.url).read() == PNG
    async with serving((200, body)) as server:
        with pytest.raises(DownloadError, match=reason):
            await linked(downloader, server.url).read()


async def test_little_of_a_picture_takes_the_way_of_heads(
    downloader: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the connection has just brought another picture, in large pieces: what comes with a head is copied."""
    copied: list[int] = []
    add = _fetching._Seen.add

    def noted(seen: _fetching._Seen, piece: bytes | memoryview) -> None:
        if isinstance(piece, bytes):
            copied.append(len(piece))
        add(seen, piece)

    monkeypatch.setattr(_fetching._Seen, "add", noted)
    async with serving((200, LARGE)) as server:
        for _ in range(3):
            assert await linked(downloader, server.url).read() == LARGE
        assert len({request.transport for request in server.requests}) == 1
    assert len(copied) <= 2 * 3
    assert max(copied) <= 64 << 10


@pytest.mark.parametrize("metadata", [5_000, 60_000, 200_000])
@pytest.mark.parametrize("step", [700, 8 << 10, 100_000, 1 << 20])
async def test_a_size_behind_much_metadata_is_found(
    downloader: Downloader, tmp_path: Path, metadata: int, step: int
) -> None:
    """However it is cut on its way; and a picture that ends with a thumbnail in its metadata is not whole."""
    fields = [bytes(metadata // 4)] * 4 + [JPEG + bytes(100)]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(field) + 2) + field for field in fields)
    whole = JPEG[:2] + segments + JPEG[2:]
    cut = whole[: 2 + len(segments) - 100]

    async def in_parts(request: web.BaseRequest) -> web.StreamResponse:
        body = whole if len(server.requests) > 1 else cut
        response = web.StreamResponse()
        response.content_length = len(body)
        await response.prepare(request)
        for start in range(0, len(body), step):
            await response.write(body[start : start + step])
        return response

    async with serving(in_parts) as server:
        image = linked(downloader, server.url)
        assert (await image.save(tmp_path / "x.jpg")).read_bytes() == whole
        assert (image.mime_type, image.width, image.height) == ("image/jpeg", 40, 30)
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(PNG) + 1) + PNG,
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PNG) + PNG[:100],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(PNG) + PNG + b"\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + PNG[:-4],
        b"garbage\r\n\r\n",
        b"",
    ],
    ids=["shorter than declared", "cut", "chunked without end", "cut without length", "no HTTP", "hangs up"],
)
async def test_a_cut_answer_is_an_error(downloader: Downloader, clock: QuickClock, head: bytes) -> None:
    """However the connection breaks, the picture counts as not fetched, and was tried again."""
    async with serving_raw(head) as url:
        with pytest.raises(DownloadError, match=r"not fetched in 8 attempts") as caught:
            await linked(downloader, url).read()
    assert len(clock.slept) == 7
    assert caught.value.__context__ is None


async def test_a_refused_connection_is_tried_again(downloader: Downloader, clock: QuickClock) -> None:
    """Nobody listening is trouble with the connection."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{holder.getsockname()[1]}/"
        with pytest.raises(DownloadError, match=r"ClientConnectorError"):
            await linked(downloader, url).read()
    assert len(clock.slept) == 7


async def test_a_body_that_drips_is_given_up(
    downloader: Downloader, clock: QuickClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt has a bound of its own, since a byte now and then keeps every silence short."""
    monkeypatch.setattr(_fetching, "ATTEMPT_BOUND", 0.05)
    monkeypatch.setattr(downloads, "TRIES", 2)

    async def drip(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for byte in PNG:
                await response.write(bytes([byte]))
                await asyncio.sleep(0.01)
        return response

    async with serving(drip) as server:
        with pytest.raises(DownloadError, match=r"not fetched in 2 attempts, last: not finished within 0.05 s"):
            await linked(downloader, server.url).read()
        assert len(clock.slept) == 1


@pytest.mark.parametrize(("bound", "sent"), [("HEAD_BOUND", None), ("SILENCE_BOUND", PNG[:-1])])
async def test_a_server_that_falls_silent_is_given_up(
    downloader: Downloader, clock: QuickClock, monkeypatch: pytest.MonkeyPatch, bound: str, sent: bytes | None
) -> None:
    """Before the head of its answer or in the midst of the body."""
    monkeypatch.setattr(_fetching, bound, 0.05)
    monkeypatch.setattr(downloads, "TRIES", 2)
    over = asyncio.Event()

    async def silent(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        if sent is not None:
            await response.prepare(request)
            await response.write(sent)
        await over.wait()
        return response

    async with serving(silent) as server:
        with pytest.raises(DownloadError, match=r"not fetched in 2 attempts, last: TimeoutError"):
            await linked(downloader, server.url).read()
        assert len(clock.slept) == 1
        over.set()


async def test_a_disk_that_takes_its_time_is_no_silence(
    downloader: Downloader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The silence counted is the server's: nothing is looked at while a chunk is being written."""
    monkeypatch.setattr(_fetching, "SILENCE_BOUND", 0.05)
    wait_for = downloads._FileSink.wait_for

    async def slowly(sink: downloads._FileSink, piece: bytes) -> None:
        await asyncio.sleep(0.2)
        await wait_for(sink, piece)

    monkeypatch.setattr(downloads._FileSink, "wait_for", slowly)
    monkeypatch.setattr(downloads._Disk, "waits", True)
    async with serving((200, PNG)) as server:
        await linked(downloader, server.url).save(tmp_path / "x.png")
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [204, 206, 304, 400, 405, 418, 451])
async def test_other_answers_end_it_at_once(downloader: Downloader, clock: QuickClock, status: int) -> None:
    """What another attempt cannot mend is told at once."""
    async with serving((status, b"")) as server:
        with pytest.raises(DownloadError, match=f"the server answers {status}: http") as caught:
            await linked(downloader, server.url).read()
        assert type(caught.value) is DownloadError
        assert caught.value.provider == "milady"
        assert "secret" not in str(caught.value)
    assert clock.slept == []


async def test_a_compressed_answer_is_refused(downloader: Downloader) -> None:
    """Compression was not asked for, so nothing here unpacks it."""
    async with serving((200, b"x", {"Content-Encoding": "gzip"})) as server:
        with pytest.raises(DownloadError, match=r"the server sends 'gzip' though"):
            await linked(downloader, server.url).read()


async def test_a_picture_that_declares_too_much_is_refused(clock: QuickClock) -> None:
    """The declared length decides before a byte of the body is read."""
    downloader = Downloader(clock=clock, max_bytes=len(PNG) - 1)
    async with serving((200, PNG)) as server:
        with pytest.raises(DownloadError, match=f"larger than {len(PNG) - 1} bytes"):
            await linked(downloader, server.url).read()
        assert len(server.requests) == 1
    await downloader.aclose()


async def test_an_endless_body_is_stopped(clock: QuickClock) -> None:
    """Without a declared length the bytes are counted as they come, and the connection is closed."""
    downloader = Downloader(clock=clock, max_bytes=1 << 20)
    stopped = asyncio.Event()

    async def flood(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(bytes(1 << 16))
        stopped.set()
        return response

    async with serving(flood) as server:
        with pytest.raises(DownloadError, match=r"larger than 1048576 bytes"):
            await linked(downloader, server.url).read()
        with anyio.fail_after(30):
            await stopped.wait()
    await downloader.aclose()


async def test_another_size_than_announced_is_logged_not_refused(
    downloader: Downloader, caplog: pytest.LogCaptureFixture
) -> None:
    """Storage may have re-encoded a picture; what is whole is taken."""
    caplog.set_level(logging.INFO, "mirage_async")
    async with serving((200, PNG)) as server:
        assert await linked(downloader, server.url, file_size=5).read() == PNG
    assert f"a whole picture of {len(PNG)} bytes, announced were 5" in caplog.text


# -- links that have run out -----------------------------------------------------------------------------------------


def renewing(*links: str | Exception | None) -> tuple[Callable[[], Awaitable[str | None]], list[object]]:
    """Return a `renew` that hands out these links, and the list of its calls."""
    left, calls = list(links), list[object]()

    async def renew() -> str | None:
        calls.append(None)
        link = left.pop(0)
        if isinstance(link, Exception):
            raise link
        return link

    return renew, calls


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_a_link_that_ran_out_is_asked_for_again(downloader: Downloader, status: int) -> None:
    """The job gives a fresh link, the download goes on with it, and the picture keeps it."""
    async with serving((status, b"")) as old, serving((200, PNG)) as new:
        renew, calls = renewing(new.url)
        image = linked(downloader, old.url, renew=renew)
        assert await image.read() == PNG
        assert image.url == new.url
        assert (len(calls), len(old.requests), len(new.requests)) == (1, 1, 1)


@pytest.mark.parametrize("fresh", [False, True], ids=["no way", "none to be had"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, DownloadError), (403, DownloadExpiredError), (404, DownloadExpiredError), (410, DownloadExpiredError)],
)
async def test_without_a_fresh_link_it_has_expired(
    downloader: Downloader, status: int, kind: type[DownloadError], *, fresh: bool
) -> None:
    """The error says that the link no longer works, at once."""
    async with serving((status, b"")) as server:
        renew = renewing(None)[0] if fresh else None
        with pytest.raises(DownloadError, match=f"no longer works.*{status}") as caught:
            await linked(downloader, server.url, renew=renew).read()
        assert type(caught.value) is kind
        assert caught.value.provider == "milady"
        assert len(server.requests) == 1


async def test_a_fresh_link_that_fails_alike_has_expired(downloader: Downloader) -> None:
    """The job is asked once a download, not for ever."""
    async with serving((404, b"")) as server:
        renew, calls = renewing(server.url)
        with pytest.raises(DownloadExpiredError, match="no longer works"):
            await linked(downloader, server.url, renew=renew).read()
        assert (len(calls), len(server.requests)) == (1, 2)


async def test_trouble_in_asking_for_a_fresh_link_is_told(downloader: Downloader) -> None:
    """The picture is not lost for good: reading again asks again."""
    async with serving((403, b""), (403, b""), (200, PNG)) as server:
        renew, _ = renewing(ServerError("busy", status=500), server.url)
        image = linked(downloader, server.url, renew=renew)
        with pytest.raises(DownloadError, match="asking for a fresh one failed: busy") as caught:
            await image.read()
        assert type(caught.value) is DownloadError
        assert await image.read() == PNG


async def test_a_closed_client_passes_through_renewal(downloader: Downloader) -> None:
    """Closing is told as closing."""
    async with serving((403, b"")) as server:
        renew, _ = renewing(ClosedError("closed"))
        with pytest.raises(ClosedError, match="closed"):
            await linked(downloader, server.url, renew=renew).read()


# -- sharing, cancelling, closing ------------------------------------------------------------------------------------


async def test_readers_share_one_download(downloader: Downloader) -> None:
    """Two readers cost one request, and cancelling one does not disturb the other."""
    gate = Gate()
    async with serving(gate) as server:
        image = linked(downloader, server.url)
        first, second, third = (asyncio.create_task(image.read()) for _ in range(3))
        await gate.entered.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.opened.set()
        assert await second == PNG
        assert await third == PNG
        assert len(server.requests) == 1


async def test_a_failure_reaches_every_reader(downloader: Downloader) -> None:
    """Readers of one download share its error, too, and a later one tries again."""
    async with serving((404, b""), (200, PNG)) as server:
        image = linked(downloader, server.url)
        results = await asyncio.gather(image.read(), image.read(), return_exceptions=True)
        assert [type(result) for result in results] == [DownloadExpiredError] * 2
        assert await image.read() == PNG


async def test_the_last_reader_takes_the_download_along(downloader: Downloader) -> None:
    """When nobody waits any more the transfer stops, and the next reader starts afresh."""
    gate = Gate()
    async with serving(gate, (200, PNG)) as server:
        image = linked(downloader, server.url)
        with anyio.move_on_after(5) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(image.read)
                await gate.entered.wait()
                group.cancel_scope.cancel()
        assert not scope.cancelled_caught
        with anyio.fail_after(30):
            await asyncio.sleep(0)
            gate.opened.set()
            await gate.left.wait()
        assert image.data is None
        assert await image.read() == PNG


async def test_no_more_downloads_run_than_allowed(clock: QuickClock) -> None:
    """Further ones wait for a slot."""
    downloader = Downloader(clock=clock, limit=2)
    gate = Gate()
    async with serving(gate) as server:
        images = [linked(downloader, server.url) for _ in range(6)]
        tasks = [asyncio.create_task(image.read()) for image in images]
        while gate.inside < 2:  # noqa: ASYNC110 - the servers' handlers have no event for "two of you"
            await asyncio.sleep(0.001)
        assert repr(downloader) == "<Downloader 2 of 2 busy>"
        gate.opened.set()
        assert await asyncio.gather(*tasks) == [PNG] * 6
        assert gate.most == 2
    await downloader.aclose()
    assert repr(downloader) == "<Downloader closed>"


async def test_closing_wakes_the_readers(clock: QuickClock, tmp_path: Path) -> None:
    """Whoever waits when the downloader is closed gets `ClosedError`, as does whoever comes later."""
    downloader = Downloader(clock=clock)
    gate = Gate()
    async with serving(gate) as server:
        reader = asyncio.create_task(linked(downloader, server.url).read())
        saver = asyncio.create_task(linked(downloader, server.url).save(tmp_path / "x.png"))
        while gate.inside < 2:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)
        await downloader.aclose()
        for task in (reader, saver):
            with pytest.raises(ClosedError, match="closed before this picture was read"):
                await task
        gate.opened.set()
        with pytest.raises(ClosedError, match="closed before this picture was read"):
            await linked(downloader, server.url).read()
        with pytest.raises(ClosedError, match="closed before this picture was read"):
            await linked(downloader, server.url).save(tmp_path)
        await downloader.aclose()
    assert not await anyio.to_thread.run_sync(lambda: list(tmp_path.iterdir()))
