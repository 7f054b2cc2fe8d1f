"""The table of moves, checked against a second list written by hand."""

from __future__ import annotations

import itertools
import re

import pytest

from mirage_async.jobs import check_move
from mirage_async.jobs._states import MOVES
from mirage_async.models import JobStatus

LEGAL = {
    ("submitting", "queued"),
    ("submitting", "running"),
    ("submitting", "succeeded"),
    ("submitting", "failed"),
    ("submitting", "cancelled"),
    ("submitting", "expired"),
    ("submitting", "uncertain"),
    ("queued", "running"),
    ("queued", "succeeded"),
    ("queued", "failed"),
    ("queued", "cancelled"),
    ("queued", "expired"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("running", "expired"),
    ("uncertain", "queued"),
    ("uncertain", "running"),
    ("uncertain", "succeeded"),
    ("uncertain", "failed"),
    ("uncertain", "cancelled"),
    ("uncertain", "expired"),
}


@pytest.mark.parametrize(("old", "new"), list(itertools.product(JobStatus, repeat=2)))
def test_a_move_is_legal_exactly_where_the_table_says_so(old: JobStatus, new: JobStatus) -> None:
    """Every pair of states is either in the table or an error that names both."""
    if (old.value, new.value) in LEGAL:
        check_move(old, new)
    else:
        with pytest.raises(RuntimeError, match=re.escape(f"from {old.value} to {new.value}")):
            check_move(old, new)


def test_the_table_knows_every_state() -> None:
    """No state is missing from the table."""
    assert set(MOVES) == set(JobStatus)


@pytest.mark.parametrize("status", JobStatus)
def test_a_terminal_state_is_one_without_a_way_out(status: JobStatus) -> None:
    """`terminal` means that no move leads on."""
    assert status.terminal == (not MOVES[status])
