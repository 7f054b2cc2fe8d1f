"""The sandbox over time: who works when, what ends a job, what it costs, and what is remembered of it all."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest
from calling import API_KEY, BEARER, Caller, Reply, calling, encoded, plain_base64, until
from hypothesis import given
from hypothesis import strategies as st

from mirage_async import Mirage, MirakoClient
from mirage_async.sandbox import ColdStart, Lognormal, Sandbox
from mirage_async.sandbox.answers import RefusalError
from mirage_async.sandbox.drawing.pictures import Picture
from mirage_async.sandbox.durations import Durations, durations_from_json
from mirage_async.sandbox.faults.catalogue import directives_in, shortened
from mirage_async.sandbox.jobs import Job, JobStore, Station, Words
from mirage_async.sandbox.links import Links
from mirage_async.sandbox.requestlog import RequestLog, SeenRequest
from mirage_async.sandbox.workshop import Workshop
from mirage_async.scheduler import BackoffInterval, FixedInterval, Scheduler
from mirage_async.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

pytestmark = pytest.mark.anyio

PATHS = {
    "mirako": "/v1/image/async_generate",
    "miragic": "/api/v1/image/generate",
    "mira": "/v1/images/generate",
    "milady": "/api/v1/generate-image",
}
KINDS = ["mirako.image", "mirako.avatar", "miragic.image", "mira.image", "milady.image"]
every_provider = pytest.mark.parametrize("provider", PATHS)


def key(name: str) -> dict[str, str]:
    """Return the headers that carry a key, for any provider."""
    return {"Authorization": f"Bearer {name}", "X-API-Key": name}


async def submit(caller: Caller, provider: str = "miragic", *, who: str = "sk-test", **fields: Any) -> Reply:
    """Send the smallest purchase a provider accepts."""
    required: dict[str, Any] = {"prompt": "hills"}
    if provider == "mirako":
        required["aspect_ratio"] = "1:1"
    if provider == "miragic":
        required |= {"model": "flux", "width": "256", "height": "256"}
    return await caller.post(PATHS[provider], required | fields, key(who))


async def miragic_jobs(caller: Caller, number: int) -> list[str]:
    """Submit so many jobs to Miragic and return their ids."""
    return [(await submit(caller)).json["data"]["jobId"] for _ in range(number)]


async def look(caller: Caller, job_id: str) -> Any:
    """Return what Miragic says of a job."""
    return (await caller.get(f"/api/v1/image/jobs/{job_id}", API_KEY)).json["data"]


async def mirako_word(caller: Caller, job_id: str) -> str:
    """Return where Mirako says a task stands."""
    word: str = (await caller.get(f"{PATHS['mirako']}/{job_id}/status", BEARER)).json["data"]["status"]
    return word


async def build(caller: Caller) -> str:
    """Start an avatar and return its id."""
    reply = await caller.post("/v1/avatar/async_build", {"name": "Ada", "image": plain_base64(encoded())})
    avatar_id: str = reply.json["data"]["avatar_id"]
    return avatar_id


# -- workers ---------------------------------------------------------------------------------------------------------


async def test_workers_take_the_oldest_job_first() -> None:
    """Two workers, jobs of eight seconds: two end at once, two after as long again, the fifth last; to the moment."""
    async with calling(workers=2) as caller:
        ids = await miragic_jobs(caller, 5)
        caller.clock.advance(30)
        took = [(await look(caller, job_id))["metadata"]["processingTimeMs"] for job_id in ids]
        assert took == [8000, 8000, 16000, 16000, 24000]


async def test_a_waiting_job_is_queued_until_a_worker_takes_it() -> None:
    """It begins in the moment the job before it ends, and not a millisecond earlier."""
    async with calling(workers=1) as caller:
        first, second = [(await submit(caller, "mirako")).json["data"]["task_id"] for _ in range(2)]
        seen: list[tuple[str, str]] = []
        for step in (7.999, 0.001, 1.999, 0.001, 5.999, 0.001):
            caller.clock.advance(step)
            seen.append((await mirako_word(caller, first), await mirako_word(caller, second)))
        assert seen == [
            ("IN_PROGRESS", "IN_QUEUE"),
            ("COMPLETED", "IN_QUEUE"),
            ("COMPLETED", "IN_QUEUE"),
            ("COMPLETED", "IN_PROGRESS"),
            ("COMPLETED", "IN_PROGRESS"),
            ("COMPLETED", "COMPLETED"),
        ]


async def test_each_provider_has_its_own_workers_for_all_its_work() -> None:
    """An avatar keeps the worker of a picture busy; another provider's jobs do not wait for either."""
    async with calling(workers={"mirako": 1}) as caller:
        await build(caller)
        task = (await submit(caller, "mirako")).json["data"]["task_id"]
        others = await miragic_jobs(caller, 3)
        caller.clock.advance(8)
        assert [(await look(caller, job_id))["status"] for job_id in others] == ["COMPLETED"] * 3
        assert await mirako_word(caller, task) == "IN_QUEUE"
        caller.clock.advance(8)
        assert await mirako_word(caller, task) == "COMPLETED"


async def test_workers_can_come_and_go() -> None:
    """More of them begin at once with what waits; fewer let those at work finish; None is no limit."""
    async with calling(workers=1) as caller:
        ids = await miragic_jobs(caller, 6)
        caller.clock.advance(2)
        caller.sandbox.set_workers(2)
        caller.clock.advance(2)
        caller.sandbox.set_workers({"miragic": 1})
        caller.clock.advance(5)
        caller.sandbox.set_workers(None)
        caller.clock.advance(30)
        took = [(await look(caller, job_id))["metadata"]["processingTimeMs"] for job_id in ids]
        assert took == [8000, 10000, 17000, 17000, 17000, 17000]


