"""The providers there are: one line each, and everything that lists providers reads it from here."""

from mirage_async.clients._base import ProviderClient
from mirage_async.clients.milady import MiladyClient
from mirage_async.clients.mira import MiraClient
from mirage_async.clients.miragic import MiragicClient
from mirage_async.clients.mirako import MirakoClient

__all__ = ["Providers"]


class Providers:
    """One attribute a provider: its name and its client's class."""

    mirako: MirakoClient
    miragic: MiragicClient
    mira: MiraClient
    milady: MiladyClient

    @staticmethod
    def classes() -> dict[str, type[ProviderClient]]:
        """Return the client classes by provider name."""
        return dict(Providers.__annotations__)
