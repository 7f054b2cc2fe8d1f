"""Every fault on the sandbox's list, ordered by the prompt itself and met by our own clients: what the caller gets."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import pytest
from impatient import HastyClock, ImpatientClock
from PIL import Image
from purchases import PURCHASES, Purchase, buying

from mirage_async.exceptions import (
    AuthenticationError,
    BadRequestError,
    DownloadError,
    DownloadExpiredError,
    InsufficientCreditsError,
    JobCancelledError,
    JobExpiredError,
    JobFailedError,
    MirageError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    SubmissionUncertainError,
    WaitTimeoutError,
)
from mirage_async.models import Avatar, Generation
from mirage_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.anyio

Outcome: TypeAlias = tuple[type[MirageError], str]
UNCERTAIN: Outcome = (SubmissionUncertainError, "unknown")
LONG = 100_000.0  # seconds on a clock that runs a hundred times as fast
SOON = 1.0  # seconds of real time; a busy machine answers within it

BY_NAME = {purchase.name: purchase for purchase in PURCHASES}
every_purchase = pytest.mark.parametrize("purchase", PURCHASES, ids=repr)
every_job = pytest.mark.parametrize("purchase", [one for one in PURCHASES if not one.blocking], ids=repr)
every_link = pytest.mark.parametrize(
    "purchase", [one for one in PURCHASES if one.provider in {"miragic", "mira", "milady"}], ids=repr
)


def purchases_of(*names: str) -> pytest.MarkDecorator:
    """Return the mark that runs a test for these purchases."""
    return pytest.mark.parametrize("purchase", [BY_NAME[name] for name in names], ids=repr)


def prompt_for(*orders: str) -> str:
    """Return a prompt that orders faults for itself."""
    return " ".join(["a fox", *(f"[[fault:{order}]]" for order in orders)])


async def delivered(purchase: Purchase, client: Any, *orders: str, **options: Any) -> Any:
    """Buy with a prompt that orders faults, and return the result."""
    bought = await purchase.buy(client, prompt=prompt_for(*orders), **options)
    return bought if purchase.blocking else await bought


async def is_usable(result: Any) -> bool:
    """Tell whether an avatar is ready, or every picture there is can be read and decoded to its last line."""
    if isinstance(result, Avatar):
        return result.status == "READY"
    assert isinstance(result, Generation)
    for picture in result.images:
        image = Image.open(io.BytesIO(await picture.read()))
        image.load()
        assert picture.mime_type == f"image/{image.format}".lower()
    return bool(result.images)


def requests_to(sandbox: Sandbox, stage: str) -> int:
    """Return how many requests the operations of one stage, such as "status", have had."""
    requests = sandbox.statistics().requests
    return sum(count for name, count in requests.items() if name.endswith(stage))


# -- the request that buys -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One order for the request that buys, and what it comes to.

    Attributes:
        order: what stands in the prompt.
        says: the rule.
        outcome: the exception's class and its `billed`; None where the purchase is delivered.
        posts: requests the sandbox was sent.
        bought: purchases it counted.
        retry_after: least and greatest seconds the exception tells.
        waits: the least seconds waited between the attempts, in all.
        timeout: seconds the client waits for an answer.
        elsewhere: other outcomes, by provider.
    """

    order: str
    says: str
    outcome: Outcome | None = None
    posts: int = 1
    bought: int = 0
    retry_after: tuple[float, float] | None = None
    waits: float = 0.0
    timeout: float = 10.0
    elsewhere: Mapping[str, Outcome] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.order


TOO_MANY: Outcome = (RateLimitError, "no")
BUSY: Outcome = (ServerError, "no")
# Milady's page says what its 500 means, and Miragic's shape of an error denies success.
SAYS_FAILED: Mapping[str, Outcome] = {"milady": (ServerError, "unknown")}
DENIES: Mapping[str, Outcome] = {"miragic": (BadRequestError, "no")}