async def test_blocking_calls_queue_as_well() -> None:
    """With one worker the second answer comes after two pieces of work, in the order of the requests."""
    async with calling(time="jumping", workers=1, durations=8.0) as caller:
        done: list[tuple[str, float]] = []

        async def call(name: str) -> None:
            assert (await submit(caller, "mira", prompt=name)).status == 200
            done.append((name, caller.elapsed))

        tasks: list[asyncio.Task[None]] = []
        for name in ("first", "second"):
            tasks.append(asyncio.create_task(call(name)))
            await until(lambda: len(caller.sandbox.jobs) == len(tasks))
        await asyncio.gather(*tasks)
        assert done == [("first", 8.0), ("second", 16.0)]


@pytest.mark.parametrize("workers", [0, -1, True, {"mira": 0}, {"mira": "two"}, {"mira": 1.5}])
def test_a_number_of_workers_that_makes_no_sense_is_refused(workers: Any) -> None:
    """The message shows the value and whose it is."""
    sandbox = Sandbox()
    with pytest.raises(ValueError, match=r"workers must be whole numbers from 1, got .+ for mir"):
        sandbox.set_workers(workers)


def test_workers_of_nobody_are_refused() -> None:
    """The message names the providers there are."""
    with pytest.raises(ValueError, match="workers: unknown provider 'nobody'; known: mirako, miragic, mira, milady"):
        Sandbox(workers={"nobody": 1})


class DeafClock(FakeClock):
    """A clock that moves but wakes nobody, so that who asks late has everything to catch up with."""

    def call_at(self, when: float, callback: Callable[[], object]) -> Any:  # noqa: ARG002 - it is deaf
        """Arrange nothing."""
        return super().call_at(when, lambda: None)

    def jump(self, seconds: float) -> None:
        """Move on."""
        self._now += seconds


quarters = st.integers(0, 40).map(lambda number: number / 4)


@given(
    jobs=st.lists(st.tuples(quarters, quarters), min_size=1, max_size=25),
    workers=st.one_of(st.none(), st.integers(1, 4)),
)
def test_the_workshop_does_what_a_queue_at_a_counter_does(jobs: list[tuple[float, float]], workers: int | None) -> None:
    """Whatever comes when and takes how long: beginnings and ends are those of the plainest simulation there is."""
    clock = DeafClock()
    ended: list[Job] = []
    workshop = Workshop(clock, workers={} if workers is None else {"any": workers}, on_end=ended.append)
    made: list[Job] = []
    for gap, duration in jobs:
        clock.jump(gap)
        made.append(job_of(clock, str(len(made)), duration))
        workshop.open(made[-1])
    clock.jump(10_000)
    workshop.catch_up()
    assert [(job.work_at, job.ended_at) for job in made] == at_a_counter(jobs, workers or len(jobs))
    assert sorted(ended, key=lambda job: job.ended_at) == ended
    assert len(set(ended)) == len(ended) == len(jobs)


def job_of(clock: FakeClock, name: str, duration: float) -> Job:
    """Return a job that arrives now."""
    now = clock.monotonic()
    return Job(
        id=name,
        provider="any",
        kind="image",
        prompt="",
        words=Words("Q", "R", "D"),
        created_at=now,
        started_at=now,
        duration=duration,
    )


def at_a_counter(jobs: list[tuple[float, float]], workers: int) -> list[tuple[float, float]]:
    """Return beginning and end of each: whoever comes next is served by whoever is free first."""
    free = [0.0] * workers
    now, served = 0.0, list[tuple[float, float]]()
    for gap, duration in jobs:
        now += gap
        begin = max(now, min(free))
        free[free.index(min(free))] = begin + duration
        served.append((begin, begin + duration))
    return served


# -- what ends a job -------------------------------------------------------------------------------------------------


async def test_status_calls_can_end_a_job() -> None:
    """Each kind at its own number of them, however much time has passed; progress is their share."""
    async with calling(progress={"miragic": 3, "mirako.image": 2, "mirako.avatar": 1}) as caller:
        (job_id,) = await miragic_jobs(caller, 1)
        task, avatar = (await submit(caller, "mirako")).json["data"]["task_id"], await build(caller)
        caller.clock.advance(1e5)
        seen = [await look(caller, job_id) for _ in range(3)]
        assert [(one["status"], one.get("progress")) for one in seen] == [
            ("PENDING", 33),
            ("PENDING", 66),
            ("COMPLETED", None),
        ]
        assert [await mirako_word(caller, task) for _ in range(3)] == ["IN_PROGRESS", "COMPLETED", "COMPLETED"]
        assert (await caller.get(f"/v1/avatar/{avatar}", BEARER)).json["data"]["status"] == "READY"


async def test_a_hand_can_be_the_only_thing_that_ends_a_job() -> None:
    """In manual progress nothing else does, blocking calls included."""
    async with calling(progress="manual") as caller:
        (job_id,) = await miragic_jobs(caller, 1)
        waiting = asyncio.create_task(submit(caller, "mira"))
        await until(lambda: len(caller.sandbox.jobs) == 2)
        caller.clock.advance(1e6)
        assert [(await look(caller, job_id))["status"] for _ in range(3)] == ["PENDING"] * 3
        caller.sandbox.finish_job(job_id)
        assert (await look(caller, job_id))["status"] == "COMPLETED"
        assert not waiting.done()
        caller.sandbox.finish_job(list(caller.sandbox.jobs)[1])
        assert (await waiting).status == 200
        assert caller.sandbox.statistics().purchases == {"miragic": 1, "mira": 1}


