"""The providers' contradictions and oddities, one by one, where it takes more than a codec to get them right.

The names carry the row of the fact sheet (M and A: Mirako, G: Miragic, V: Mira, L: Milady). Rows that are a matter of
encoding and decoding alone are tested beside the codecs.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import itertools
import logging
import math
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from impatient import ImpatientClock, until
from purchases import KEY, PROMPT, honest, picture, portrait, quick
from rogues import Act, Seen, json_answer, rogue

from mirage_async import MiladyClient, MiraClient, MiragicClient, MirakoClient
from mirage_async.exceptions import (
    APIError,
    AuthenticationError,
    BadRequestError,
    DownloadError,
    InputError,
    JobFailedError,
    MirageError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    SubmissionUncertainError,
    WaitTimeoutError,
)
from mirage_async.sandbox import Fault, Sandbox
from mirage_async.scheduler import BackoffInterval, Scheduler
from mirage_async.scheduler._wheel import TICK
from mirage_async.testing import FakeClock, sandboxed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mirage_async import Job
    from mirage_async.sandbox import SeenRequest

pytestmark = pytest.mark.anyio

TROUBLES = {
    "500": Fault(status=500),
    "502 page": Fault(status=502, body="<html>Bad gateway</html>"),
    "503": Fault(status=503),
    "429": Fault(status=429, headers={"Retry-After": "0"}),
    "408": Fault(status=408),
    "401 page": Fault(status=401, body="<html>Log in to the wireless network</html>"),
    "reset": Fault(reset=True),
    "garbage": Fault(garbage=b"\x00\x01 what\r\n\r\n"),
    "cut": Fault(cut=5),
    "unreadable": Fault(status=200, body="fine, thank you"),
    "empty": Fault(status=200, body=b""),
    "not found yet": Fault(status=404),
    "redirect": Fault(status=302, headers={"Location": "/login"}),
}
every_trouble = pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)


LONG = 100_000.0  # seconds on a clock that runs a hundred times as fast


def requests_to(sandbox: Sandbox, operation: str) -> list[SeenRequest]:
    """Return what an operation was asked."""
    return [seen for seen in sandbox.requests if seen.operation == operation]


async def polled_at(
    sandbox: Sandbox, clock: FakeClock, operation: str, job: Job[Any], *, step: float, at_most: float
) -> list[float]:
    """Move the clock until the job is done or the time is up; return when it was asked about, from its submission."""
    scheduler = job.kind.waker
    assert isinstance(scheduler, Scheduler)
    began = clock.monotonic()
    while not job.done and job.stopped is None and clock.monotonic() - began < at_most:
        await clock.advance(step)
        await until(lambda: not scheduler.statistics().polls_in_flight)
    return [seen.at - began for seen in requests_to(sandbox, operation)]


# -- Mirako: pictures ------------------------------------------------------------------------------------------------


async def test_m3_the_webhook_exists_for_jobs_only() -> None:
    """A webhook is sent where the API description has one, left out when unset, and absent from the blocking call."""
    async with Sandbox(durations=0.0) as sandbox, MirakoClient(base_url=sandbox.url, scheduler=quick()) as mirako:
        await mirako.submit(PROMPT, webhook=("https://app.example/hook", "token-1"))
        await mirako.submit(PROMPT, webhook=("https://app.example/hook", None))
        await mirako.submit(PROMPT)
        with_token, without_token, without = (seen.fields for seen in requests_to(sandbox, "mirako.create"))
    assert with_token["webhook"] == {"url": "https://app.example/hook", "auth_token": "token-1"}
    assert without_token["webhook"] == {"url": "https://app.example/hook"}
    assert "webhook" not in without
    assert "webhook" not in inspect.signature(mirako.generate).parameters


@pytest.mark.parametrize(
    ("client", "row"), [(MirakoClient, "m4"), (MiraClient, "v8"), (MiladyClient, "l12")], ids=["m4", "v8", "l12"]
)
async def test_m4_v8_l12_a_blocking_call_waits_long_and_is_never_repeated(client: type[Any], row: str) -> None:
    """Pictures take time: 180 s of patience (Milady 200 to 240 s), and silence beyond it is uncertain, not a retry."""
    low, high = (200, 240) if row == "l12" else (180, 240)
    assert low <= client.answer_timeout <= high
    clock = ImpatientClock()
    with anyio.fail_after(30):
        async with (
            rogue(Act(then="hold")) as server,
            client(KEY, base_url=server.url, timeout=0.05, scheduler=quick(clock)) as impatient,
        ):
            with pytest.raises(SubmissionUncertainError, match=r"no answer within 0\.05 s"):
                await impatient.generate(PROMPT)
            assert len(server.requests) == 1
    assert clock.slept == []


async def test_m4_a_blocking_picture_may_take_its_time() -> None:
    """A slow answer is waited for, without a single further request."""
    with anyio.fail_after(30):
        async with Sandbox(durations=0.3) as sandbox, MirakoClient(base_url=sandbox.url) as mirako:
            generation = await mirako.generate(PROMPT)
            assert generation.timings.detected is not None
            assert generation.timings.detected >= 0.3
            assert sandbox.statistics().requests == {"mirako.generate": 1}


@every_trouble
async def test_m6_trouble_with_a_poll_never_fails_the_job(trouble: Fault) -> None:
    """Transport errors, 5xx, 429 and answers of something in between are waited out."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=0.0) as sandbox,
            MirakoClient(base_url=sandbox.url, scheduler=eager()) as mirako,
        ):
            sandbox.fail("mirako.status", trouble, trouble)
            job = await mirako.submit(PROMPT, max_wait=LONG)
            assert (await job).image.data
            assert len(requests_to(sandbox, "mirako.status")) == 3


