"""A receiver, a scheduler on a clock that stands still, and a provider that answers as the test says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import urlsplit

from mirage_async.jobs import Job, JobKind, NullRecorder, accept, new_job
from mirage_async.models import JobStatus, Pace
from mirage_async.scheduler import FixedInterval, Limits, Scheduler
from mirage_async.testing import FakeClock
from mirage_async.webhooks import WebhookReceiver, WebhookReply
from mirage_async.wire import Piece, Report, Submitted

SECRET = "V1StGXR8_Z5jdHi6B-myT0p3Lq9wNcYs"
OTHER_SECRET = "t8Kx2mQ9_vB4nZ7cL-pW5sD1fG3hJ6yR"
SIGNING = "whsec_" + base64.b64encode(bytes(range(7, 39))).decode()
PUBLIC = "https://app.example/hooks"
PACE = Pace(first=3, interval=5, maximum=15, max_wait=1000, typical=60)
RUNNING = Report(status=JobStatus.RUNNING, word="IN_PROGRESS")
DONE = Report(status=JobStatus.SUCCEEDED, pieces=(Piece(url="https://a.example/x.png"),))
BODY = json.dumps({"id": "task-1", "status": "COMPLETED", "output": {"image": "aGk="}}).encode()


def signed(body: bytes, at: float, *, message_id: str = "msg_1", secret: str = SIGNING) -> dict[str, str]:
    """Return the headers a sender of Standard Webhooks adds; written from the specification, not from our code."""
    timestamp = str(int(at))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }


def path_of(url: str) -> str:
    """Return the path of an address."""
    return urlsplit(url).path


class Bench:
    """All that is needed for a job to be announced.

    Args:
        interval: seconds between the scheduler's own status calls.
        options: for the receiver.
    """

    def __init__(self, interval: float = 10.0, **options: Any) -> None:
        self.clock = FakeClock()
        self.scheduler = Scheduler(policy=FixedInterval(interval, jitter=0), clock=self.clock)
        settings: dict[str, Any] = {"public_url": PUBLIC, "secret": SECRET, "clock": self.clock, **options}
        self.receiver = WebhookReceiver(**settings)
        self.answer = RUNNING
        self.asked: list[float] = []
        self.ledger = Ledger()
        self.kind: JobKind[str] = self.make_kind()

    def make_kind(self, **changes: Any) -> JobKind[str]:
        """Return a kind of job whose parts are on this bench."""
        parts: dict[str, Any] = {
            "provider": "mirako",
            "name": "image",
            "pace": PACE,
            "clock": self.clock,
            "recorder": self.ledger,
            "waker": self.scheduler,
            "look": self._look,
            "redeem": self._redeem,
            "ended": self.receiver.expected.ended,
            "account": self.scheduler.account("mirako", Limits()),
            "hints": self.receiver.expected,
        }
        return JobKind(**(parts | changes))

    async def _look(self, _: Job[str]) -> Report:
        self.asked.append(round(self.clock.monotonic(), 3))
        return self.answer

    async def _redeem(self, job: Job[str], _: Report) -> str:
        return f"picture of {job.id}"

    def job(self) -> Job[str]:
        """Make a job that is about to be bought, and expect its webhook."""
        job = new_job(self.kind)
        self.receiver.expect(job)
        return job

    async def accepted(self, *, wait: float = 1000.0) -> Job[str]:
        """Make a job that was accepted."""
        job = self.job()
        await self.accept(job, wait=wait)
        return job

    async def accept(self, job: Job[str], *, wait: float = 1000.0) -> None:
        """Let the provider accept a job."""
        await accept(job, Submitted(id="task-1"), self.clock.monotonic() + wait)

    def deliver(self, job: Job[str], body: bytes = BODY, headers: dict[str, str] | None = None) -> WebhookReply:
        """Deliver the news of a job as Mirako does."""
        url, bearer = self.receiver.callback("mirako", job.key)
        return self.receiver.handle(
            "POST", path_of(url), {"Authorization": f"Bearer {bearer}", **(headers or {})}, body
        )


class Ledger(NullRecorder):
    """Records outcomes, so that a second one would show."""

    __slots__ = ("outcomes",)

    def __init__(self) -> None:
        self.outcomes: list[object] = []

    async def settled(self, job: Job[Any], outcome: object) -> None:  # noqa: ARG002 - the port's signature
        """Write down an outcome."""
        self.outcomes.append(outcome)