@pytest.mark.parametrize(("end", "word"), [("failed", "FAILED"), ("cancelled", "CANCELED"), ("timed_out", "TIMED_OUT")])
async def test_a_hand_can_end_a_job_badly(end: Any, word: str) -> None:
    """With a reason, in the provider's own word; Miragic has one word for all of them."""
    async with calling() as caller:
        task = (await submit(caller, "mirako")).json["data"]["task_id"]
        (job_id,) = await miragic_jobs(caller, 1)
        for one in (task, job_id):
            caller.sandbox.fail_job(one, "the roof leaks", end=end)
        data = (await caller.get(f"{PATHS['mirako']}/{task}/status", BEARER)).json["data"]
        assert (data["status"], data["error"]) == (word, "the roof leaks")
        told = await look(caller, job_id)
        assert (told["status"], told["errorMessage"]) == ("FAILED", "the roof leaks")


@pytest.mark.parametrize(("end", "status"), [("failed", 500), ("cancelled", 500), ("timed_out", 504)])
@pytest.mark.parametrize("provider", ["mira", "milady"])
async def test_whoever_waits_for_a_job_that_is_failed_learns_of_it(provider: str, end: Any, status: int) -> None:
    """A blocking call is answered with an error, and nothing is charged."""
    async with calling(progress="manual") as caller:
        waiting = asyncio.create_task(submit(caller, provider))
        await until(lambda: caller.sandbox.jobs)
        caller.sandbox.fail_job(next(iter(caller.sandbox.jobs)), "the roof leaks", end=end)
        reply = await waiting
        assert (reply.status, "the roof leaks" in str(reply.json)) == (status, True)
        assert caller.sandbox.statistics().purchases == {}


async def test_a_job_ends_once() -> None:
    """Ending it again, ending what is not there, and an end that is none are refused."""
    async with calling() as caller:
        (job_id,) = await miragic_jobs(caller, 1)
        with pytest.raises(ValueError, match="end must be one of failed, cancelled, timed_out; got 'done'"):
            caller.sandbox.fail_job(job_id, end="done")  # type: ignore[arg-type]  # what a caller without types may do
        caller.sandbox.finish_job(job_id)
        for again in (caller.sandbox.finish_job, caller.sandbox.fail_job):
            with pytest.raises(ValueError, match=f"job '{job_id}' has ended: it is COMPLETED"):
                again(job_id)
            with pytest.raises(ValueError, match="no job 'nobody' among the 1 there are"):
                again("nobody")


async def test_a_waiting_job_can_be_ended_and_leaves_the_queue() -> None:
    """The worker goes on with the one behind it."""
    async with calling(workers=1) as caller:
        ids = await miragic_jobs(caller, 3)
        caller.sandbox.fail_job(ids[1])
        caller.clock.advance(16)
        assert [(await look(caller, job_id))["status"] for job_id in ids] == ["COMPLETED", "FAILED", "COMPLETED"]


@pytest.mark.parametrize("rule", [0, -1, True, 1.5, "sometimes", {"mirako": "never"}, {"nobody": 1}, {"mirako:x": 1}])
def test_progress_that_makes_no_sense_is_refused(rule: Any) -> None:
    """The message shows the value or the names there are."""
    sandbox = Sandbox()
    with pytest.raises(ValueError, match=r"progress: (want .*, got|unknown name .*; known: .*mirako\.image)"):
        sandbox.set_progress(rule)


# -- durations -------------------------------------------------------------------------------------------------------


def draws(profile: Any, number: int, *, seed: int = 1) -> list[float]:
    """Return what so many jobs take."""
    durations = Durations(profile, seed=seed, kinds=KINDS)
    return [durations.draw("mirako", "image", model="", now=float(n)) for n in range(number)]


@pytest.mark.parametrize(("median", "sigma"), [(2.0, 0.5), (30.0, 0.1), (0.5, 1.0)])
def test_a_lognormal_has_its_median_and_its_tail(median: float, sigma: float) -> None:
    """Half of the work is faster; one in twenty takes what the spread says; the same in every run with one seed."""
    seen = draws(Lognormal(median=median, sigma=sigma), 8000)
    assert statistics.median(seen) == pytest.approx(median, rel=0.05)
    above = sum(one > median * 2.718281828 ** (1.645 * sigma) for one in seen) / len(seen)
    assert above == pytest.approx(0.05, abs=0.015)
    assert seen == draws(Lognormal(median=median, sigma=sigma), 8000)
    assert seen != draws(Lognormal(median=median, sigma=sigma), 8000, seed=2)


def test_a_lognormal_can_be_bounded_and_can_be_narrow() -> None:
    """No draw exceeds the longest, and without spread every one is the median."""
    bounded = draws(Lognormal(median=2.0, sigma=1.0, longest=3.0), 500)
    assert max(bounded) == 3.0
    assert min(bounded) < 2.0
    assert set(draws(Lognormal(median=2.0, sigma=0.0), 10)) == {2.0}


