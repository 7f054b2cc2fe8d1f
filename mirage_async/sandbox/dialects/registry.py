"""The providers this sandbox plays. A new one is one file and one line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mirage_async.sandbox.dialects import milady, mira, miragic, mirako

if TYPE_CHECKING:
    from mirage_async.sandbox.dialects.provider import Provider

__all__ = ["PROVIDERS"]

PROVIDERS: tuple[Provider, ...] = (mirako.PROVIDER, miragic.PROVIDER, mira.PROVIDER, milady.PROVIDER)
