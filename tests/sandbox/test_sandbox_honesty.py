"""The honesty list: complete, sorted into three kinds, and free of what only its writers could know."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import FrozenInstanceError
from typing import get_args

import pytest

from mirage_async.sandbox import Behaviour, Sandbox
from mirage_async.sandbox.dialects.registry import PROVIDERS
from mirage_async.sandbox.honesty import TAGS, Tag

LIST = Sandbox().honesty
OPERATIONS = [operation.name for provider in PROVIDERS for operation in provider.operations]
DELIVERIES = [f"{provider.name}.webhook" for provider in PROVIDERS if provider.announce]
NAMES = ["sandbox", *(provider.name for provider in PROVIDERS)]


@pytest.mark.parametrize("name", OPERATIONS + DELIVERIES)
def test_every_operation_is_mentioned(name: str) -> None:
    """Whatever a provider does here, the list says where that comes from, under the provider's own name."""
    mentions = [one for one in LIST if re.search(rf"\b{re.escape(name)}\b", one.behaviour)]
    assert mentions
    assert {one.provider for one in mentions} == {name.partition(".")[0]}


def test_every_operation_that_is_mentioned_exists() -> None:
    """No name outlives its operation."""
    providers = "|".join(provider.name for provider in PROVIDERS)
    mentioned = {name for one in LIST for name in re.findall(rf"\b(?:{providers})\.\w+", one.behaviour)}
    assert mentioned == {*OPERATIONS, *DELIVERIES}


def test_there_are_three_tags_and_all_providers_have_all_of_them() -> None:
    """Nothing is of a fourth kind, no provider is wholly documented or made up, and nobody has observed a sandbox."""
    assert get_args(Tag) == TAGS == ("documented", "observed", "invented")
    assert {(one.provider, one.tag) for one in LIST} == {(name, tag) for name in NAMES for tag in TAGS} - {
        ("sandbox", "observed")
    }


def test_what_somebody_says_has_a_source_and_what_nobody_says_has_none() -> None:
    """A source is the name of a page or of a repository."""
    for one in LIST:
        assert bool(one.source) == (one.tag != "invented"), one


@pytest.mark.parametrize("name", NAMES)
def test_every_provider_has_a_list_worth_reading(name: str) -> None:
    """At least fifteen entries each."""
    assert sum(one.provider == name for one in LIST) >= 15


def test_nothing_is_said_twice() -> None:
    """Of one provider each behaviour stands once, whatever its tag."""
    counts = Counter((one.provider, one.behaviour) for one in LIST)
    assert [entry for entry, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("one", LIST, ids=lambda one: f"{one.provider}: {one.behaviour[:40]}")
def test_an_entry_is_one_sentence_without_paths_of_a_machine(one: Behaviour) -> None:
    """It ends with its only full stop, and neither it nor its source leads to a developer's disk."""
    assert one.behaviour.endswith(".")
    assert re.findall(r"[.!?]\s", one.behaviour) == []
    text = f"{one.behaviour} {one.source}"
    assert re.findall(r"(?<![\w.])/(?:work|root|home|Users|tmp)\b|[A-Z]:\\|\bfile:|~/", text) == []


def test_the_list_cannot_be_changed() -> None:
    """It is the same for everybody who asks."""
    with pytest.raises(FrozenInstanceError):
        LIST[0].tag = "invented"  # type: ignore[misc]
    assert Sandbox(strict=True).honesty == LIST