def test_a_cold_start_costs_extra_at_first_and_after_a_pause() -> None:
    """A pause is longer than `idle` between two beginnings; each provider's worker falls asleep on its own."""
    durations = Durations(ColdStart(warm=2.0, cold=30.0, idle=60.0), seed=1, kinds=KINDS)
    moments = (0.0, 10.0, 70.0, 130.5, 131.0)
    assert [durations.draw("mirako", "image", model="", now=now) for now in moments] == [32, 2, 2, 32, 2]
    assert durations.draw("miragic", "image", model="", now=131.0) == 32
    durations.restart()
    assert durations.draw("mirako", "image", model="", now=131.5) == 32


async def test_a_cold_start_is_seen_from_outside() -> None:
    """The first job takes longer, the next ones do not, and after a pause it does again."""
    async with calling(durations=ColdStart(warm=2.0, cold=30.0)) as caller:
        ids = await miragic_jobs(caller, 2)
        caller.clock.advance(61)
        ids += await miragic_jobs(caller, 1)
        caller.clock.advance(61)
        took = [(await look(caller, job_id))["metadata"]["processingTimeMs"] for job_id in ids]
        assert took == [32000, 2000, 32000]


async def test_a_model_can_have_durations_of_its_own() -> None:
    """What is nearest to the job counts: its model, its kind, its provider, everything else."""
    durations = {"miragic:kontext": 20.0, "miragic.image": 3.0, "miragic": 25.0, "mirako.avatar": 5.0, "mirako": 7.0}
    async with calling(durations=durations) as caller:
        flux, kontext = [(await submit(caller, model=model)).json["data"]["jobId"] for model in ("flux", "kontext")]
        task, avatar = (await submit(caller, "mirako")).json["data"]["task_id"], await build(caller)
        caller.clock.advance(30)
        took = [(await look(caller, job_id))["metadata"]["processingTimeMs"] for job_id in (flux, kontext)]
        assert took == [3000, 20000]
        jobs = caller.sandbox.jobs
        assert (jobs[task].status, jobs[avatar].status) == ("COMPLETED", "READY")


@pytest.mark.parametrize(
    ("value", "setting"),
    [
        (None, None),
        (2.5, (2.5, 2.5)),
        ([1, 3], (1.0, 3.0)),
        ({"median": 2}, Lognormal(median=2)),
        ({"median": 2, "sigma": 0.1, "longest": 9}, Lognormal(median=2, sigma=0.1, longest=9)),
        ({"warm": 1, "cold": 9}, ColdStart(warm=(1.0, 1.0), cold=9)),
        ({"warm": [1, 2], "cold": 9, "idle": 30}, ColdStart(warm=(1.0, 2.0), cold=9, idle=30)),
        ({"warm": {"median": 1}, "cold": 9}, ColdStart(warm=Lognormal(median=1), cold=9)),
        ({}, {}),
        (
            {"mirako.image": [1, 3], "miragic:kontext": {"median": 4}, "mira": 0},
            {"mirako.image": (1.0, 3.0), "miragic:kontext": Lognormal(median=4), "mira": (0.0, 0.0)},
        ),
    ],
)
def test_durations_can_be_written_as_json(value: Any, setting: Any) -> None:
    """Numbers, lists and objects stand for seconds, ranges and distributions, and a sandbox takes what comes out."""
    read = durations_from_json(json.loads(json.dumps(value)))
    assert read == setting
    Sandbox(durations=read)


@pytest.mark.parametrize(
    "value",
    [
        "soon",
        -1,
        [1],
        [3, 1],
        [1, 2, 3],
        {"median": -1},
        {"median": "two"},
        {"median": 1, "sigma": -0.1},
        {"median": 1, "mean": 2},
        {"warm": 1},
        {"warm": 1, "cold": "very"},
        {"warm": {"warm": 1, "cold": 1}, "cold": 2},
        {"mirako": "slow"},
        {"mirako": [2, 1]},
        float("inf"),
    ],
)
def test_json_that_stands_for_no_durations_is_refused(value: Any) -> None:
    """Whatever is wrong with it is a `ValueError` that shows what was given."""
    with pytest.raises(ValueError, match=r"got"):
        durations_from_json(value)


async def test_settings_are_about_later_work() -> None:
    """What was begun under the old ones ends by the old ones."""
    async with calling() as caller:
        (first,) = await miragic_jobs(caller, 1)
        caller.sandbox.set_durations(1.0)
        (second,) = await miragic_jobs(caller, 1)
        caller.sandbox.set_progress({"miragic": 2})
        (third,) = await miragic_jobs(caller, 1)
        caller.clock.advance(1)
        seen = [(await look(caller, job_id))["status"] for job_id in (first, second, third, third)]
        assert seen == ["PENDING", "COMPLETED", "PENDING", "COMPLETED"]
        caller.clock.advance(7)
        assert (await look(caller, first))["status"] == "COMPLETED"


async def test_an_avatar_of_forty_five_minutes_is_over_in_a_moment() -> None:
    """Our own client, on the sandbox's clock: it waits as it would, and nobody else does."""
    began = time.monotonic()
    async with Sandbox(durations={"mirako.avatar": 2700.0}) as sandbox:
        start = sandbox.clock.monotonic()
        sandbox.clock.auto_advance(after=0.01)
        scheduler = Scheduler(policy=BackoffInterval(), clock=sandbox.clock)
        async with MirakoClient("k", base_url=sandbox.url, scheduler=scheduler) as mirako:
            job = await mirako.build_avatar("Ada", encoded())
            assert (await job).status == "READY"
            assert 2700.0 <= sandbox.clock.monotonic() - start < 2800.0
            assert 40 <= job.polls <= 70
    assert time.monotonic() - began < 10