ROWS = (
    Row("401", "a wrong key costs nothing", (AuthenticationError, "no")),
    Row("402", "an empty account costs nothing", (InsufficientCreditsError, "no")),
    Row("403", "a forbidden request costs nothing", (PermissionDeniedError, "no")),
    Row("404", "a wrong address costs nothing", (NotFoundError, "no")),
    Row("413", "a request that is too large costs nothing", (BadRequestError, "no")),
    Row("422", "a refused argument costs nothing", (BadRequestError, "no")),
    Row("429", "asked to slow down once, we do and buy once", None, posts=2, bought=1, waits=0.5),
    Row("429x2", "two re-sends are made", None, posts=3, bought=1, waits=1.5),
    Row("429x3", "a third one is not", TOO_MANY, posts=3, waits=1.5),
    Row("429:1", "the wait in seconds is kept", None, posts=2, bought=1, waits=1.0),
    Row("429:1x3", "and told in the end", TOO_MANY, posts=3, retry_after=(1, 1), waits=2.0),
    Row("429:date", "so is a wait until a date", None, posts=2, bought=1, waits=1.0),
    Row("429:datex*", "and told in seconds", TOO_MANY, posts=3, retry_after=(1, 2), waits=2.0),
    Row("429:3600", "an hour is not waited out but told", TOO_MANY, retry_after=(3600, 3600)),
    Row("500", "a failure may have been bought", UNCERTAIN, elsewhere=SAYS_FAILED),
    Row("500:html", "a page says nothing about money, whoever documents what", UNCERTAIN),
    Row("502:html", "a gateway does not know what happened behind it", UNCERTAIN),
    Row("503", "unavailable for how long nobody says", UNCERTAIN),
    Row("503:html", "a page that says so is no better", UNCERTAIN),
    Row("503:1", "a busy server that names a wait has taken nothing", None, posts=2, bought=1, waits=1.0),
    Row("503:1x*", "and is given up on after two re-sends", BUSY, posts=3, retry_after=(1, 1), waits=2.0),
    Row("hang", "silence is given up on, once", UNCERTAIN, timeout=SOON),
    Row("hang:0.05", "a connection that ends in silence says nothing", UNCERTAIN),
    Row("reset", "a reset says nothing, even where nothing was bought", UNCERTAIN),
    Row("reset-after", "nor where the work was done", UNCERTAIN, bought=1),
    Row("lost", "a submit reply that never comes", UNCERTAIN, bought=1),
    Row("truncated", "a body that stops in the middle", UNCERTAIN, bought=1),
    Row("truncated:0", "a body that never begins", UNCERTAIN, bought=1),
    Row("cut-head", "a head that stops in the middle", UNCERTAIN),
    Row("garbage", "an answer in another protocol", UNCERTAIN),
    Row("invalid-json", "an answer nobody can read", UNCERTAIN, bought=1),
    Row("error-body", "a 200 with an error in it", UNCERTAIN, elsewhere=DENIES),
    Row("dribble:0.05", "an answer that takes its time is an answer", None, bought=1),
)


@every_purchase
@pytest.mark.parametrize("row", ROWS, ids=repr)
async def test_an_order_for_a_purchase_has_its_outcome(purchase: Purchase, row: Row) -> None:
    """The exception, its `billed`, the wait it tells, the POSTs and the purchases are those of the table."""
    clock = ImpatientClock()
    with anyio.fail_after(20):
        async with (
            Sandbox(durations=0.0) as sandbox,
            buying(purchase, sandbox.url, clock, timeout=row.timeout) as client,
        ):
            outcome = row.elsewhere.get(purchase.provider, row.outcome)
            if outcome is None:
                assert await is_usable(await delivered(purchase, client, row.order))
            else:
                with pytest.raises(outcome[0], match=purchase.provider) as caught:
                    await delivered(purchase, client, row.order)
                assert (type(caught.value), caught.value.billed) == outcome
                low, high = row.retry_after or (0, 0)
                assert low <= (getattr(caught.value, "retry_after", None) or 0) <= high
            statistics = sandbox.statistics()
            assert statistics.requests[purchase.operation] == row.posts
            assert statistics.purchases == ({purchase.provider: row.bought} if row.bought else {})
            assert client.jobs == ()
    assert sum(clock.slept) >= row.waits
    assert bool(clock.slept) == (row.posts > 1)