def eager() -> Scheduler:
    """Return a scheduler whose time runs a hundred times as fast, so that its patience after trouble is short."""
    return Scheduler(policy=BackoffInterval(first=0, interval=0.1, maximum=0.1), clock=FastClock())


class FastClock(ImpatientClock):
    """A hundred seconds a second."""

    def monotonic(self) -> float:
        """Return a fast moment."""
        return super().monotonic() * 100

    def call_at(self, when: float, callback: Callable[[], object]) -> Any:
        """Arrange a call sooner."""
        return asyncio.get_running_loop().call_later(max(0.0, when - self.monotonic()) / 100, callback)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, AuthenticationError), (403, PermissionDeniedError), (400, BadRequestError), (410, APIError)],
)
async def test_m6_a_clear_no_to_a_poll_is_raised_and_the_job_lives_on(status: int, kind: type[APIError]) -> None:
    """Other 4xx end the asking at once; the status stays, and the wait can be begun again."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=0.0) as sandbox,
            MirakoClient(base_url=sandbox.url, scheduler=eager()) as mirako,
        ):
            sandbox.fail("mirako.status", Fault(status=status))
            job = await mirako.submit(PROMPT, max_wait=LONG)
            with pytest.raises(kind, match=f"mirako answered {status}"):
                await job
            assert job.status == "queued"
            assert job in mirako.jobs
            assert len(requests_to(sandbox, "mirako.status")) == 1
            assert (await job.result(max_wait=LONG)).image.data


async def test_m6_an_unknown_status_is_logged_and_asked_about_until_the_deadline(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A word of tomorrow is neither success nor failure."""
    caplog.set_level(logging.INFO, "mirage_async")
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=0.0) as sandbox,
            MirakoClient(base_url=sandbox.url, scheduler=quick()) as mirako,
        ):
            sandbox.fail("mirako.status", *[Fault(status=200, body={"data": {"status": "PAUSED"}})] * 3)
            job = await mirako.submit(PROMPT)
            assert (await job).image.data
            assert job.polls == 4
            sandbox.fail("mirako.status", *[Fault(status=200, body={"data": {"status": "PAUSED"}})] * 1000)
            with pytest.raises(WaitTimeoutError, match="lives on"):
                await (await mirako.submit(PROMPT, max_wait=0.05))
    assert "unknown status 'PAUSED'" in caplog.text


