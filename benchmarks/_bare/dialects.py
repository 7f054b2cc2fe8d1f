"""Prepared answers in the dialects of several providers, and the little that a job needs to remember."""

from __future__ import annotations

import base64
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PICTURE", "Book", "Plan", "router"]

_TINY_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAP//////////////////////////////////////////////////////////////////////////////"
    "////////wAALCAABAAEBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAA//EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AP//Z"
)
_COMMENT = b"not a real picture, but a whole one; " * 24
PICTURE = _TINY_JPEG[:20] + b"\xff\xfe" + (len(_COMMENT) + 2).to_bytes(2, "big") + _COMMENT + _TINY_JPEG[20:]
"""A JPEG of one pixel, stretched to about a kilobyte by a comment: small, so that what a client adds is seen."""

_ID = b"00000000-0000-4000-8000-000000000000"  # what ids look like; each answer gets the real one in its place
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """When jobs end.

    Attributes:
        ends: "looks" after so many status calls, "times" each after a random time of its own, "never".
        looks: status calls a job takes, the one that finds it finished included.
        median: seconds, for "times"; the times are lognormal.
        sigma: of the times' logarithms.
        seed: of the times.
    """

    ends: Literal["looks", "times", "never"] = "looks"
    looks: int = 3
    median: float = 60.0
    sigma: float = 0.5
    seed: int = 0