async def test_the_price_that_could_not_be_paid_is_told() -> None:
    """Milady names it beside its 402."""
    purchase = BY_NAME["milady.generate"]
    with anyio.fail_after(20):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url) as milady:
            with pytest.raises(InsufficientCreditsError, match="milady answered 402") as caught:
                await delivered(purchase, milady, "402")
    assert caught.value.required == 0.02


@every_purchase
async def test_faults_of_one_prompt_follow_each_other(purchase: Purchase) -> None:
    """What stands first in the prompt strikes first: slowed down, then lost."""
    with anyio.fail_after(20):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url) as client:
            with pytest.raises(SubmissionUncertainError, match=purchase.provider):
                await delivered(purchase, client, "429", "lost")
            assert [seen.fault for seen in sandbox.requests] == ["status=429", "stall=0 when=after"]
            assert sandbox.statistics().purchases == {purchase.provider: 1}


# -- how a job ends --------------------------------------------------------------------------------------------------

ENDS: Mapping[str, Mapping[str, type[MirageError]]] = {
    "mirako.submit": {"failed": JobFailedError, "cancelled": JobCancelledError, "timed-out": JobExpiredError},
    "mirako.build_avatar": dict.fromkeys(("failed", "cancelled", "timed-out"), JobFailedError),
    "miragic.submit": dict.fromkeys(("failed", "cancelled", "timed-out"), JobFailedError),
    "mirako.generate": dict.fromkeys(("failed", "cancelled", "timed-out"), SubmissionUncertainError),
    "mira.generate": dict.fromkeys(("failed", "cancelled", "timed-out"), SubmissionUncertainError),
    "milady.generate": {"failed": ServerError, "cancelled": ServerError, "timed-out": SubmissionUncertainError},
}


@every_purchase
@pytest.mark.parametrize("order", ["failed", "cancelled", "timed-out"])
async def test_a_bad_end_is_told_in_the_provider_s_terms(purchase: Purchase, order: str) -> None:
    """A job that ends badly was accepted and is asked about once; no document says whether it is paid for."""
    with anyio.fail_after(20):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url) as client:
            with pytest.raises(ENDS[purchase.name][order], match=purchase.provider) as caught:
                await delivered(purchase, client, order)
            assert (type(caught.value), caught.value.billed) == (ENDS[purchase.name][order], "unknown")
            assert sandbox.statistics().purchases == ({} if purchase.blocking else {purchase.provider: 1})
            assert requests_to(sandbox, "status") == (not purchase.blocking)
            assert sandbox.statistics().requests[purchase.operation] == 1


@every_job
async def test_a_job_that_never_ends_is_left_to_its_token(purchase: Purchase) -> None:
    """The wait ends with `max_wait`; what was bought is found again by the token, and delivered once it is done."""
    with anyio.fail_after(20):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url) as client:
            job = await purchase.buy(client, prompt=prompt_for("stuck"), max_wait=SOON)
            with pytest.raises(WaitTimeoutError, match="lives on: attach with its token") as caught:
                await job
            assert (caught.value.billed, caught.value.job_id) == ("yes", job.id)
            assert job.polls > 1
            sandbox.finish_job(job.id)
            assert await is_usable(await client.job(caught.value.token))
            assert sandbox.statistics().purchases == {purchase.provider: 1}


@pytest.mark.parametrize("purchase", [one for one in PURCHASES if one.blocking], ids=repr)
async def test_an_answer_that_never_comes_is_uncertain(purchase: Purchase) -> None:
    """A blocking request about a job that is stuck has no token: the client's timeout ends it."""
    with anyio.fail_after(20):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url, timeout=SOON) as client:
            with pytest.raises(SubmissionUncertainError, match=r"no answer within 1 s") as caught:
                await delivered(purchase, client, "stuck")
            assert caught.value.billed == "unknown"
            assert sandbox.statistics().requests == {purchase.operation: 1}


