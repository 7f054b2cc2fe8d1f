"""What a caller's own key stands for where the purchases are made under other keys.

A key of the journal's is that of one request to one provider. Where a caller's key covers more, several providers or a
request that is bought in parts, each of these purchases has a key made of the caller's, and the journal's entries say
nothing of the caller's own. So the claim is noted in the journal before the first of them is made: a digest of what was
asked for, without which the same key could buy a second time in other words.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from mirage_async.exceptions import InputError
from mirage_async.journal import EntryState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mirage_async.journal import Entry, Journal
    from mirage_async.models import ImageRequest

__all__ = ["Claim", "Claims", "bought", "claim_of", "taken"]

_PLAIN = (str, int, float, type(None))
_NOT_ASKED_FOR = frozenset({"max_wait", "resend_uncertain", "callback_parameter"})  # but how it is to be bought


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a key stands for.

    Attributes:
        digest: of the request in portable terms.
        keys: those the purchases are made under, or none where these are too many to be listed.
    """

    digest: str
    keys: tuple[str, ...] = ()


def claim_of(request: ImageRequest, providers: Sequence[str], *, parts: int = 1, keys: tuple[str, ...] = ()) -> Claim:
    """Return the claim of a request that one of `providers` is to draw.

    Pictures it is given are only counted: they may be the same in another file. What is bought under each key is
    compared as it is sent, with its pictures.
    """
    options = sorted(
        (str(name), value if isinstance(value, _PLAIN) else type(value).__name__)
        for name, value in (request.options or {}).items()
        if name not in _NOT_ASKED_FOR
    )
    fields = (request.prompt, request.aspect_ratio, request.size, request.n, request.seed, request.model)
    meaning = ascii((*fields, len(request.references), options, tuple(providers), parts))
    return Claim(digest=hashlib.sha256(meaning.encode()).hexdigest(), keys=keys)


def bought(entry: Entry | None) -> bool:
    """Whether a purchase was made, or may have been."""
    return entry is not None and entry.state is not EntryState.UNPAID


class Claims:
    """Brings on record what callers' own keys stand for, and refuses those that stand for something else.

    It also refuses those of which nothing is on record as long as `Journal.check_nothing_lost` does.

    Whoever asks holds the turn of the key, so that of two claims in this process one comes first. Those of another one
    are known once it is gone; that the same request buys once does not depend on them.

    Args:
        journal: keeps them.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def make(self, key: str, claim: Claim) -> None:
        """Return once it is on record that `key` stands for `claim`.

        Raises:
            InputError: it stands for something else, or may do so, since part of the record was lost.
            JournalError: the journal cannot be read or written.
        """
        entry, noted = await self._journal.entry_and_note(key, _name(key))
        if bought(entry):
            raise taken(key)
        text = msgspec.json.encode(claim).decode()
        if noted == text:
            return
        await self._check_free(key, noted)
        await self._journal.note(_name(key), text, one_of=claim.keys)

    async def check_none(self, key: str) -> None:
        """Check that a key may stand for itself, as the one of a single purchase; raises as `make` does."""
        entry, noted = await self._journal.entry_and_note(key, _name(key))
        if not bought(entry):
            await self._check_free(key, noted)

    async def _check_free(self, key: str, noted: str | None) -> None:
        """Raise unless there is surely no claim, or all that was asked for under it is proven unpaid."""
        if noted is None:
            self._journal.check_nothing_lost(key)
            return
        try:
            keys = msgspec.json.decode(noted, type=Claim).keys
        except msgspec.MsgspecError:  # of another version, or damaged: it stands for something, whatever that is
            raise taken(key) from None
        found = [entry for each in keys if (entry := await self._journal.entry(each)) is not None]
        if not found or any(map(bought, found)):
            raise taken(key)


def _name(key: str) -> str:
    return f"claim {key}"


def taken(key: str) -> InputError:
    """Return the error that refuses a key."""
    return InputError(
        f"key must be one of its own for each request; got {key!r}, which stands for another request already, "
        "or for this one with others to draw it"
    )