# -- money and manners -----------------------------------------------------------------------------------------------

BROKE: Mapping[str, Any] = {
    "mirako": {"title": "Payment Required", "status": 402, "detail": "Insufficient credits: 1 needed, 0.5 left."},
    "miragic": {"success": False},
    "mira": {"detail": "Insufficient credits: 1 needed, 0.5 left."},
    "milady": {"required": 0.02},
}


@every_provider
async def test_credits_run_out(provider: str) -> None:
    """Each purchase takes its price; the one they do not suffice for is refused in the provider's shape and free."""
    async with calling(durations=0.0) as caller:
        price = 0.02 if provider == "milady" else 1
        caller.sandbox.set_credits(provider, 2.5 * price)
        assert [(await submit(caller, provider)).status for _ in range(2)] == [200, 200]
        reply = await submit(caller, provider)
        assert reply.status == 402
        assert reply.json.items() >= BROKE[provider].items()
        if provider == "miragic":
            assert reply.json["error"]["code"] == "INSUFFICIENT_CREDITS"
        (account,) = caller.sandbox.accounts
        assert (account.requests, account.spent, account.credits) == (3, 2 * price, 0.5 * price)
        assert (caller.sandbox.statistics().purchases, len(caller.sandbox.jobs)) == ({provider: 2}, 2)
        caller.sandbox.set_credits(provider, None)
        assert (await submit(caller, provider)).status == 200


async def test_every_picture_has_its_price_and_a_refused_request_none() -> None:
    """Three pictures are three; a mistake in the request costs nothing."""
    async with calling() as caller:
        caller.sandbox.set_credits("mira", 3)
        assert (await submit(caller, "mira", n=9)).status == 400
        assert [(await submit(caller, "mira", n=n)).status for n in (4, 3, 1)] == [402, 200, 402]


async def test_a_key_can_have_credits_of_its_own() -> None:
    """Every other key has what was set for all, each that much."""
    async with calling() as caller:
        caller.sandbox.set_credits("miragic", 1)
        caller.sandbox.set_credits("miragic", 2, key="rich")
        seen = {who: [(await submit(caller, who=who)).status for _ in range(3)] for who in ("rich", "poor", "other")}
        assert seen == {"rich": [200, 200, 402], "poor": [200, 402, 402], "other": [200, 402, 402]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nobody", 1), "unknown provider 'nobody'; known: mirako, miragic, mira, milady"),
        (("mira", -1), "credits must be 0 .*, or None for any number, got -1"),
        (("mira", True), "got True"),
        (("mira", float("inf")), "got inf"),
    ],
)
def test_credits_that_make_no_sense_are_refused(arguments: Any, message: str) -> None:
    """The message shows the value."""
    with pytest.raises(ValueError, match=message):
        Sandbox().set_credits(*arguments)


@every_provider
async def test_a_rate_limit_is_told_enforced_and_refilled(provider: str) -> None:
    """Every answer says what is left; the one too many says when to come back, and then it passes."""
    async with calling(durations=0.0) as caller:
        caller.sandbox.set_rate_limit(provider, 3, seconds=6)
        replies = [await submit(caller, provider) for _ in range(4)]
        assert [reply.status for reply in replies] == [200, 200, 200, 429]
        assert [reply.headers["X-RateLimit-Remaining"] for reply in replies] == ["2", "1", "0", "0"]
        assert {reply.headers["X-RateLimit-Limit"] for reply in replies} == {"3"}
        assert {reply.headers["X-RateLimit-Policy"] for reply in replies} == {"3;w=6"}
        # The clock stands at 1,700,001,000 seconds, and an empty bucket is full after six more.
        assert replies[3].headers["X-RateLimit-Reset"] == "2023-11-14T22:30:06.000Z"
        assert [reply.headers.get("Retry-After") for reply in replies] == [None, None, None, "2"]
        caller.clock.advance(1.9)
        assert (await submit(caller, provider)).status == 429
        caller.clock.advance(0.1)
        assert [(await submit(caller, provider)).status for _ in range(2)] == [200, 429]
        caller.clock.advance(1000)
        assert [(await submit(caller, provider)).status for _ in range(4)] == [200, 200, 200, 429]


async def test_miladys_refusal_for_haste_has_a_shape_of_its_own() -> None:
    """The wait stands in the body too, and a refused request buys nothing."""
    async with calling() as caller:
        caller.sandbox.set_rate_limit("milady", 1, seconds=10)
        assert (await submit(caller, "milady")).status == 200
        reply = await submit(caller, "milady")
        assert reply.status == 429
        assert (reply.json["success"], reply.json["code"], reply.json["retryAfter"]) == (
            False,
            "rate_limit_exceeded",
            10,
        )
        assert caller.sandbox.statistics().purchases == {"milady": 1}


async def test_what_one_key_has_stays_its_own() -> None:
    """Credits and limits that are set for every key, before or after, leave it alone until all are taken away."""
    async with calling() as caller:
        caller.sandbox.set_credits("miragic", 2, key="own")
        caller.sandbox.set_rate_limit("mira", 2, key="own")
        for _ in range(2):
            caller.sandbox.set_credits("miragic", 1)
            caller.sandbox.set_rate_limit("mira", 1)
        for provider, refusal in (("miragic", 402), ("mira", 429)):
            seen = [[(await submit(caller, provider, who=who)).status for _ in range(3)] for who in ("own", "other")]
            assert seen == [[200, 200, refusal], [200, refusal, refusal]]
        caller.sandbox.set_credits("miragic", 1)
        assert [(await submit(caller, who=who)).status for who in ("own", "other")] == [402, 200]
        caller.sandbox.reset("rules")
        caller.sandbox.set_credits("miragic", 0)
        assert (await submit(caller, who="own")).status == 402


