"""One typed client a provider."""

from mirage_async.clients._base import ProviderClient
from mirage_async.clients.milady import MiladyClient
from mirage_async.clients.mira import MiraClient
from mirage_async.clients.miragic import MiragicClient
from mirage_async.clients.mirako import MirakoClient
from mirage_async.clients.registry import Providers

__all__ = ["MiladyClient", "MiraClient", "MiragicClient", "MirakoClient", "ProviderClient", "Providers"]