async def test_m11_an_avatar_is_drawn_by_its_id_in_the_prompt() -> None:
    """There is no field for an avatar on the wire; the prompt arrives as it was written."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=0.0, strict=True) as sandbox,
            MirakoClient(base_url=sandbox.url, scheduler=quick()) as mirako,
        ):
            avatar = await (await mirako.build_avatar("Ada", portrait()))
            await mirako.generate(f"{avatar.id} on a bicycle")
            (seen,) = requests_to(sandbox, "mirako.generate")
    assert seen.fields == {"prompt": f"{avatar.id} on a bicycle", "aspect_ratio": "16:9"}


@pytest.mark.parametrize("job_id", ["xdac2o3c", "7", "X-y_9", "a" * 128])
async def test_m14_a_task_id_is_opaque_and_used_as_it_came(job_id: str) -> None:
    """Whatever the id looks like, the status call has exactly it in its path."""

    def script(seen: Seen) -> Act:
        if seen.method == "POST":
            return Act(write=json_answer({"data": {"task_id": job_id}}))
        return honest(seen)

    with anyio.fail_after(30):
        async with rogue(script) as server, MirakoClient(KEY, base_url=server.url, scheduler=quick()) as mirako:
            job = await mirako.submit(PROMPT)
            await job
            assert job.id == job_id
            assert server.requests[-1].path == f"/v1/image/async_generate/{job_id}/status"


async def test_m15_deadlines_do_not_follow_the_wall_clock() -> None:
    """A clock set forward or back by a day neither ends a wait nor prolongs it."""
    clock = ImpatientClock()
    with anyio.fail_after(30):
        async with (
            Sandbox(durations={"mirako": 0.05}) as sandbox,
            MirakoClient(base_url=sandbox.url, scheduler=quick(clock)) as mirako,
        ):
            job = await mirako.submit(PROMPT, max_wait=30)
            clock.wall += 86_400
            assert (await job).image.data
            sandbox.fail("mirako.status", *[Fault(status=500)] * 1000)
            late = await mirako.submit(PROMPT, max_wait=0.05)
            clock.wall -= 2 * 86_400
            with pytest.raises(WaitTimeoutError, match="the wait is over"):
                await late


# -- Mirako: avatars -------------------------------------------------------------------------------------------------


async def test_a1_a_build_is_watched_for_an_hour_ever_less_often() -> None:
    """Asked every 10 s at first and at most every 60 s, a build of 55 minutes is seen to its end."""
    clock = FakeClock()
    scheduler = Scheduler(policy=BackoffInterval(jitter=0), clock=clock)
    with anyio.fail_after(20):
        async with (
            Sandbox(durations=3300.0, clock=clock) as sandbox,
            MirakoClient(base_url=sandbox.url, scheduler=scheduler) as mirako,
        ):
            job = await mirako.build_avatar("Ada", portrait())
            moments = await polled_at(sandbox, clock, "mirako.avatar_status", job, step=5, at_most=3600)
            assert (await job).status == "READY"
    gaps = [later - earlier for earlier, later in itertools.pairwise([0.0, *moments])]
    assert gaps[:2] == pytest.approx([10, 10])
    assert max(gaps) <= 60 + TICK
    assert all(later > earlier - TICK for earlier, later in itertools.pairwise(gaps))


async def test_a1_a_wait_that_is_over_can_be_resumed_with_the_token() -> None:
    """The build goes on at Mirako: the error carries what attaches to it again."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=0.2) as sandbox,
            MirakoClient(base_url=sandbox.url, scheduler=quick()) as mirako,
        ):
            job = await mirako.build_avatar("Ada", portrait(), max_wait=0.03)
            with pytest.raises(WaitTimeoutError, match="lives on: attach with its token") as caught:
                await job
            assert caught.value.job_id == job.id
            assert caught.value.token is not None
            again = mirako.job(caught.value.token)
            assert (await again).id == job.id
            assert again.key == job.key
            assert sandbox.statistics().purchases == {"mirako": 1}