async def test_a_rate_limit_is_per_key() -> None:
    """Each key has its own, a key may have another, and None lifts it."""
    async with calling() as caller:
        caller.sandbox.set_rate_limit("miragic", 1)
        caller.sandbox.set_rate_limit("miragic", None, key="free")
        seen = {who: [(await submit(caller, who=who)).status for _ in range(2)] for who in ("a", "b", "free")}
        assert seen == {"a": [200, 429], "b": [200, 429], "free": [200, 200]}
        caller.sandbox.set_rate_limit("miragic", None)
        reply = await submit(caller, who="a")
        assert (reply.status, reply.headers.get("X-RateLimit-Limit")) == (200, None)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("nobody", 1), {}, "unknown provider 'nobody'"),
        (("mira", 0), {}, "requests must be a whole number from 1.*, or None.*, got 0"),
        (("mira", True), {}, "got True"),
        (("mira", 1.5), {}, "got 1.5"),
        (("mira", 1), {"seconds": 0}, "seconds must be more than 0 and at most 86400, got 0"),
        (("mira", 1), {"seconds": 86_401}, "got 86401"),
    ],
)
def test_rate_limits_that_make_no_sense_are_refused(arguments: Any, options: dict[str, Any], message: str) -> None:
    """The message shows the value."""
    with pytest.raises(ValueError, match=message):
        Sandbox().set_rate_limit(*arguments, **options)


async def test_accounts_do_not_give_their_keys_away() -> None:
    """A key is known by a short name, the same everywhere; neither views nor requests hold the key itself."""
    async with calling() as caller:
        secrets = ("sk-very-secret-1", "sk-very-secret-2")
        for who in secrets:
            await submit(caller, "miragic", who=who)
        caller.sandbox.set_credits("mira", 5, key=secrets[0])
        accounts = caller.sandbox.accounts
        assert [account.provider for account in accounts] == ["mira", "miragic", "miragic"]
        assert {account.account for account in accounts} == {seen.account for seen in caller.sandbox.requests}
        shown = repr((accounts, caller.sandbox.requests, caller.sandbox.transcript(), caller.sandbox))
        assert "sk-very-secret" not in shown


# -- beginning anew --------------------------------------------------------------------------------------------------


async def eventful(caller: Caller) -> None:
    """Leave traces of every kind."""
    caller.sandbox.set_credits("miragic", 5)
    caller.sandbox.set_rate_limit("mira", 1)
    caller.sandbox.fail("milady.generate", "500")
    await miragic_jobs(caller, 2)


async def test_the_state_can_be_forgotten_and_the_rules_kept() -> None:
    """Jobs, requests and the bill are gone and ids begin again; faults, credits and limits stay."""
    async with calling() as caller:
        first = await miragic_jobs(caller, 1)
        caller.sandbox.reset()
        await eventful(caller)
        caller.sandbox.reset("state")
        figures = caller.sandbox.statistics()
        assert (dict(caller.sandbox.jobs), caller.sandbox.requests) == ({}, [])
        assert (figures.requests, figures.purchases, figures.open_jobs, figures.faults_waiting) == ({}, {}, 0, 1)
        (account,) = caller.sandbox.accounts
        assert (account.requests, account.spent, account.credits) == (0, 0, 3)
        assert await miragic_jobs(caller, 1) == first
        assert caller.sandbox.requests[0].number == 1


async def test_chance_begins_anew_with_the_state() -> None:
    """Jobs after it take as long as the first ones did."""
    async with calling(durations=(1.0, 3.0)) as caller:
        runs: list[list[int]] = []
        for _ in range(2):
            ids = await miragic_jobs(caller, 4)
            caller.clock.advance(3)
            runs.append([(await look(caller, job_id))["metadata"]["processingTimeMs"] for job_id in ids])
            caller.sandbox.reset("state")
        assert runs[0] == runs[1]
        assert len(set(runs[0])) == 4


async def test_the_rules_can_be_forgotten_and_the_state_kept() -> None:
    """Faults, credits and limits are gone; jobs and requests stay."""
    async with calling() as caller:
        await eventful(caller)
        caller.sandbox.reset("rules")
        assert (caller.sandbox.faults, len(caller.sandbox.jobs), len(caller.sandbox.requests)) == ([], 2, 2)
        (account,) = caller.sandbox.accounts
        assert (account.spent, account.credits) == (2, None)
        assert [(await submit(caller, "mira")).status for _ in range(2)] == [200, 200]


async def test_everything_can_be_forgotten_but_settings_and_time() -> None:
    """Durations stay as they were set, and the clock where it stands; a scope that is none is refused."""
    async with calling() as caller:
        await eventful(caller)
        caller.sandbox.set_durations(5.0)
        caller.clock.advance(100)
        caller.sandbox.reset()
        assert (caller.sandbox.faults, caller.sandbox.accounts, caller.sandbox.requests) == ([], [], [])
        (job_id,) = await miragic_jobs(caller, 1)
        caller.clock.advance(5)
        assert (await look(caller, job_id))["metadata"]["processingTimeMs"] == 5000
        assert caller.elapsed == 105
        with pytest.raises(ValueError, match='scope must be "all", "state" or "rules", got \'jobs\''):
            caller.sandbox.reset("jobs")  # type: ignore[arg-type]  # what a caller without types may do