@every_job
async def test_a_status_that_goes_back_is_not_believed(purchase: Purchase) -> None:
    """The provider says running, queued, running, done; the caller never sees a job return to the queue."""
    with anyio.fail_after(20):
        async with Sandbox(progress=4) as sandbox, buying(purchase, sandbox.url) as client:
            job = await purchase.buy(client, prompt=prompt_for("backwards"))
            seen = [update.status async for update in job.updates()]
            assert seen == sorted(seen, key=["queued", "running", "succeeded"].index)
            assert await is_usable(await job)
            assert job.polls == 4
            assert sandbox.statistics().purchases == {purchase.provider: 1}


# -- the status calls ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """One order for status calls, and what it comes to.

    Attributes:
        order: what stands in the prompt.
        says: the rule.
        requests: status requests the sandbox has seen when it is over.
        outcome: the exception's class and its `billed`; None where the job is delivered.
        timeout: seconds the client waits for an answer.
        unseen: the connection ended without a byte, and the HTTP library may have asked again by itself.
        again: the client is so impatient that on a busy machine an answer may come too late, and it asks once more.
    """

    order: str
    says: str
    requests: int = 2
    outcome: Outcome | None = None
    timeout: float = 10.0
    unseen: bool = False
    again: bool = False

    def __repr__(self) -> str:
        return self.order


ASKED = (
    Asked("404x2@status", "a job may be unknown for a moment after it was accepted", requests=3),
    Asked("404x4@status", "unknown four times in a row is believed", 4, (NotFoundError, "unknown")),
    Asked("401@status", "a key that is refused ends the asking", 1, (AuthenticationError, "yes")),
    Asked("403@status", "so does a question that is forbidden", 1, (PermissionDeniedError, "yes")),
    Asked("422@status", "and one that is refused", 1, (BadRequestError, "yes")),
    Asked("429@status", "too many questions are asked again"),
    Asked("429:1@status", "after the seconds that were named"),
    Asked("429:date@status", "or at the date that was named"),
    Asked("500x3@status", "a server in trouble is asked again", requests=4),
    Asked("502:html@status", "whatever page a gateway shows"),
    Asked("503@status", "an unavailable one as well"),
    Asked("503:1@status", "with or without a wait"),
    Asked("503:html@status", "or a page"),
    Asked("hang@status", "silence is not waited out for ever", timeout=SOON, again=True),
    Asked("reset@status", "a reset says nothing about the job", unseen=True),
    Asked("reset-after@status", "whenever it comes", unseen=True),
    Asked("lost@status", "an answer that never comes is asked for again", unseen=True),
    Asked("cut-head@status", "so is one with half a head", unseen=True),
    Asked("garbage@status", "or in another protocol"),
    Asked("truncated@status", "or cut in its body"),
    Asked("dribble:0.05@status", "one that takes its time is read", requests=1),
    Asked("invalid-json@status", "one that nobody can read is not"),
    Asked("unknown-status", "a word of tomorrow is neither success nor failure"),
    Asked("unknown-statusx5", "however often it comes", requests=6),
    Asked("stuckx2@status", "a job that seems to stand still is asked about again", requests=3),
    Asked("backwardsx2@status", "or to be back in the queue", requests=3),
    Asked("failed@status", "a failure is believed at once", 1, (JobFailedError, "unknown")),
)


@every_job
@pytest.mark.parametrize("row", ASKED, ids=repr)
async def test_an_order_for_the_status_calls_has_its_outcome(purchase: Purchase, row: Asked) -> None:
    """Trouble with a question costs time only; where the asking ends, the purchase and the job are still there."""
    with anyio.fail_after(20):
        async with (
            Sandbox(durations=0.0) as sandbox,
            buying(purchase, sandbox.url, HastyClock(), timeout=row.timeout) as client,
        ):
            job = await purchase.buy(client, prompt=prompt_for(row.order), max_wait=LONG)
            if row.outcome is None:
                assert await is_usable(await job)
            else:
                with pytest.raises(row.outcome[0], match=purchase.provider) as caught:
                    await job
                assert (type(caught.value), caught.value.billed) == row.outcome
            asked = requests_to(sandbox, "status")
            assert asked >= row.requests if row.again else asked == row.requests
            assert job.polls <= asked if row.unseen else job.polls >= asked if row.again else job.polls == asked
            assert sandbox.statistics().purchases == {purchase.provider: 1}
            if row.outcome is not None and not job.done:
                assert await is_usable(await job.result(max_wait=LONG))


async def test_an_error_in_a_200_says_nothing_about_a_mirako_task() -> None:
    """A status answer without a status is asked for again."""
    for name in ("mirako.submit", "mirako.build_avatar"):
        purchase = BY_NAME[name]
        with anyio.fail_after(20):
            async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url, HastyClock()) as mirako:
                job = await purchase.buy(mirako, prompt=prompt_for("error-body@status"), max_wait=LONG)
                assert await is_usable(await job)
                assert job.polls == 2


# -- the result ------------------------------------------------------------------------------------------------------


@purchases_of("mirako.submit", "miragic.submit")
@pytest.mark.parametrize("times", [1, 2])
async def test_success_without_a_picture_is_asked_about_again(purchase: Purchase, times: int) -> None:
    """A provider may announce success a moment before it can show the picture."""
    with anyio.fail_after(20):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url) as client:
            result = await delivered(purchase, client, f"no-imagex{times}")
            assert await is_usable(result)
            assert result.polls == times + 1


@purchases_of("mirako.submit", "miragic.submit")
async def test_success_without_a_picture_is_believed_at_last(purchase: Purchase) -> None:
    """Three answers of that kind are a failed job that was paid for."""
    with anyio.fail_after(20):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url) as client:
            with pytest.raises(JobFailedError, match="is finished without a usable result") as caught:
                await delivered(purchase, client, "no-imagex*")
            assert caught.value.billed == "yes"
            assert requests_to(sandbox, "status") == 3


@purchases_of("mirako.generate", "mira.generate", "milady.generate")
async def test_a_blocking_answer_without_a_picture_is_uncertain(purchase: Purchase) -> None:
    """There is nobody to ask again, and asking again would buy again."""
    with anyio.fail_after(20):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url) as client:
            with pytest.raises(SubmissionUncertainError, match="answered without a usable picture") as caught:
                await delivered(purchase, client, "no-image")
            assert (caught.value.billed, caught.value.status) == ("unknown", 200)
            assert sandbox.statistics().requests == {purchase.operation: 1}


@purchases_of("mirako.generate", "mirako.submit", "milady.generate")
async def test_base64_with_a_prefix_is_a_picture(purchase: Purchase) -> None:
    """Where base64 is sent, a data URL is as good; nothing has to be downloaded."""
    with anyio.fail_after(20):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url) as client:
            result = await delivered(purchase, client, "data-url")
            assert result.image.data is not None
            assert await is_usable(result)
            assert requests_to(sandbox, "download") == 0


@purchases_of("mirako.generate", "mirako.submit", "miragic.submit", "mira.generate", "milady.generate")
async def test_a_picture_is_what_its_bytes_say(purchase: Purchase) -> None:
    """A wrong label is corrected: type and bytes of what the caller holds agree."""
    with anyio.fail_after(20):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url) as client:
            whole = await delivered(purchase, client)
            mislabelled = await delivered(purchase, client, "mislabelled")
            assert await is_usable(whole)
            assert await is_usable(mislabelled)
            assert whole.image.mime_type != mislabelled.image.mime_type


async def test_a_picture_that_is_not_whole_is_asked_for_again() -> None:
    """Bytes that end too early inside a status answer count as none: one more poll brings the whole picture."""
    purchase = BY_NAME["mirako.submit"]
    with anyio.fail_after(20):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url) as mirako:
            result = await delivered(purchase, mirako, "corrupt")
            assert await is_usable(result)
            assert result.polls == 2
            assert sandbox.statistics().purchases == {"mirako": 1}


@pytest.mark.parametrize(("name", "option"), [("mira.generate", "n"), ("milady.generate", "num_images")])
async def test_fewer_pictures_than_asked_for_can_be_told(name: str, option: str) -> None:
    """They are a success; asked and received stand side by side."""
    purchase = BY_NAME[name]
    with anyio.fail_after(20):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url) as client:
            result = await delivered(purchase, client, "fewer", **{option: 3})
            assert (len(result.images), result.requested) == (2, 3)
            assert await is_usable(result)
            assert sandbox.statistics().purchases == {purchase.provider: 1}


# -- the download ----------------------------------------------------------------------------------------------------

ONE_MORE_DOWNLOAD = (
    *("429@picture", "429:1@picture", "429:date@picture", "500@picture", "502:html@picture", "503:html@picture"),
    *("reset@picture", "reset-after@picture", "lost@picture", "hang:0.05@picture", "cut-head@picture"),
    *("garbage@picture", "truncated:1000@picture", "invalid-json@picture", "error-body@picture", "corrupt"),
)


@every_link
@pytest.mark.parametrize("order", ONE_MORE_DOWNLOAD)
async def test_trouble_with_a_download_costs_one_more(purchase: Purchase, order: str) -> None:
    """A picture that was paid for is fetched again until it is whole, and nothing is bought for that."""
    with anyio.fail_after(20):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url) as client:
            assert await is_usable(await delivered(purchase, client, order))
            assert requests_to(sandbox, "download") == 2
            assert sandbox.statistics().requests[purchase.operation] == 1


@every_link
@pytest.mark.parametrize("order", ["slow:0.1", "dribble:0.05@picture"])
async def test_a_slow_link_is_waited_for(purchase: Purchase, order: str) -> None:
    """Bytes that keep coming are not interrupted."""
    with anyio.fail_after(20):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url) as client:
            assert await is_usable(await delivered(purchase, client, order))
            assert requests_to(sandbox, "download") == 1


@pytest.mark.parametrize("order", ["expired", "403@picture", "404@picture", "410@picture"])
async def test_an_expired_link_is_asked_for_again_where_there_is_a_job(order: str) -> None:
    """Miragic's links are temporary: one more status call brings a fresh one."""
    purchase = BY_NAME["miragic.submit"]
    with anyio.fail_after(20):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url) as miragic:
            result = await delivered(purchase, miragic, order)
            assert result.image.data is not None
            assert await is_usable(result)
            assert (requests_to(sandbox, "status"), requests_to(sandbox, "download")) == (2, 2)


