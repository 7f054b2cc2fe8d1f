"""What the clients have in common whose providers answer with the pictures themselves, and with nothing else."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from mirage_async.clients._base import ProviderClient

if TYPE_CHECKING:
    from mirage_async.clients._desk import BlockingOrder
    from mirage_async.jobs import Job
    from mirage_async.models import Generation, ImageRequest

__all__ = ["BlockingClient"]


class BlockingClient(ProviderClient):
    """A client that has no jobs to ask about; see `ProviderClient`."""

    async def buy_request(self, request: ImageRequest) -> Job[Generation]:
        """Buy from a portable request and return its finished job; raises as `generate` does."""
        order, resend_uncertain = await self._portable_order(request)
        return await self._desk.buy_blocking(order, resend_uncertain=resend_uncertain)

    async def check_request(self, request: ImageRequest) -> None:
        """Check a portable request; raises as `generate` does before it sends anything."""
        await self._portable_order(request)

    @abc.abstractmethod
    async def _portable_order(self, request: ImageRequest) -> tuple[BlockingOrder, bool | None]:
        """Return what is to be sent for a portable request, and whether it says to send it again though uncertain."""