@pytest.mark.parametrize("scope", ["state", "all"])
async def test_whoever_waits_for_a_job_that_is_forgotten_is_told(scope: Any) -> None:
    """A blocking call is answered with an error rather than left alone, and gives nothing back that nobody spent."""
    async with calling(progress="manual") as caller:
        waiting = asyncio.create_task(submit(caller, "mira"))
        await until(lambda: caller.sandbox.jobs)
        caller.sandbox.reset(scope)
        reply = await asyncio.wait_for(waiting, 30)
        assert (reply.status, reply.json["detail"]) == (500, "The sandbox was reset.")
        assert {account.spent for account in caller.sandbox.accounts} <= {0.0}
        assert caller.sandbox.statistics().purchases == {}


# -- what is remembered ----------------------------------------------------------------------------------------------


def test_the_latest_ended_jobs_are_kept_and_all_open_ones() -> None:
    """The job that ended longest ago goes first, whenever it began."""
    clock = FakeClock()
    store = JobStore(clock, most_ended=2)
    jobs = [job_of(clock, name, 1.0) for name in "abcd"]
    for job in jobs:
        store.add(job)
    for job in (jobs[2], jobs[0], jobs[1]):
        job.end = Station.DONE
        store.note_end(job)
    assert list(store) == ["a", "b", "d"]


async def test_a_job_that_ended_is_noted_as_ended() -> None:
    """However it did, and once: what a sandbox keeps of them is bounded, here by far less than it is by itself."""
    async with calling() as caller:
        caller.sandbox._world.jobs._most_ended = 2
        ids = await miragic_jobs(caller, 4)
        caller.sandbox.fail_job(ids[3])
        caller.sandbox.finish_job(ids[0])
        caller.sandbox.finish_job(ids[2])
        assert list(caller.sandbox.jobs) == [ids[0], ids[1], ids[2]]


PICTURE = Picture(prompt="p", seed=1, width=8, height=8, format="PNG")


def test_links_are_forgotten_an_hour_after_their_end() -> None:
    """Until then it is known that they have expired; permanent ones stay, and so do those that still work."""
    clock = DeafClock()
    links = Links(clock)
    links.add("ever", PICTURE, job_id="j")
    links.add("brief", PICTURE, job_id="j", lifetime=10)
    for status, seconds in ((410, 3609), (404, 2)):
        clock.jump(seconds)
        links.add(f"after-{seconds}", PICTURE, job_id="j", lifetime=10)
        with pytest.raises(RefusalError, match=r".") as refusal:
            links.open("brief")
        assert refusal.value.status == status
    assert links.open("ever").picture == PICTURE
    assert len(links) == 3


def test_only_the_newest_links_are_kept() -> None:
    """A clock that stands still lets none expire, and the oldest go all the same."""
    links = Links(FakeClock(), most=3)
    for number in range(10):
        links.add(str(number), PICTURE, job_id="j", lifetime=10 if number % 2 else None)
    assert [number for number in range(10) if links.find(str(number))] == [7, 8, 9]
    assert len(links) == 3


def test_a_long_prompt_is_kept_in_brief() -> None:
    """Up to 4,000 characters stay as they are; of more, the beginning and all faults do, and every character counts."""
    assert shortened("p" * 4000) == "p" * 4000
    first, second = (shortened("p" * 5000 + "[[fault:stuck]]" + "q" * 5000 + end + " [[fault:429 x2]]") for end in "ab")
    assert first != second
    assert len(first) == len(shortened(first)) == 4000
    assert [one.order for one in directives_in(first)] == ["stuck", "429x2"]
    split = shortened("p" * 3990 + "[[fault:404@status]]" + "q" * 100)
    assert [one.order for one in directives_in(split)] == ["404@status"]


@pytest.mark.parametrize("provider", ["mirako", "miragic"])
async def test_the_end_of_a_long_prompt_counts(provider: str) -> None:
    """It changes the picture, seed or no seed, and orders faults for what comes later; the rest is not kept."""
    async with calling(durations=0.0) as caller:
        long = "a quiet lake " * 500
        seeds: dict[str, Any] = {"seed": 7} if provider == "mirako" else {}
        prompts = (long, long + "!", long + "[[fault:404@status]]", long)
        replies = [await submit(caller, provider, prompt=prompt, **seeds) for prompt in prompts]
        ids = [reply.json["data"]["task_id" if provider == "mirako" else "jobId"] for reply in replies]
        path = f"{PATHS['mirako']}/{{}}/status" if provider == "mirako" else "/api/v1/image/jobs/{}"
        first, second, third, fourth = [await caller.get(path.format(one), key("k")) for one in ids]
        assert (third.status, (await caller.get(path.format(ids[2]), key("k"))).status) == (404, 200)
        pictures: list[Any] = []
        for reply in (first, second, fourth):
            data = reply.json["data"]
            pictures.append(
                data["image"] if provider == "mirako" else (await caller.get(data["processedImageUrl"])).body
            )
        assert pictures[0] != pictures[1]
        assert pictures[0] == pictures[2]
        assert {len(job.prompt) for job in caller.sandbox.jobs.values()} == {4000}


def seen_request(operation: str = "mira.generate") -> SeenRequest:
    """Return a request as it looks when its head has arrived."""
    return SeenRequest(
        operation=operation,
        provider="mira",
        method="POST",
        path="/",
        query={},
        headers={},
        authorized=True,
        body=b"",
        fields={},
        at=0.0,
        status=None,
    )