@every_trouble
async def test_a3_trouble_with_a_poll_is_not_a_failed_build(trouble: Fault) -> None:
    """An HTTP error says nothing about the build."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=0.0) as sandbox,
            MirakoClient(base_url=sandbox.url, scheduler=eager()) as mirako,
        ):
            sandbox.fail("mirako.avatar_status", trouble, trouble)
            job = await mirako.build_avatar("Ada", portrait(), max_wait=LONG)
            assert (await job).status == "READY"


async def test_a3_a_failed_build_is_told_as_one() -> None:
    """ERROR, and only ERROR, is a failed build."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=0.0) as sandbox,
            MirakoClient(base_url=sandbox.url, scheduler=quick()) as mirako,
        ):
            sandbox.fail("mirako.avatar_status", Fault(status=200, body={"data": {"status": "ERROR"}}))
            job = await mirako.build_avatar("Ada", portrait())
            with pytest.raises(JobFailedError, match=f"the mirako job {job.id} failed") as caught:
                await job
            assert caught.value.token is not None


async def test_a6_readiness_is_asked_for_every_time() -> None:
    """Mirako may take a finished model down: ERROR and 404 after READY are told as they are."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=0.0) as sandbox,
            MirakoClient(base_url=sandbox.url, scheduler=quick()) as mirako,
        ):
            avatar = await (await mirako.build_avatar("Ada", portrait()))
            assert (await mirako.get_avatar(avatar.id)).status == "READY"
            sandbox.fail("mirako.avatar_status", Fault(status=200, body={"data": {"id": avatar.id, "status": "ERROR"}}))
            assert (await mirako.get_avatar(avatar.id)).status == "ERROR"
            sandbox.fail("mirako.avatar_status", Fault(status=404))
            with pytest.raises(NotFoundError, match="mirako answered 404"):
                await mirako.get_avatar(avatar.id)


async def test_a9_all_avatars_can_be_listed() -> None:
    """No avatars is an empty tuple, not null; afterwards they are listed oldest first."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=0.0) as sandbox,
            MirakoClient(base_url=sandbox.url, scheduler=quick()) as mirako,
        ):
            assert await mirako.list_avatars() == ()
            jobs = [await mirako.build_avatar(name, portrait()) for name in ("Ada", "Grace")]
            assert [avatar.id for avatar in await mirako.list_avatars()] == [job.id for job in jobs]


# -- Miragic ---------------------------------------------------------------------------------------------------------


async def test_g1_an_image_url_needs_kontext() -> None:
    """The table of the reference wins over its samples: refused before anything is sent, never dropped."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=0.0, strict=True) as sandbox,
            MiragicClient(base_url=sandbox.url, scheduler=quick()) as miragic,
        ):
            with pytest.raises(InputError, match="model must be 'kontext' where image_url is given; got 'flux'"):
                await miragic.submit(PROMPT, image_url="https://a.example/b.jpg")
            assert sandbox.requests == []
            await miragic.submit(PROMPT, model="kontext", image_url="https://a.example/b.jpg")
            assert sandbox.requests[0].fields["image_url"] == "https://a.example/b.jpg"


async def test_g2_both_encodings_of_the_form_are_understood() -> None:
    """Multipart by default, urlencoded on request; the same fields arrive."""
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0, strict=True) as sandbox:
            for multipart in (True, False):
                async with MiragicClient(base_url=sandbox.url, scheduler=quick(), multipart=multipart) as miragic:
                    await miragic.submit("ein Leuchtturm, größer")
            first, second = requests_to(sandbox, "miragic.create")
    assert first.headers["content-type"].startswith("multipart/form-data")
    assert second.headers["content-type"] == "application/x-www-form-urlencoded"
    assert first.fields == second.fields
    assert first.fields == {"prompt": "ein Leuchtturm, größer", "model": "flux", "width": "1024", "height": "1024"}


async def test_g4_the_temporary_link_is_read_at_once() -> None:
    """When the result is handed over the bytes are here: the link may die the moment after."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=0.0) as sandbox,
            MiragicClient(base_url=sandbox.url, scheduler=quick()) as miragic,
        ):
            generation = await miragic.generate(PROMPT, width=256, height=256)
            assert generation.image.data is not None
            assert generation.image.mime_type == "image/jpeg"
            assert generation.timings.downloaded is not None


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_g4_an_expired_link_is_asked_for_again_once(status: int) -> None:
    """403, 404 and 410 mean that the link has run out: one more status call brings a fresh one."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=0.0) as sandbox,
            MiragicClient(base_url=sandbox.url, scheduler=quick()) as miragic,
        ):
            sandbox.fail("miragic.download", Fault(status=status))
            generation = await miragic.generate(PROMPT, width=256, height=256)
            assert generation.image.data is not None
            assert sandbox.statistics().requests == {"miragic.create": 1, "miragic.status": 2, "miragic.download": 2}
            paths = {seen.path for seen in requests_to(sandbox, "miragic.download")}
            assert len(paths) == 2


async def test_g4_a_link_that_cannot_be_read_does_not_fail_the_job() -> None:
    """The picture is paid for: the job succeeds and `read()` tries again later."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=0.0) as sandbox,
            MiragicClient(base_url=sandbox.url, scheduler=quick()) as miragic,
        ):
            sandbox.fail("miragic.download", Fault(status=403), Fault(status=403))
            generation = await miragic.generate(PROMPT, width=256, height=256)
            assert generation.image.data is None
            assert len(await generation.image.read()) > 100


