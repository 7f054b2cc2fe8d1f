"""What is in no file of a journal: keys, prompts, pictures in base64, and the tokens of addresses to call back."""

from __future__ import annotations

import base64
import logging
import os
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest
from journal_bench import KEY, PROMPT, crashed, files, hub, picture, soon, until

from mirage_async.exceptions import AuthenticationError, JobFailedError, MirageError
from mirage_async.journal import EntryState, _schema, journal_entries
from mirage_async.journal._statements import ACCEPTED, INTENDED, SETTLED, write_rows
from mirage_async.sandbox import Fault, Sandbox
from mirage_async.webhooks import WebhookReceiver

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

SECRET = "V1StGXR8_Z5jdHi6B-myT0p3Lq9wNcYs"
NAME = "Ada the unmentioned"


class Listing(WebhookReceiver):
    """A receiver that remembers the tokens it has given out."""

    tokens: list[str]

    def callback_for(self, provider: str, key: str) -> tuple[str, str | None]:  # noqa: D102
        url, bearer = super().callback_for(provider, key)
        self.tokens = [*getattr(self, "tokens", ()), url.rpartition("/")[2], bearer or url]
        return url, bearer


async def used(folder: Path, *, store_prompts: bool) -> tuple[bytes, list[str]]:
    """Use everything a hub has, well and badly, and return all bytes on disk and the tokens that were given out."""
    hooks = Listing(public_url="http://127.0.0.1:9/hooks", secret=SECRET)
    reference = picture("navy", (48, 48))
    async with Sandbox(durations=0.05) as sandbox:
        body = {"data": [{"b64_json": base64.b64encode(picture()).decode(), "revised_prompt": f"oh, {PROMPT}"}]}
        sandbox.fail("mira.generate", Fault(status=200, body=body))
        sandbox.fail("milady.generate", Fault(status=500, body={"error": f"cannot draw {PROMPT} for {KEY}"}))
        sandbox.fail("miragic.create", Fault(status=422, body={"success": False, "message": f"bad: {PROMPT}"}))
        sandbox.fail("mirako.generate", Fault(reset=True, when="after"))
        async with hub(sandbox, folder / "journal", webhooks=hooks, options={"store_prompts": store_prompts}) as mirage:
            await soon(mirage.mira.generate(PROMPT, reference_images=[reference]))
            for bad in (mirage.milady.generate, mirage.miragic.generate, mirage.mirako.generate):
                with pytest.raises(MirageError):
                    await soon(bad(PROMPT))
            await soon((await mirage.mirako.submit(PROMPT, images=[reference])).result())
            await soon(
                (await mirage.mirako.build_avatar(NAME, picture(size=(512, 512)), max_wait=60)).result(max_wait=60)
            )
            await soon(mirage.miragic.generate(PROMPT))
            pending = await mirage.mirako.submit(PROMPT)
            await until(lambda: pending.id)
            crashed(folder / "journal", folder / "copy")
    assert len(hooks.tokens) == 4
    assert len(journal_entries(folder / "copy")) == 8
    return b"\n".join(path.read_bytes() for path in files(folder)), hooks.tokens


async def test_no_file_holds_a_key_a_prompt_a_picture_in_base64_or_a_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither before nor after it was tidied up, in whatever spelling."""
    caplog.set_level(logging.DEBUG)
    data, tokens = await used(tmp_path, store_prompts=False)
    logs = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("mirage_async"))
    for secret in (KEY, PROMPT, SECRET, *tokens):
        for text in {secret, quote(secret), quote_plus(secret), base64.b64encode(secret.encode()).decode()}:
            assert text.encode() not in data, text
            assert text not in logs
    for each in (picture(), picture("navy", (48, 48)), picture(size=(512, 512))):
        assert base64.b64encode(each)[40:80] not in data
    assert picture() in data  # as a file of its own
    assert not list((tmp_path / "journal" / "requests").iterdir())


async def test_with_stored_prompts_requests_are_on_disk_and_keys_are_not(tmp_path: Path) -> None:
    """The request is what goes out; the key is added by the transport alone."""
    data, _ = await used(tmp_path, store_prompts=True)
    assert PROMPT.encode() in data
    assert KEY.encode() not in data
    assert list((tmp_path / "journal" / "requests").iterdir())


# -- what a provider says of a job it was asked about -----------------------------------------------------------------

LONG = f"{PROMPT}, {'and another one, ' * 30}at the end of the world"  # longer than what is repeated of any reason


def rejected(provider: str, task: str | None, prompt: str) -> Fault:
    """Return a status answer by which a job has failed, in words of its caller's."""
    if provider == "miragic":
        job = {"jobId": task, "status": "FAILED", "errorMessage": f"rejected: {prompt}!"}
        return Fault(status=200, body={"success": True, "data": job})
    return Fault(status=200, body={"data": {"task_id": task, "status": "FAILED", "error": f"rejected: {prompt}!"}})


