"""The shape of the package: what it exports, what it loads, who may import whom, how large a file may grow."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, get_args

import pytest

import mirage_async
from mirage_async import exceptions

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mirage_async"
SOURCES = sorted(PACKAGE.rglob("*.py"))
PACKAGES = sorted(".".join(path.parent.relative_to(ROOT).parts) for path in SOURCES if path.name == "__init__.py")
PUBLIC = (
    "mirage_async",
    "mirage_async.batch",
    "mirage_async.exceptions",
    "mirage_async.scheduler",
    "mirage_async.sandbox",
    "mirage_async.webhooks",
)
PUBLIC_MODULES = (*PUBLIC, "mirage_async.hub", "mirage_async.models", "mirage_async.testing", "mirage_async.clients")
LONGEST_FILE = 500  # lines
BOUND = 60.0  # seconds one child process may take


def relative(path: Path) -> str:
    """Return a path as a test's name shows it."""
    return str(path.relative_to(ROOT))


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this Python in the checkout."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=BOUND, check=False
    )


def loaded_by(*arguments: str) -> set[str]:
    """Return the top-level names of the modules a fresh interpreter loads."""
    ended = python("-X", "importtime", *arguments)
    assert ended.returncode == 0, ended.stderr
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in ended.stderr.splitlines() if "|" in line}


def public_names(module: ModuleType) -> set[str]:
    """Return the names an index defines or imports."""
    tree = ast.parse(inspect.getsource(module))
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_") and name != "TYPE_CHECKING"}


def typed_imports() -> dict[str, str]:
    """Return what a type checker sees the package import, as name and home."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {
        alias.name: (node.module or "").removeprefix("mirage_async.")
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def documented() -> list[tuple[str, Any]]:
    """Return every public function, class, method and property of the public modules, by name."""
    found: dict[str, Any] = {}
    for module_name in PUBLIC_MODULES:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            value = getattr(module, name)
            if not inspect.isclass(value) and not isinstance(value, FunctionType):
                continue
            found[f"{value.__module__}.{name}"] = value
            if inspect.isclass(value):
                found |= {f"{value.__module__}.{name}.{member}": part for member, part in members(value)}
    return sorted(found.items())


def members(kind: type) -> list[tuple[str, object]]:
    """Return the public methods and properties a class of ours has, its own and those of our classes above it."""
    ours = [above for above in kind.__mro__ if above.__module__.startswith("mirage_async")]
    return [
        (name, part)
        for above in reversed(ours)
        for name, part in vars(above).items()
        if not name.startswith("_") and isinstance(part, FunctionType | property | classmethod | staticmethod)
    ]


@pytest.mark.parametrize("name", [name for name in PACKAGES if name != "mirage_async"])
def test_an_index_lists_exactly_what_it_offers(name: str) -> None:
    """Every name in `__all__` exists, and every public name is in `__all__`."""
    module = importlib.import_module(name)
    listed = list(getattr(module, "__all__", ()))
    assert [each for each in listed if not hasattr(module, each)] == []
    assert public_names(module) == set(listed)


def test_the_lazy_index_lists_exactly_what_it_can_load() -> None:
    """`__all__`, the table of homes, what a type checker sees and what is really there are one and the same."""
    homes = mirage_async._HOMES
    assert set(mirage_async.__all__) - {"__version__"} == set(homes)
    assert typed_imports() == homes
    for name, home in homes.items():
        assert getattr(mirage_async, name) is getattr(importlib.import_module(f"mirage_async.{home}"), name)
    assert dir(mirage_async) == sorted(mirage_async.__all__)


def test_a_name_the_package_does_not_have_is_an_attribute_error() -> None:
    """Lazy attributes fail as others do."""
    with pytest.raises(AttributeError, match="has no attribute 'Mirrage'"):
        mirage_async.Mirrage  # noqa: B018 - reading it is the test


def test_the_version_is_the_one_of_the_project_and_of_the_changelog() -> None:
    """A release is named in three places, and they agree."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    releases = re.findall(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert project["version"] == mirage_async.__version__ == releases[0]


@pytest.mark.parametrize("name", [name for name in exceptions.__all__ if name not in {"Billed", "WaitedFor"}])
def test_every_error_is_a_mirage_error_and_drawn_in_the_tree(name: str) -> None:
    """One `except MirageError` catches all, `.billed` is one of three words, and the picture of the tree is whole."""
    kind = getattr(exceptions, name)
    assert issubclass(kind, exceptions.MirageError)
    assert kind.billed in get_args(exceptions.Billed)
    assert re.search(rf"\b{name}\b", exceptions.__doc__ or "")


def test_every_error_class_is_exported() -> None:
    """No error can be raised that cannot be imported by name."""
    defined = {name for name, value in vars(exceptions).items() if inspect.isclass(value)}
    assert {name for name in defined if issubclass(getattr(exceptions, name), Exception)} <= set(exceptions.__all__)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_is_one_idea_of_at_most_500_lines(path: Path) -> None:
    """What grows beyond that wants to be two files."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_is_finished_and_knows_no_developers_machine(path: Path) -> None:
    """No note to self and no path of the machine it was written on is left in the package."""
    left = re.findall(r"\b(?:TODO|FIXME|XXX|HACK)\b|(?<![\w.])/(?:work|root|home|Users)/", path.read_text("utf-8"))
    assert left == []


@pytest.mark.parametrize(
    "page",
    ["README.md", "CHANGELOG.md", "examples/README.md", "benchmarks/README.md", "mirage_async/webhooks/README.md"],
)
def test_a_page_knows_no_developers_machine(page: str) -> None:
    """The project speaks of itself alone."""
    assert re.findall(r"(?<![\w.])/(?:work|root|home|Users|tmp)/", (ROOT / page).read_text(encoding="utf-8")) == []


def test_importing_the_package_loads_no_http_client_and_no_event_loop() -> None:
    """A cold start costs next to nothing until the first name is used."""
    assert loaded_by("-c", "import mirage_async") & {"aiohttp", "anyio", "asyncio", "msgspec"} == set()


def test_the_errors_load_no_http_client_and_no_event_loop() -> None:
    """Code that only catches errors pays for nothing else."""
    assert loaded_by("-c", "import mirage_async.exceptions") & {"aiohttp", "anyio", "asyncio", "msgspec"} == set()


@pytest.mark.parametrize(
    "command",
    [[], ["avatar"], ["demo"], ["generate"], ["sandbox"], ["webhook"], ["webhook", "listen"]],
    ids=["itself", "avatar", "demo", "generate", "sandbox", "webhook", "webhook listen"],
)
def test_help_loads_no_http_client(command: list[str]) -> None:
    """Help answers at once."""
    assert loaded_by("-m", "mirage_async", *command, "--help") & {"aiohttp"} == set()


def test_the_import_contracts_hold() -> None:
    """The package has one direction, top to bottom; the contracts are in pyproject.toml."""
    ended = python("-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache", "--no-logo")
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(("name", "value"), documented(), ids=lambda value: value if isinstance(value, str) else "")
def test_everything_public_has_a_docstring(name: str, value: object) -> None:
    """A docstring is a contract, and everything public has one."""
    assert inspect.getdoc(value), name


def test_every_dependency_is_listed_with_its_reason() -> None:
    """A requirement nobody can explain is one nobody needs."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    required = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    unexplained = [
        line
        for line in required
        if not line.startswith("mirage_async[")
        and not re.search(rf'^ *"{re.escape(line)}",? +# \w', text, re.MULTILINE)
    ]
    assert len(required) > len(project["dependencies"]) > 0
    assert unexplained == []