async def test_g12_polls_begin_at_once_and_grow_to_fifteen_seconds_within_five_minutes() -> None:
    """Advice and samples in one: at once, then 2 s growing to 15 s, and an end after 300 s."""
    clock = FakeClock()
    scheduler = Scheduler(policy=BackoffInterval(jitter=0), clock=clock)
    with anyio.fail_after(20):
        async with (
            Sandbox(durations=1000.0, clock=clock) as sandbox,
            MiragicClient(base_url=sandbox.url, scheduler=scheduler) as miragic,
        ):
            job = await miragic.submit(PROMPT)
            moments = await polled_at(sandbox, clock, "miragic.status", job, step=0.5, at_most=400)
            assert clock.monotonic() == pytest.approx(300, abs=1)
            with pytest.raises(WaitTimeoutError, match=r"after 300\.0 s"):
                await job
    assert 297 <= moments.pop() < 300  # the last look before the end
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert moments[0] == 0
    assert gaps[:2] == pytest.approx([2, 3])
    assert all(later > earlier - TICK for earlier, later in itertools.pairwise(gaps))
    assert math.isclose(gaps[-1], 15, abs_tol=TICK)


async def test_g17_a_job_that_is_finished_when_it_is_announced_is_not_asked_about() -> None:
    """The state in the create answer counts: a COMPLETED one is the result."""

    def script(seen: Seen) -> Act:
        if seen.method == "GET":
            return honest(seen)
        link = f"http://{seen.headers['host']}/picture.jpg"
        data = {"jobId": "job-1", "status": "COMPLETED", "processedImageUrl": link}
        return Act(write=json_answer({"success": True, "data": data}))

    with anyio.fail_after(30):
        async with rogue(script) as server, MiragicClient(KEY, base_url=server.url, scheduler=quick()) as miragic:
            generation = await miragic.generate(PROMPT)
            assert generation.image.data == picture("JPEG")
            assert generation.polls == 0
            assert [seen.path for seen in server.requests] == ["/api/v1/image/generate", "/picture.jpg"]


async def test_g18_the_key_is_not_sent_with_a_download() -> None:
    """The result lives on the API's own host in the samples, and even there it is fetched without the key."""
    with anyio.fail_after(30):
        async with rogue(honest) as server, MiragicClient(KEY, base_url=server.url, scheduler=quick()) as miragic:
            await miragic.generate(PROMPT)
            download = server.requests[-1]
            assert download.path == "/picture.jpg"
            assert not {"x-api-key", "authorization", "cookie"} & set(download.headers)
            assert all(seen.headers["x-api-key"] == KEY for seen in server.requests[:-1])