@pytest.mark.parametrize("provider", ["mirako", "miragic"])
@pytest.mark.parametrize("prompt", [PROMPT, LONG, 'say "hello"\n\tto the sea', "COMPLETED", "errorMessage"])
async def test_the_reason_of_a_failed_job_repeats_no_prompt(provider: str, prompt: str, tmp_path: Path) -> None:
    """Neither in the error nor on disk, however long it is, and whatever else it may mean."""
    async with Sandbox(durations=60.0) as sandbox, hub(sandbox, tmp_path) as mirage:
        job = await mirage.submit(prompt, provider=provider)
        sandbox.fail(f"{provider}.status", rejected(provider, job.id, prompt))
        with pytest.raises(JobFailedError) as caught:
            await soon(job.result())
        assert prompt[:20] not in str(caught.value)
        assert f"{job.id} failed: " in str(caught.value)
        (entry,) = journal_entries(tmp_path)
        assert entry.outcome is not None
        assert entry.outcome.error is not None
        assert entry.outcome.error.message == str(caught.value)


@pytest.mark.parametrize("provider", ["mirako", "miragic"])
async def test_a_refusal_to_be_asked_repeats_no_prompt(provider: str, tmp_path: Path) -> None:
    """The waiters are told what the provider says but for their own words."""
    async with Sandbox(durations=60.0) as sandbox, hub(sandbox, tmp_path) as mirage:
        job = await mirage.submit(PROMPT, provider=provider)
        sandbox.fail(f"{provider}.status", Fault(status=401, body={"error": f"no key for {PROMPT}!"}))
        with pytest.raises(AuthenticationError, match=r"no key for \.\.\.!") as caught:
            await soon(job.result())
        assert PROMPT not in caught.value.body


@pytest.mark.parametrize("store_prompts", [False, True])
@pytest.mark.parametrize("provider", ["mirako", "miragic"])
async def test_the_reason_of_a_recovered_job_is_kept_only_with_prompts(
    provider: str, store_prompts: bool, tmp_path: Path
) -> None:
    """Nobody knows the prompt any more that could be cut out of it; whoever awaits it now gets the provider's words."""
    async with Sandbox(durations=60.0) as sandbox:
        async with hub(sandbox, tmp_path) as mirage:
            job = await mirage.submit(PROMPT, provider=provider)
        async with hub(sandbox, tmp_path, options={"store_prompts": store_prompts}) as mirage:
            (found,) = await mirage.recover()
            sandbox.fail(f"{provider}.status", rejected(provider, job.id, PROMPT), times=2)
            with pytest.raises(JobFailedError, match="rejected"):
                await soon(found.result())
    (entry,) = journal_entries(tmp_path)
    assert entry.state is EntryState.FAILED
    assert entry.outcome is not None
    assert entry.outcome.error is not None
    assert (PROMPT in entry.outcome.error.message) is store_prompts
    error = entry.outcome.error.rebuild()
    assert isinstance(error, JobFailedError)
    assert error.job_id == job.id
    assert f"{provider} job {job.id} failed" in str(error)
    leaks = [path for path in files(tmp_path) if PROMPT.encode() in path.read_bytes()]
    assert bool(leaks) is store_prompts


@pytest.mark.skipif(os.name != "posix", reason="this system has no limit on open files")
def test_rows_go_through_no_other_file(tmp_path: Path) -> None:
    """What SQLite keeps to undo one statement of many rows stays in memory, not in the system's temporary folder."""
    import resource  # noqa: PLC0415 - of this system alone

    keys = [f"{number:032x}" for number in range(4096)]
    intents = [(key, "mirako", "", "image", 0, 0, None, 1, "", None, 0.0, 0.0, "", 0) for key in keys]
    some = keys[::16]  # on many pages
    ids, outcomes = [(key, key, 0.0) for key in some], [(key, "succeeded", PROMPT * 20, 0.0) for key in some]
    with closing(_schema.connect(tmp_path / "jobs.sqlite", "process")) as connection:
        write_rows(connection, [(INTENDED, intents)])  # its own files are open from now on
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            write_rows(connection, [(ACCEPTED, ids), (SETTLED, outcomes)])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        written = connection.execute("SELECT count(*) FROM jobs WHERE outcome = ?", (PROMPT * 20,)).fetchone()
    assert written == (256,)
