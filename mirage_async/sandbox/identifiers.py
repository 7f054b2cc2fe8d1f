"""Names for jobs, links and requests: they look random and are the same in every run with the same seed."""

from __future__ import annotations

import string
import uuid
from collections import Counter
from hashlib import blake2b

__all__ = ["Identifiers", "number_from"]

_DIGITS = string.digits + string.ascii_lowercase
_SHORT_LENGTH = 8
_SHORT_RANGE = len(_DIGITS) ** _SHORT_LENGTH
# Multiplying by a number that shares no factor with the range (2 and 3 only) visits every short name exactly once.
_STRIDE = 1_203_094_921_453


class Identifiers:
    """Deterministic names, counted separately for each purpose.

    Args:
        seed: the run's seed; another seed gives other names.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._counts: Counter[str] = Counter()

    def short(self, purpose: str) -> str:
        """Return eight digits and small letters; never the same twice for one purpose."""
        index = (number_from(self._seed, purpose) + self._next(purpose) * _STRIDE) % _SHORT_RANGE
        name = ""
        for _ in range(_SHORT_LENGTH):
            index, digit = divmod(index, len(_DIGITS))
            name += _DIGITS[digit]
        return name

    def uuid(self, purpose: str) -> str:
        """Return a name in the form of a random UUID."""
        digest = blake2b(f"{self._seed}/{purpose}/{self._next(purpose)}".encode(), digest_size=16).digest()
        return str(uuid.UUID(bytes=digest, version=4))

    def restart(self) -> None:
        """Count from the beginning again."""
        self._counts.clear()

    def request(self) -> str:
        """Return the next request's name, in order of arrival."""
        return f"req-{self._next('request'):06d}"

    def _next(self, purpose: str) -> int:
        self._counts[purpose] += 1
        return self._counts[purpose]


def number_from(*parts: object) -> int:
    """Return a whole number, 0 to 2**63 - 1, that depends on `parts` alone."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1