# -- Mira ------------------------------------------------------------------------------------------------------------


async def test_v1_the_path_can_be_chosen_and_is_never_tried_twice() -> None:
    """The curl sample's path by default, the OpenAI package's on request; a 404 does not go looking for the other."""
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0) as sandbox:
            async with MiraClient(base_url=sandbox.url) as mira:
                await mira.generate(PROMPT)
            async with MiraClient(base_url=sandbox.url, path="/v1/images/generations") as mira:
                await mira.generate(PROMPT)
                sandbox.fail("mira.generate", Fault(status=404))
                with pytest.raises(NotFoundError, match="mira answered 404"):
                    await mira.generate(PROMPT)
            paths = [seen.path for seen in sandbox.requests]
    assert paths == ["/v1/images/generate", *["/v1/images/generations"] * 2]


async def test_v9_a_wait_of_a_day_is_reported_not_waited_out() -> None:
    """`Retry-After: 86400` ends the attempts at once; the value is there for the caller."""
    clock = ImpatientClock()
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0) as sandbox, MiraClient(base_url=sandbox.url, scheduler=quick(clock)) as mira:
            sandbox.fail("mira.generate", Fault(status=429, headers={"Retry-After": "86400"}))
            with pytest.raises(RateLimitError, match="mira answered 429") as caught:
                await mira.generate(PROMPT)
            assert caught.value.retry_after == 86_400
            assert caught.value.billed == "no"
            assert len(sandbox.requests) == 1
    assert clock.slept == []


async def test_v10_a_request_that_is_too_large_is_told_as_such() -> None:
    """413 is a bad request with its status, and it is not sent again."""
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0) as sandbox, MiraClient(base_url=sandbox.url, scheduler=quick()) as mira:
            sandbox.fail("mira.generate", Fault(status=413))
            with pytest.raises(BadRequestError, match="mira answered 413") as caught:
                await mira.generate(PROMPT, reference_images=[picture()] * 4)
            assert (caught.value.status, caught.value.billed) == (413, "no")
            assert len(sandbox.requests) == 1


# -- Milady ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [{}, {"numImages": 2}, {"numImages": 4}, {"numImages": "two"}])
async def test_l4_fewer_pictures_than_asked_for_are_a_success(extra: dict[str, Any]) -> None:
    """What counts is what is there; asked and received can be compared."""
    encoded = "data:image/png;base64," + base64.b64encode(picture()).decode()
    reply = json_answer({"images": [{"image": encoded}, {"image": encoded}], **extra})
    with anyio.fail_after(30):
        async with rogue(Act(write=reply)) as server, MiladyClient(KEY, base_url=server.url) as milady:
            generation = await milady.generate(PROMPT, num_images=4)
            assert len(generation.images) == 2
            assert generation.requested == 4
            assert server.requests[0].fields["numImages"] == 4


@pytest.mark.parametrize(
    ("status", "kind"), [(401, AuthenticationError), (403, PermissionDeniedError), (413, BadRequestError)]
)
async def test_l8_statuses_the_page_does_not_list_are_understood(status: int, kind: type[MirageError]) -> None:
    """401, 403 and 413 have their usual meaning."""
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0) as sandbox, MiladyClient(base_url=sandbox.url) as milady:
            sandbox.fail("milady.generate", Fault(status=status))
            with pytest.raises(kind, match=f"milady answered {status}"):
                await milady.generate(PROMPT)
            assert len(sandbox.requests) == 1


async def test_l8_a_503_that_names_a_wait_is_sent_again() -> None:
    """The newer server's `Retry-After: 30` is waited for."""
    clock = ImpatientClock()
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=0.0) as sandbox,
            MiladyClient(base_url=sandbox.url, scheduler=quick(clock)) as milady,
        ):
            sandbox.fail("milady.generate", Fault(status=503, headers={"Retry-After": "30"}))
            assert (await milady.generate(PROMPT)).images
            assert sandbox.statistics().purchases == {"milady": 1}
    assert sum(clock.slept) >= 30


