"""JavaScript clients: OpenAI's package, the Vercel AI SDK, and the documented examples for Node."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest
from documented import EXAMPLES, Ended, example, fetched, look, program, quoted, run, shape

from mirage_async.sandbox import Fault, Sandbox

pytestmark = [pytest.mark.anyio, pytest.mark.long]

SCRIPTS = Path(__file__).parent / "node"
INSTALLING = 300.0  # seconds the registry may take
CREATE = ("miragic-create.mjs.txt", "miragic-create-from-image.mjs.txt")
STATUS = "miragic-status.cjs.txt"
AXIOS = ("miragic-axios.mjs.txt", "miragic-axios-from-image.mjs.txt")
AXIOS_HOST = "https://devapi.miragic.ai"
MILADY = "milady-generate-from-image.mjs.txt"


def for_npm(name: str) -> bool:
    """Tell whether npm needs this variable to reach its registry."""
    needed = ("HOME", "PATH", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE")
    return name in needed or name.lower().startswith("npm_config_") or name.lower().endswith("_proxy")


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with our scripts and the packages they and the documented examples import."""
    npm = program("npm")
    folder = tmp_path_factory.mktemp("node") / "scripts"
    shutil.copytree(SCRIPTS, folder)
    ended = subprocess.run(
        [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if for_npm(name)},
        capture_output=True,
        text=True,
        timeout=INSTALLING,
        check=False,
    )
    assert ended.returncode == 0, f"npm could not install the packages: {ended.stderr}"
    return folder


async def node(script: str, folder: Path, sandbox: Sandbox) -> Ended:
    """Run a script of the folder."""
    return await run(program("node"), script, folder=folder, SANDBOX_URL=sandbox.url)


async def node_example(name: str, folder: Path, sandbox: Sandbox, *, host: str | None = None) -> Ended:
    """Run a documented example beside the packages it imports."""
    script = name.removesuffix(".txt")
    await anyio.Path(folder / script).write_text(example(name, at=sandbox.url, host=host), encoding="utf-8")
    return await node(script, folder, sandbox)


def told(ended: Ended) -> Any:
    """Return the JSON a script printed."""
    assert ended.code == 0, ended.stderr
    return json.loads(ended.stdout)


def test_every_documented_node_example_is_run_here() -> None:
    """An example added to the folder has to be tested, too."""
    assert {path.name for path in EXAMPLES.glob("*.?js.txt")} == {*CREATE, STATUS, *AXIOS, MILADY}


async def test_openai_for_node_gets_links_and_bytes(installed: Path) -> None:
    """Two requests on the path of OpenAI's client, two purchases, pictures of the sizes asked for."""
    async with Sandbox(durations=0.0) as sandbox:
        made = told(await node("mira-openai.mjs", installed, sandbox))
        assert look(await fetched(made["link"])) == ("PNG", (1024, 1024))
        pictures = [base64.b64decode(text, validate=True) for text in made["pictures"]]
        assert [look(picture) for picture in pictures] == [("PNG", (1536, 1024))] * 2
        assert {seen.path for seen in sandbox.requests[:2]} == {"/v1/images/generations"}
        assert sandbox.statistics().purchases == {"mira": 2}


async def test_the_vercel_ai_sdk_gets_typed_pictures(installed: Path) -> None:
    """One request for both pictures, sent as bytes, which the SDK recognises as PNGs."""
    async with Sandbox(durations=0.0) as sandbox:
        images = told(await node("mira-ai-sdk.mjs", installed, sandbox))["images"]
        assert [image["mediaType"] for image in images] == ["image/png"] * 2
        assert [look(base64.b64decode(image["base64"])) for image in images] == [("PNG", (1024, 1536))] * 2
        (seen,) = sandbox.requests
        assert (seen.status, seen.fields["response_format"], seen.fields["n"]) == (200, "b64_json", 2)
        assert sandbox.statistics().purchases == {"mira": 1}


@pytest.mark.parametrize(("script", "flag"), [("mira-openai.mjs", "rateLimited"), ("mira-ai-sdk.mjs", "refused")])
async def test_throttling_arrives_as_the_package_s_own_error(script: str, flag: str, installed: Path) -> None:
    """A 429 is recognised by class and status, and nothing is bought."""
    async with Sandbox(durations=0.0) as sandbox:
        sandbox.fail("mira.generate", Fault(status=429))
        assert told(await node(script, installed, sandbox)) == {flag: True, "status": 429}
        assert sandbox.statistics().purchases == {}


@pytest.mark.parametrize("name", CREATE)
async def test_a_miragic_order_from_node_is_accepted(name: str, installed: Path) -> None:
    """The form of the form-data package is read, and the script prints the documented answer and ends by itself."""
    async with Sandbox(durations=0.0) as sandbox:
        created = told(await node_example(name, installed, sandbox))
        assert shape(created) == shape(json.loads(quoted("miragic-create.answer.json")))
        assert list(sandbox.jobs) == [created["data"]["jobId"]]
        (seen,) = sandbox.requests
        assert (seen.status, seen.fields["width"], "image_url" in seen.fields) == (200, "2048", "from-image" in name)
        assert sandbox.statistics().purchases == {"miragic": 1}


async def test_the_miragic_status_example_for_node_prints_that_its_job_is_unknown(installed: Path) -> None:
    """The sample id belongs to nobody, and the refusal is JSON, as the example takes for granted."""
    async with Sandbox(durations=0.0) as sandbox:
        ended = await node_example(STATUS, installed, sandbox)
        assert (ended.code, ended.stderr) == (0, "")
        assert " ".join(ended.stdout.split()).startswith("Response: { success: false, error: { code:")
        assert [(seen.operation, seen.status) for seen in sandbox.requests] == [("miragic.status", 404)]


@pytest.mark.parametrize("name", AXIOS)
async def test_the_axios_examples_fail_before_they_send_anything(name: str, installed: Path) -> None:
    """They fill a form under another name than they declared, so no sandbox can make them work."""
    async with Sandbox(durations=0.0) as sandbox:
        ended = await node_example(name, installed, sandbox, host=AXIOS_HOST)
        assert (ended.code, "ReferenceError: formData is not defined" in ended.stderr) == (1, True)
        assert sandbox.requests == []


async def test_the_milady_fetch_example_is_served(installed: Path) -> None:
    """Its source picture is cut short in the document, and accepted as it stands there."""
    async with Sandbox(durations=0.0) as sandbox:
        ended = await node_example(MILADY, installed, sandbox)
        assert (ended.code, ended.stderr) == (0, "")
        (seen,) = sandbox.requests
        assert (seen.status, seen.fields["sourceImage"].endswith("...")) == (200, True)
        assert sandbox.statistics().purchases == {"milady": 1}
