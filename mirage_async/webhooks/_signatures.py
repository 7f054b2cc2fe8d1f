"""Standard Webhooks signatures: HMAC-SHA256 (`v1`) over id, timestamp and body.

No provider here documents a signature today; a gateway in front, or an account that has one, may sign. The scheme is
the public one of standardwebhooks.com. Whatever this accepts, its reference library accepts. Refused beyond that, on
purpose:

- ids outside `[A-Za-z0-9_-]{1,128}`, since a dot in one moves the border between id, timestamp and body;
- timestamps that are not 1 to 12 plain digits without zeros in front (the reference takes "+1", "1_7", "17.9" and
  full-width digits);
- signatures that are not exactly the base64 of 32 bytes, with anything behind them, or unpadded;
- headers with more than 8 signatures, or with anything in them that is not "scheme,signature", wherever it stands (the
  reference reads up to the first that fits). Signatures of other schemes are passed over, so that a sender can change.
"""

from __future__ import annotations

import base64
import hmac
import re
from typing import TYPE_CHECKING, NoReturn, SupportsIndex

from mirage_async._clock import Clock, SystemClock
from mirage_async.exceptions import InputError, WebhookVerificationError
from mirage_async.webhooks._headers import finder
from mirage_async.webhooks._secrets import signing_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mirage_async.webhooks._headers import Headers

__all__ = ["TOLERANCE", "StandardWebhooks"]

TOLERANCE = 300.0  # seconds a timestamp may be off, both ways
_MOST_SIGNATURES = 8
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_TIMESTAMP = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)
_SCHEME = b"v1,"


class StandardWebhooks:
    """Checks Standard Webhooks signatures. It cannot be copied or pickled, and what shows objects shows no key of it.

    Args:
        secrets: one secret or up to eight, any of which may have signed: text such as "whsec_..." or bytes.
        clock: whose date timestamps are compared with; None takes the system's.

    Raises:
        ConfigurationError: a secret is missing, short, or a placeholder.
    """

    __slots__ = ("_begun", "_clock")

    def __init__(self, secrets: str | bytes | Sequence[str | bytes], *, clock: Clock | None = None) -> None:
        self._begun = tuple(hmac.new(key, digestmod="sha256") for key in signing_secrets(secrets))
        self._clock: Clock = SystemClock() if clock is None else clock

    def verify(self, headers: Headers, body: bytes | bytearray) -> str:
        """Return the `webhook-id` of a delivery that one of the secrets has signed within the last five minutes.

        The sender repeats a delivery under the same id; remembering ids is the caller's affair.

        Args:
            headers: all headers, names in any case.
            body: the raw bytes as they came, before any parsing.

        Raises:
            WebhookVerificationError: anything else, whatever was delivered.
            InputError: an argument of another type; no delivery can cause it.
        """
        if not isinstance(body, bytes | bytearray):
            msg = f"body must be the raw bytes; got a value of type {type(body).__name__}"
            raise InputError(msg)
        return self.verify_found(finder(headers), bytes(body))

    def verify_found(self, find: Callable[[str], str | None], body: bytes) -> str:
        """Do the same for headers that are looked up by lower-case name."""
        message_id, timestamp, offered = find("webhook-id"), find("webhook-timestamp"), find("webhook-signature")
        if message_id is None or timestamp is None or offered is None:
            raise WebhookVerificationError("a signed delivery has webhook-id, webhook-timestamp and webhook-signature")
        if not _ID.fullmatch(message_id) or not _TIMESTAMP.fullmatch(timestamp):
            raise WebhookVerificationError("webhook-id or webhook-timestamp is malformed")
        entries = offered.encode("utf-8", "replace").split(b" ")
        if len(entries) > _MOST_SIGNATURES or not all(entry.count(b",") == 1 for entry in entries):
            raise WebhookVerificationError(f"webhook-signature must hold 1 to {_MOST_SIGNATURES} signatures")
        signed = b"%b.%b.%b" % (message_id.encode(), timestamp.encode(), body)
        genuine = False
        for begun in self._begun:  # all of them, always: how long it takes tells nothing
            mac = begun.copy()
            mac.update(signed)
            expected = _SCHEME + base64.b64encode(mac.digest())
            for entry in entries:
                genuine |= hmac.compare_digest(expected, entry)
        if not genuine:
            raise WebhookVerificationError("no signature is one of ours")
        if abs(self._clock.time() - int(timestamp)) > TOLERANCE:
            raise WebhookVerificationError(f"webhook-timestamp is more than {TOLERANCE:g} s off")
        return message_id

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse to be copied or pickled: the keys would go along."""
        raise TypeError("StandardWebhooks holds secrets and is neither copied nor pickled; make another one")

    def __repr__(self) -> str:
        return f"<StandardWebhooks {len(self._begun)} secrets>"