@purchases_of("mira.generate", "milady.generate")
@pytest.mark.parametrize("order", ["expired", "403@picture", "404@picture", "410@picture"])
async def test_an_expired_link_without_a_job_is_told(purchase: Purchase, order: str) -> None:
    """There is nobody to ask for a fresh link; reading again tries the old one again."""
    with anyio.fail_after(20):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url) as client:
            result = await delivered(purchase, client, order)
            with pytest.raises(DownloadExpiredError, match="no longer works") as caught:
                await result.image.read()
            assert (caught.value.billed, requests_to(sandbox, "download")) == ("yes", 1)
            assert await is_usable(result)


@every_link
@pytest.mark.parametrize("order", ["500x*@picture", "corruptx*"])
async def test_a_picture_that_cannot_be_fetched_keeps_its_generation(purchase: Purchase, order: str) -> None:
    """The job succeeded and is paid for; reading fails after eight attempts and says so."""
    with anyio.fail_after(20):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url) as client:
            result = await delivered(purchase, client, order)
            before = requests_to(sandbox, "download")
            assert before == (8 if purchase.provider == "miragic" else 0)
            with pytest.raises(DownloadError, match="not fetched in 8 attempts") as caught:
                await result.image.read()
            assert (caught.value.billed, requests_to(sandbox, "download")) == ("yes", before + 8)
            assert sandbox.statistics().purchases == {purchase.provider: 1}


def test_the_table_is_whole() -> None:
    """Every order stands there once, and every one has its sentence."""
    for table in (ROWS, ASKED):
        assert len({row.order for row in table}) == len({row.says for row in table}) == len(table)
    statuses = {row.order[:3] for row in ROWS if row.order[:3].isdigit()}
    assert statuses == {"401", "402", "403", "404", "413", "422", "429", "500", "502", "503"}