class Book:
    """The jobs under way, and how many requests came."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._random = random.Random(plan.seed)
        self._number = 0
        self._jobs: dict[bytes, float] = {}  # looks to come that see it unfinished, or the moment it ends
        self.counts: Counter[str] = Counter(requests=0, jobs=0, looks=0, pictures=0)

    @property
    def answers_at_once(self) -> bool:
        """Whether requests that are answered with a picture are answered at all."""
        return self._plan.ends != "never"

    def open(self) -> bytes:
        """Begin a job and return its id."""
        self.counts["jobs"] += 1
        self._number += 1
        job = b"%08x-0000-4000-8000-%012x" % (self._number, self._number * 0x9E3779B1 & 0xFFFFFFFFFFFF)
        if self._plan.ends == "looks":
            self._jobs[job] = self._plan.looks - 1
        elif self._plan.ends == "times":
            self._jobs[job] = time.monotonic() + self._random.lognormvariate(0.0, self._plan.sigma) * self._plan.median
        return job

    def ended(self, job: bytes) -> bool:
        """Say whether a job has ended, and forget it then."""
        self.counts["looks"] += 1
        if self._plan.ends == "never":
            return False
        left = self._jobs.get(job, 0.0)
        if self._plan.ends == "looks":
            if left > 0:
                self._jobs[job] = left - 1
                return False
        elif time.monotonic() < left:
            return False
        self._jobs.pop(job, None)
        return True


def router(book: Book, base_url: str) -> Callable[[bytes, bytes], bytes | None]:
    """Return what answers a method and a path; None is no answer, now or later."""
    picture = base64.b64encode(PICTURE)
    link = f"{base_url}/picture.jpg".encode()
    base = base_url.encode()
    begun, pending, finished = _jobs(base, link, picture)
    at_once = _answer(b'{"created":1700000000,"data":[{"b64_json":"' + picture + b'"}]}')
    jpeg = _answer(PICTURE, b"image/jpeg")
    fal_result = _answer(b'{"images":[{"url":"' + link + b'","width":1,"height":1}],"seed":1}')

    def post(path: bytes) -> bytes | None:
        if path.startswith(b"/v1/images/"):  # OpenAI's and Mira's shape
            book.counts["pictures"] += 1
            return at_once if book.answers_at_once else None
        dialect = _dialect(path)
        return _NOT_FOUND if dialect is None else begun[dialect].replace(_ID, book.open())

    def get(path: bytes) -> bytes:
        if path == b"/picture.jpg":
            return jpeg
        dialect, job = _dialect(path), _job_in(path)
        if dialect is None or job is None:
            return _NOT_FOUND
        if dialect == "fal" and not path.partition(b"?")[0].endswith(b"/status"):
            return fal_result
        return (finished if book.ended(job) else pending)[dialect].replace(_ID, job)

    def answer(method: bytes, path: bytes) -> bytes | None:
        if path == b"/counts":
            return _answer(msgspec.json.encode(book.counts))
        book.counts["requests"] += 1
        return post(path) if method == b"POST" else get(path)

    return answer


_PREFIXES = {
    b"/v1/image/": "mirako",
    b"/api/v1/image/": "miragic",
    b"/fal/": "fal",
    b"/v1/models/": "replicate",
    b"/v1/predictions": "replicate",
    b"/v1/text_to_image": "runway",
    b"/v1/tasks/": "runway",
}


def _dialect(path: bytes) -> str | None:
    return next((name for prefix, name in _PREFIXES.items() if path.startswith(prefix)), None)


def _job_in(path: bytes) -> bytes | None:
    """Return the part of a path that is as long as an id and stands where ids stand."""
    parts = path.partition(b"?")[0].split(b"/")
    return next(
        (part for part in reversed(parts) if len(part) == len(_ID) and part.count(b"-") == _ID.count(b"-")), None
    )


def _jobs(base: bytes, link: bytes, picture: bytes) -> tuple[dict[str, bytes], dict[str, bytes], dict[str, bytes]]:
    """Return the answers to submits, and to looks at unfinished and at finished jobs, by dialect."""
    queue = base + b"/fal/fal-ai/any/requests/" + _ID
    fal_links = b'"response_url":"%b","status_url":"%b/status","cancel_url":"%b/cancel"' % (queue, queue, queue)
    fal = b'{"request_id":"' + _ID + b'",' + fal_links + b',"status":"%b","queue_position":0,"logs":null,"metrics":{}}'
    replicate = (
        b'{"id":"' + _ID + b'","model":"owner/name","version":"v1","input":{"prompt":"a fox"},"logs":"","error":null,'
        b'"status":"%b","output":%b,"created_at":"2025-01-01T00:00:00Z",'
        b'"urls":{"get":"' + base + b"/v1/predictions/" + _ID + b'","cancel":"' + base + b'/v1/predictions/cancel"}}'
    )
    runway = b'{"id":"' + _ID + b'","status":"%b","createdAt":"2025-01-01T00:00:00Z"%b}'
    mirako = b'{"data":{"task_id":"' + _ID + b'","status":"%b"%b}}'
    miragic = b'{"success":true,"data":{"jobId":"' + _ID + b'","status":"%b"%b}}'
    begun = {
        "mirako": mirako % (b"IN_QUEUE", b""),
        "miragic": miragic % (b"PENDING", b""),
        "fal": fal % b"IN_QUEUE",
        "replicate": replicate % (b"starting", b"null"),
        "runway": b'{"id":"' + _ID + b'"}',
    }
    pending = {
        "mirako": mirako % (b"IN_PROGRESS", b""),
        "miragic": miragic % (b"PENDING", b""),
        "fal": fal % b"IN_PROGRESS",
        "replicate": replicate % (b"processing", b"null"),
        "runway": runway % (b"RUNNING", b',"progress":0.5'),
    }
    finished = {
        "mirako": mirako % (b"COMPLETED", b',"image":"' + picture + b'"'),
        "miragic": miragic % (b"COMPLETED", b',"processedImageUrl":"' + link + b'"'),
        "fal": fal % b"COMPLETED",
        "replicate": replicate % (b"succeeded", b'["' + link + b'"]'),
        "runway": runway % (b"SUCCEEDED", b',"output":["' + link + b'"]'),
    }
    begun, pending, finished = (
        {name: _answer(body) for name, body in bodies.items()} for bodies in (begun, pending, finished)
    )
    return begun, pending, finished


def _answer(body: bytes, content_type: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (content_type, len(body), body)
