"""The error tree: one root, data as attributes, picklable, and drawn as it is."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
import re
import types
from typing import Any

import pytest

import mirage_async
from mirage_async import exceptions
from mirage_async.exceptions import (
    APIError,
    ClosedError,
    DownloadError,
    InputError,
    InsufficientCreditsError,
    JobError,
    MirageError,
    SubmissionUncertainError,
    WaitTimeoutError,
)

CLASSES: list[type[MirageError]] = [
    value
    for value in vars(exceptions).values()
    if inspect.isclass(value) and value.__module__ == exceptions.__name__ and issubclass(value, MirageError)
]

EXTRAS: dict[type[MirageError], dict[str, Any]] = {
    APIError: {
        "status": 418,
        "code": "TEAPOT",
        "retry_after": 2.5,
        "request_id": "r-1",
        "body": "{}",
        "details": {"a": [1]},
    },
    ClosedError: {"token": "{token}"},
    SubmissionUncertainError: {"key": "0f", "status": 502},
    JobError: {"job_id": "j1", "token": "{token}"},
    DownloadError: {"url": "https://a.example/x"},
}

BILLED = {
    "SubmissionUncertainError": "unknown",
    "ResponseError": "unknown",
    "JobError": "unknown",
    "JobFailedError": "unknown",
    "JobCancelledError": "unknown",
    "JobExpiredError": "unknown",
    "WaitTimeoutError": "yes",
    "DownloadError": "yes",
    "DownloadExpiredError": "yes",
}


def made(kind: type[MirageError], **more: Any) -> MirageError:
    """Return an error with every attribute its class knows."""
    extras = next((values for parent, values in EXTRAS.items() if issubclass(kind, parent)), {})
    return kind("it went wrong", **{"provider": "mira", **extras, **more})


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_has_the_one_root(kind: type[Exception]) -> None:
    """`except MirageError` catches all of them."""
    assert issubclass(kind, MirageError)
    assert kind.__name__.endswith("Error")
    assert kind.__doc__


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_survives_pickling_and_copying(kind: type[MirageError]) -> None:
    """Class, message and attributes come back, whatever the constructor asks for; a subclass attribute as well."""
    error = made(kind, billed="unknown")
    if isinstance(error, InsufficientCreditsError):
        error.required = 12.5
    error.add_note("seen in a test")
    copies = [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]  # noqa: S301
    for twin in [*copies, copy.copy(error), copy.deepcopy(error)]:
        assert type(twin) is kind
        assert twin is not error
        assert str(twin) == twin.message == "it went wrong"
        assert vars(twin) == vars(error)
        assert (twin.args, twin.provider, twin.billed) == (("it went wrong",), "mira", "unknown")


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_says_what_is_known_about_money(kind: type[MirageError]) -> None:
    """Each class has its default, and one can be given."""
    assert made(kind).billed == BILLED.get(kind.__name__, "no")
    assert [made(kind, billed=billed).billed for billed in ("no", "yes", "unknown")] == ["no", "yes", "unknown"]


@pytest.mark.parametrize(
    ("kind", "cousin"), [(InputError, ValueError), (ClosedError, RuntimeError), (WaitTimeoutError, TimeoutError)]
)
def test_three_errors_have_cousins_in_the_language(kind: type[MirageError], cousin: type[Exception]) -> None:
    """Whoever knows only the built-in errors catches these as well."""
    with pytest.raises(cousin, match="it went wrong"):
        raise made(kind)


def test_nothing_but_a_message_is_needed() -> None:
    """Every attribute has a default, but for the HTTP status of an `APIError`."""
    for kind in CLASSES:
        needed: dict[str, Any] = {"status": 500} if issubclass(kind, APIError) else {}
        error = kind("it went wrong", **needed)
        assert error.provider is None
    assert InsufficientCreditsError("402", status=402).required is None


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """The drawing lists exactly the classes, each below its parent, cousins in brackets."""
    assert exceptions.__doc__ is not None
    path: list[str] = []
    drawn: dict[str, str | None] = {}
    for line in exceptions.__doc__.splitlines():
        match = re.match(r"    ([│├└─ ]*)(\w+Error)(?: \((\w+)\))?", line)
        if match is None:
            continue
        depth = len(match[1]) // 4
        path[depth:] = [match[2]]
        drawn[match[2]] = path[depth - 1] if depth else None
        kind = getattr(exceptions, match[2])
        cousins = [base.__name__ for base in kind.__bases__ if not issubclass(base, MirageError)]
        assert cousins == ([match[3]] if match[3] else ["Exception"] if kind is MirageError else []), match[2]
    real = {
        kind.__name__: next((base.__name__ for base in kind.__bases__ if issubclass(base, MirageError)), None)
        for kind in CLASSES
    }
    assert drawn == real


# --- indexes ---

MODULES = ["mirage_async"] + [
    module.name
    for module in pkgutil.walk_packages(mirage_async.__path__, "mirage_async.")
    if not module.name.endswith("__main__") and ".cli" not in module.name
]


def packages() -> list[str]:
    """Return the packages without leading underscore, the command line left out."""
    return [name for name in MODULES if hasattr(importlib.import_module(name), "__path__")]


@pytest.mark.parametrize("name", MODULES)
def test_every_name_in_all_is_there_and_sorted(name: str) -> None:
    """`__all__` lists names that exist, once each, in order."""
    module = importlib.import_module(name)
    listed = getattr(module, "__all__", [])
    assert [entry for entry in listed if not hasattr(module, entry)] == []
    assert len(set(listed)) == len(listed)
    classes_first = sorted(listed, key=lambda entry: (not entry.isupper(), not entry[:1].isupper(), entry))
    assert listed == classes_first


@pytest.mark.parametrize("name", [name for name in packages() if name != "mirage_async"])
def test_every_public_name_of_a_package_is_in_all(name: str) -> None:
    """A package is an index: what it imports is what it exports, and nothing else."""
    module = importlib.import_module(name)
    public = {
        entry
        for entry, value in vars(module).items()
        if not entry.startswith("_") and not isinstance(value, types.ModuleType) and entry != "annotations"
    }
    assert public == set(module.__all__)


def test_the_errors_module_exports_every_error() -> None:
    """All classes there are, and the types of `billed` and `waited_for`."""
    classes = [value for value in vars(exceptions).values() if inspect.isclass(value)]
    assert {value for value in classes if value.__module__ == exceptions.__name__} == set(CLASSES)
    assert set(exceptions.__all__) == {kind.__name__ for kind in CLASSES} | {"Billed", "WaitedFor"}


def test_the_root_exports_the_contract() -> None:
    """The names other people's programs are written against, all of them lazy, and no others."""
    names = {
        *("Mirage", "MirakoClient", "MiragicClient", "MiraClient", "MiladyClient", "Job", "JobStatus", "JobUpdate"),
        *("Generation", "GeneratedImage", "Avatar", "ImageRequest", "Outcome", "Reference", "Limits", "Budget"),
        "__version__",
    }
    assert set(mirage_async.__all__) == names == set(dir(mirage_async))
    assert set(mirage_async._HOMES) == names - {"__version__"}
    for entry in names:
        assert getattr(mirage_async, entry) is not None
    with pytest.raises(AttributeError, match="module 'mirage_async' has no attribute 'Mirrage'"):
        _ = mirage_async.Mirrage