async def test_l9_a_documented_500_is_an_error_and_no_retry() -> None:
    """The page says "retry" and not whether it charged: the caller decides, with `billed` saying "unknown"."""
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0) as sandbox, MiladyClient(base_url=sandbox.url) as milady:
            sandbox.fail("milady.generate", Fault(status=500, body={"error": "No images were generated"}))
            with pytest.raises(ServerError, match="milady answered 500: No images were generated") as caught:
                await milady.generate(PROMPT, resend_uncertain=True)
            assert caught.value.billed == "unknown"
            assert len(sandbox.requests) == 1


@pytest.mark.parametrize("prefix", ["", "/", "/cloud", "/cloud/v2/"])
async def test_l13_the_base_url_is_the_caller_s_choice(prefix: str) -> None:
    """Several hosts serve the same API, some below a path."""
    with anyio.fail_after(30):
        async with rogue(honest) as server, MiladyClient(KEY, base_url=server.url + prefix) as milady:
            await milady.generate(PROMPT)
            assert server.requests[0].path == f"{prefix.rstrip('/')}/api/v1/generate-image"


async def test_l14_the_source_image_is_made_a_data_url_from_whatever_it_is(tmp_path: Path) -> None:
    """Bytes, a path and a data URL all arrive as the same data URL; its type is read from the bytes."""
    data = picture("WEBP")
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    url = "data:image/webp;base64," + base64.b64encode(data).decode()
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0, strict=True) as sandbox, MiladyClient(base_url=sandbox.url) as milady:
            for source in (data, path, url):
                await milady.generate(PROMPT, source_image=source)
            assert [seen.fields["sourceImage"] for seen in sandbox.requests] == [url] * 3
            with pytest.raises(InputError, match=r"source_image must be the bytes of a .* picture; got a link"):
                await milady.generate(PROMPT, source_image="https://a.example/b.png")
            assert len(sandbox.requests) == 3


async def test_l1_only_the_model_the_caller_named_is_sent() -> None:
    """Unset fields are left out, and a name nobody knows here is sent as it is."""
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0) as sandbox, MiladyClient(base_url=sandbox.url) as milady:
            assert (await milady.generate(PROMPT)).model is None
            assert (await milady.generate(PROMPT, model="new/one")).model == "new/one"
            assert [seen.fields for seen in sandbox.requests] == [
                {"prompt": PROMPT},
                {"prompt": PROMPT, "model": "new/one"},
            ]


async def test_m12_a_picture_that_stays_cut_short_is_never_read_as_a_whole_one(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """The job succeeds, since nothing better is to be had; reading says what is wrong, and the bytes are kept."""
    async with sandboxed(durations=0.0) as (mirage, sandbox):
        job = await mirage.mirako.submit("a fox [[fault:corruptx*]]")
        for generation in (await job, await mirage.mirako.generate("a fox [[fault:corrupt]]")):
            with pytest.raises(DownloadError, match=r"came cut short.*image/jpeg of [0-9]+ bytes") as caught:
                await generation.image.read()
            assert caught.value.billed == "yes"
            with pytest.raises(DownloadError, match=r"came cut short"):
                await generation.image.save(tmp_path / "fox")
            assert generation.image.data
        assert sandbox.statistics().requests == {"mirako.create": 1, "mirako.status": 3, "mirako.generate": 1}
    assert not await anyio.Path(tmp_path / "fox.jpg").exists()
    assert caplog.text.count("is not whole: image/jpeg of") == 2


async def test_g13_a_status_call_that_fails_without_a_known_reason_is_repeated() -> None:
    """Trouble at the provider's side, told with status 200, does not end the wait for a job that was paid for."""
    async with sandboxed(durations=0.0) as (mirage, sandbox):
        generation = await mirage.miragic.generate("a fox [[fault:error-body@status]]")
        assert await generation.image.read()
        assert sandbox.statistics().requests["miragic.status"] == 2