def test_the_log_keeps_the_latest_requests() -> None:
    """The oldest go first; the count goes on, and what is no longer kept cannot be amended."""
    log = RequestLog(most=3)
    assert [log.arrive(seen_request()) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert [request.number for request in log.all()] == [3, 4, 5]
    assert (len(log), log.count()) == (5, {"mira.generate": 5})
    log.amend(1, status=200)
    log.amend(4, status=200)
    assert [request.status for request in log.all()] == [None, 200, None]
    log.clear()
    assert (log.all(), len(log), log.count()) == ([], 0, {})
    serial = log.arrive(seen_request())
    log.amend(5, status=418)  # one that was being served when everything was forgotten
    log.amend(serial, status=200)
    assert [(request.number, request.status) for request in log.all()] == [(1, 200)]


def test_the_log_keeps_the_latest_bodies() -> None:
    """The oldest go first and their fields with them; the newest stays, however large."""
    log = RequestLog(most_body_bytes=10)
    for body in (b"abcd", b"efgh", b"ij", b"k", b"x" * 50):
        log.amend(log.arrive(seen_request()), body=body, fields={"prompt": body.decode()})
        kept = [request.body for request in log.all()]
        assert len(body) == 50 or sum(map(len, kept)) <= 10
    assert kept == [b"", b"", b"", b"", b"x" * 50]
    assert [bool(request.fields) for request in log.all()] == [False] * 4 + [True]


async def test_requests_can_be_found() -> None:
    """By any of what they had, and by several at once; what is no filter is refused."""
    async with calling() as caller:
        (job_id,) = await miragic_jobs(caller, 1)
        await look(caller, job_id)
        await submit(caller, "mira", prompt="a red fox")
        await submit(caller, "mira", prompt="")
        found = caller.sandbox.find_requests

        def numbers(**filters: Any) -> list[int]:
            return [request.number for request in found(**filters)]

        assert numbers() == [1, 2, 3, 4]
        assert numbers(provider="mira") == [3, 4]
        assert numbers(operation="miragic.status") == [2]
        assert numbers(method="get") == [2]
        assert numbers(status=400) == [4]
        assert numbers(job_id=job_id) == [2]
        assert numbers(prompt="fox") == [3]
        assert numbers(after=2) == [3, 4]
        assert numbers(provider="mira", status=200, after=1) == [3]
        assert numbers(provider="nobody") == []
        with pytest.raises(TypeError, match="colour"):
            found(colour="red")


SECRET = "sk-secret-0123456789"


async def mixed(seed: int) -> tuple[str, str]:
    """Do a little of everything with every provider, one thing after the other; return the transcript and the URL."""
    durations = {"mirako.image": 0.0, "mira": 0.0, "milady": 0.0}
    async with calling(seed=seed, durations=durations, progress=2) as caller:
        caller.sandbox.fail("mirako.avatar_list", "500", "502:html", times=None, probability=0.4)
        scheduler = Scheduler(policy=FixedInterval(0.004))
        keys = dict.fromkeys(caller.sandbox.base_urls, SECRET)
        async with Mirage(keys, base_urls=caller.sandbox.base_urls, scheduler=scheduler) as mirage:
            await (await mirage.mirako.submit("a lighthouse", seed=7))
            await mirage.mirako.generate("a lighthouse [[fault:mislabelled]]")
            await (await mirage.mirako.build_avatar("Ada", encoded()))
            await mirage.miragic.generate("a lake [[fault:expired]]", width=256, height=256)
            for picture in (await mirage.mira.generate("a pond", n=2)).images:
                await picture.read()
            await (await mirage.milady.generate("a puddle")).image.read()
        for _ in range(10):
            await caller.get("/v1/avatar/list", key(SECRET))
        await submit(caller, "mira", who=SECRET, n=9)
        await caller.get("/nowhere", key(SECRET))
        await caller.get(PATHS["mirako"])
        return json.dumps(caller.sandbox.transcript(), indent=1), caller.sandbox.url


async def test_two_runs_with_one_seed_have_one_transcript() -> None:
    """Two sandboxes on two ports that were asked the same tell the same; another seed tells something else."""
    (first, url), (second, other_url), (third, _) = await mixed(1), await mixed(1), await mixed(2)
    assert first == second
    assert first != third
    assert url != other_url
    entries = json.loads(first)
    assert len(entries) > 25
    assert all(entry["answer_digest"] for entry in entries)


async def test_a_transcript_tells_neither_address_nor_key() -> None:
    """It can be kept beside the tests, and compared on another machine."""
    transcript, url = await mixed(1)
    assert f":{url.rpartition(':')[2]}" not in transcript
    assert url not in transcript
    assert SECRET not in transcript


async def test_settings_change_together_or_not_at_all() -> None:
    """One wrong value leaves the others as they were, and a name that is none is told."""
    async with calling(durations=8.0) as caller:
        with pytest.raises(ValueError, match="workers must be whole numbers from 1, got 0"):
            caller.sandbox.set_all(durations=1.0, workers=0)
        with pytest.raises(TypeError, match="unknown setting 'speed'; known: durations, progress, workers"):
            caller.sandbox.set_all(durations=1.0, speed=2)
        (before,) = await miragic_jobs(caller, 1)
        caller.sandbox.set_all(durations=1.0, progress=None, workers=4)
        (after,) = await miragic_jobs(caller, 1)
        caller.clock.advance(1.0)
        jobs = caller.sandbox.jobs
        assert (jobs[before].status, jobs[after].status) == ("PENDING", "COMPLETED")
