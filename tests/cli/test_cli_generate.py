"""`generate` from the words on the command line to files, JSON lines and bytes."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import tempfile
from pathlib import Path

import pytest
from command_line import command, names_in, sandbox_for_commands
from PIL import Image

from mirage_async import Mirage
from mirage_async.cli._exits import ExitCode
from mirage_async.cli._hubs import minded
from mirage_async.cli._keeping import keep_all
from mirage_async.cli._output import Output
from mirage_async.cli._purchase import buy
from mirage_async.models import ImageRequest
from mirage_async.sandbox import Fault
from mirage_async.testing import sandboxed

pytestmark = pytest.mark.anyio

_RECORD = {
    *("path", "provider", "model", "job_id", "mime_type", "width", "height", "credits", "timings", "polls"),
    *("revised_prompt", "text"),
}


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 16), "teal").save(buffer, format="PNG")
    return buffer.getvalue()


async def test_paths_json_bytes_and_stdin_are_what_a_script_expects(tmp_path: Path) -> None:
    """Results are all there is on stdout, and nothing is on stderr where it is no terminal."""
    (tmp_path / "made").mkdir()
    (tmp_path / "ref.png").write_bytes(_png())
    async with sandbox_for_commands() as (sandbox, environment):

        async def run(*words: str, stdin: bytes = b"") -> str | bytes:
            ended = await command("generate", *words, folder=tmp_path, stdin=stdin, environment=environment)
            assert (ended.code, ended.stderr) == (0, "")
            return ended.raw if "-" in words[2:] else ended.stdout

        paths, as_json, raw, referred = await asyncio.gather(
            run("fox", "--provider=mira", "-n", "2", "-o", "fox.png", "--option", "quality=high"),
            run("fox", "--provider=miragic", "--size=320x256", "--model=turbo", "-o", "made", "--json"),
            run("fox", "--provider=milady", "-o", "-"),
            run("-", "--provider=mirako", "-o", "new/", "--reference=ref.png", "--seed=-7", stdin="Füchse\n".encode()),
        )
        sent = {request.provider: request.fields for request in sandbox.requests if request.method == "POST"}
    assert paths == "fox-1.png\nfox-2.png\n"
    assert isinstance(as_json, str)
    record = json.loads(as_json)
    assert set(record) == _RECORD
    assert (record["provider"], record["model"], record["width"], record["height"]) == ("miragic", "turbo", 320, 256)
    assert (tmp_path / record["path"]).parent == tmp_path / "made"
    assert isinstance(raw, bytes)
    assert Image.open(io.BytesIO(raw)).format == "WEBP"
    assert str(referred).startswith("new/mirako-")
    assert (sent["mirako"]["prompt"], sent["mirako"]["seed"], len(sent["mirako"]["images"])) == ("Füchse", -7, 1)
    assert names_in(tmp_path) == ["fox-1.png", "fox-2.png", "made", "new", "ref.png"]


async def test_the_sandbox_flag_needs_no_key_and_uses_none(tmp_path: Path) -> None:
    """An embedded sandbox draws although a key and an address of the real provider are set."""
    real = {"MILADY_API_KEY": "sk-real", "MILADY_BASE_URL": "http://127.0.0.1:9"}
    words = ("generate", "fox", "--provider", "milady", "--sandbox", "--overwrite", "-o", "fox.webp")
    (tmp_path / "fox.webp").write_bytes(b"old")
    ended = await command(*words, folder=tmp_path, environment=real)
    assert (ended.code, ended.stdout, ended.stderr) == (0, "fox.webp\n", "")
    assert (tmp_path / "fox.webp").read_bytes() != b"old"


@pytest.mark.parametrize("quiet", [False, True])
async def test_fewer_pictures_than_asked_for_warn_and_are_no_failure(
    quiet: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was delivered is saved; the warning is for people and can be silenced."""
    picture = f"data:image/png;base64,{base64.b64encode(_png()).decode()}"
    async with sandbox_for_commands() as (sandbox, environment):
        monkeypatch.setenv("MIRAGE_SANDBOX_URL", environment["MIRAGE_SANDBOX_URL"])
        sandbox.fail("milady.generate", Fault(status=200, body={"success": True, "images": [{"image": picture}]}))
        request = ImageRequest(prompt="fox", provider="milady", n=3)
        place = Output(path=tmp_path, is_folder=True)
        assert await buy(request, place, sandbox=True, as_json=False, quiet=quiet) is ExitCode.DONE
    shown = capsys.readouterr()
    assert [Path(shown.out.strip()).name] == names_in(tmp_path)
    assert ("milady delivered 1 of 3 pictures" in shown.err) is not quiet


