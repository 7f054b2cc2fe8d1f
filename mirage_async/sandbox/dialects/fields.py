"""The rules providers put on a field: required, type, range, choice, length.

One reader serves all four documents; what differs between them (names, bounds, the status of a refusal) is an argument.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from mirage_async.sandbox.answers import RefusalError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mirage_async.sandbox.bodies import Body

__all__ = ["Fields", "json_object"]

_JSON = "application/json"
_SHOWN = 80
# The largest whole number a JSON encoder takes.
_LARGEST_BITS = 63
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,15}")


class Fields:
    """One request's fields, read by name.

    A field that is null counts as absent, except in strict mode, where no document allows null.

    Args:
        values: the decoded fields.
        strict: enforce every documented rule.
        invalid_status: status of a refusal about a well-formed value that breaks a rule, 400 or 422.
        prefix: what stands before a field's name in refusals, such as "webhook.".
    """

    def __init__(self, values: Mapping[str, Any], *, strict: bool, invalid_status: int = 400, prefix: str = "") -> None:
        self.strict = strict
        self._values = values
        self._invalid_status = invalid_status
        self._prefix = prefix

    def only(self, *known: str) -> None:
        """In strict mode refuse any field outside `known`."""
        if not self.strict:
            return
        for name, value in self._values.items():
            if name not in known:
                raise self.invalid(_cut(name), f"is not a documented field; known: {', '.join(known)}", value)

    def has(self, name: str) -> bool:
        """Tell whether `name` was given."""
        if name in self._values and self._values[name] is None and self.strict:
            raise self.malformed(name, "must be left out rather than null", None)
        return self._values.get(name) is not None

    def require(self, name: str) -> Any:
        """Return the value of `name`, refusing a request without it."""
        value = self._values.get(name)
        if value is None:
            is_null = self.strict and name in self._values
            name = self._prefix + name
            complaint = "and must not be null" if is_null else "but was not provided"
            raise RefusalError(400, f"The '{name}' field is required {complaint}.", name=name)
        return value

    def text(self, name: str, *, longest: int | None = None) -> str:
        """Return a required text that is not blank and has at most `longest` characters."""
        value = self.require(name)
        if not isinstance(value, str):
            raise self.malformed(name, "must be text", value)
        if not value.strip():
            raise self.invalid(name, "must not be empty", value)
        if longest is not None and len(value) > longest:
            raise self.invalid(name, f"must have at most {longest} characters (has {len(value)})", value)
        return value

    def word(self, name: str) -> str:
        """Return an optional text, "" when it is absent or no text; for what only has to be noted."""
        value = self._values.get(name)
        return value if isinstance(value, str) else ""

    def choice(self, name: str, allowed: Collection[str], default: str | None = None) -> str:
        """Return one of `allowed`; a field without a default is required."""
        if default is not None and not self.has(name):
            return default
        value = self.require(name)
        rule = f"must be one of {', '.join(allowed)}"
        if not isinstance(value, str):
            raise self.malformed(name, rule, value)
        if value not in allowed:
            raise self.invalid(name, rule, value)
        return value

    def integer(self, name: str, low: int, high: int, default: int | None = None, *, from_text: bool = False) -> int:
        """Return a whole number from `low` to `high`, both included; a field without a default is required."""
        if default is not None and not self.has(name):
            return default
        value = self.require(name)
        if from_text and isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.malformed(name, "must be a whole number", value)
        if not low <= value <= high:
            raise self.invalid(name, f"must be {low} to {high}", value)
        return value

    def items(self, name: str, most: int) -> list[Any]:
        """Return a list of at most `most` items; empty when absent."""
        if not self.has(name):
            return []
        if not isinstance(self._values[name], list):
            raise self.malformed(name, "must be a list", self._values[name])
        items: list[Any] = self._values[name]
        if len(items) > most:
            raise self.invalid(name, f"must have at most {most} items (has {len(items)})", None)
        return items

    def nested(self, name: str, value: object, known: Collection[str]) -> Fields:
        """Return the fields of the object `value`, which stands at `name`; in strict mode only `known` ones."""
        if not isinstance(value, dict):
            raise self.malformed(name, f"must be an object with {' and '.join(known)}", value)
        fields = Fields(
            cast("dict[str, Any]", value),
            strict=self.strict,
            invalid_status=self._invalid_status,
            prefix=f"{self._prefix}{name}.",
        )
        fields.only(*known)
        return fields

    def malformed(self, name: str, rule: str, value: object) -> RefusalError:
        """Return the refusal of a value of the wrong type."""
        name = self._prefix + name
        return RefusalError(400, f"{name} {rule}{_given(value)}", name=name, value=_short(value))

    def invalid(self, name: str, rule: str, value: object) -> RefusalError:
        """Return the refusal of a value that breaks a rule of its document."""
        name = self._prefix + name
        return RefusalError(self._invalid_status, f"{name} {rule}{_given(value)}", name=name, value=_short(value))


def json_object(body: Body, *, strict: bool, invalid_status: int = 400) -> Fields:
    """Return the fields of a body that is a JSON object; strict mode wants it declared as JSON, too.

    Args:
        body: the decoded body.
        strict: enforce every documented rule.
        invalid_status: as in `Fields`.

    Raises:
        RefusalError: it is something else.
    """
    if body.kind != "json":
        raise RefusalError(400, "The request body must be a JSON object.", name="body")
    if strict and body.media_type != _JSON:
        message = f"Content-Type must be {_JSON} (given: {_cut(body.media_type)!r})"
        raise RefusalError(400, message, name="body")
    return Fields(body.fields, strict=strict, invalid_status=invalid_status)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _short(value: object) -> object:
    """Return `value` fit for an error body: a picture in a message helps nobody."""
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, int) and value.bit_length() > _LARGEST_BITS:
        return float("inf") if value > 0 else float("-inf")
    return value if isinstance(value, int | float) else None


def _given(value: object) -> str:
    shown = _short(value)
    return "" if shown is None else f" (given: {shown!r})"