@pytest.fixture
def nowhere_to_put_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let temporary files fail as well."""
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")


async def _fails_to_save(provider: str, monkeypatch: pytest.MonkeyPatch) -> ExitCode:
    async with sandbox_for_commands(durations=0.0) as (_, environment):
        monkeypatch.setenv("MIRAGE_SANDBOX_URL", environment["MIRAGE_SANDBOX_URL"])
        request = ImageRequest(prompt="fox", provider=provider)
        place = Output(path=Path("/proc/nowhere/fox.png"))
        return await buy(request, place, sandbox=False, as_json=False, quiet=True)


async def test_a_paid_picture_that_cannot_be_saved_is_kept_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line says why and where it is now, and stdout has that path; the code is a failure all the same."""
    assert await _fails_to_save("miragic", monkeypatch) is ExitCode.FAILURE
    shown = capsys.readouterr()
    kept = Path(shown.out.strip())
    assert kept.read_bytes().startswith(b"\xff\xd8")  # noqa: ASYNC240 - a test may block
    assert "could not be saved as '/proc/nowhere/fox.png'" in shown.err
    assert str(kept) in shown.err
    kept.unlink()  # noqa: ASYNC240 - same
    kept.parent.rmdir()


@pytest.mark.parametrize(("provider", "way_back"), [("miragic", "to resume"), ("mira", "picture is at http://")])
async def test_a_paid_picture_that_can_be_kept_nowhere_leaves_its_token_or_link(
    provider: str,
    way_back: str,
    nowhere_to_put_anything: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Even then nothing is lost: the job's token, or the picture's address, is told."""
    assert await _fails_to_save(provider, monkeypatch) is ExitCode.FAILURE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert way_back in shown.err


async def test_a_file_that_appeared_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """The picture goes into a folder of its own beside it."""
    async with sandboxed() as (mirage, _):
        generation = await mirage.generate("fox", provider="mirako")
        (tmp_path / "fox.jpg").write_bytes(b"theirs")
        (kept,) = await keep_all(generation, Output(path=tmp_path / "fox.png"))
    assert (tmp_path / "fox.jpg").read_bytes() == b"theirs"
    assert kept.path is not None
    assert (kept.path.parent.parent, kept.path.suffix) == (tmp_path, ".jpg")
    assert "appeared meanwhile" in (kept.problem or "")


async def test_a_file_that_holds_this_very_picture_is_where_it_is(tmp_path: Path) -> None:
    """It was saved a moment ago, and whoever was to note that did not come to it: saved twice it would be litter."""
    async with sandboxed() as (mirage, _):
        generation = await mirage.generate("fox", provider="mirako")
        (first,) = await keep_all(generation, Output(path=tmp_path / "fox.png"))
        (again,) = await keep_all(generation, Output(path=tmp_path / "fox.png"))
        (tmp_path / "fox.jpg").unlink()
        (tmp_path / "fox.jpg").mkdir()
        (beside,) = await keep_all(generation, Output(path=tmp_path / "fox.png"))
    assert (again.path, again.problem) == (first.path, None) == (tmp_path / "fox.jpg", None)
    assert "appeared meanwhile" in (beside.problem or "")


async def test_a_picture_too_many_for_stdout_and_a_closed_stdout_lose_nothing(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One picture goes to stdout, the surplus to a file; with nobody reading stdout all of them go to files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with sandboxed() as (mirage, _):
        generation = await mirage.generate("fox", provider="mira", n=2)
        first, surplus = await keep_all(generation, Output(path=None))
        assert (first.path, first.problem, surplus.path is not None) == (None, None, True)

        def broken(_: bytes) -> None:
            raise BrokenPipeError(32, "Broken pipe")

        monkeypatch.setattr("mirage_async.cli._keeping._write_out", broken)
        (kept, _) = await keep_all(generation, Output(path=None))
    assert kept.path is not None
    assert "stdout" in (kept.problem or "")
    assert capfdbinary.readouterr().out.startswith(b"\x89PNG")


async def test_interrupting_the_saving_of_a_blocking_result_tells_its_link(capsys: pytest.CaptureFixture[str]) -> None:
    """A finished job without a token still has a picture somewhere."""
    async with sandboxed() as (_, sandbox):
        hub = Mirage(base_urls=sandbox.base_urls)

        async def interrupted() -> None:
            async with minded(hub) as open_jobs:
                job = await hub.submit("fox", provider="mira")
                open_jobs.append(job)
                await job
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await interrupted()
    assert f"a mira picture is at {sandbox.url or 'http://'}" in capsys.readouterr().err
