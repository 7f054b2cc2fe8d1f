"""A picture service on aiohttp whose jobs are resolved by webhooks instead of polling.

python examples/webhook_aiohttp.py [PORT]          on a sandbox that delivers: no key, no network, no money
python examples/webhook_aiohttp.py PORT --real     with the keys, MIRAGE_WEBHOOK_SECRET and PUBLIC_URL (such as
                                                   https://app.example/hooks) of your environment

Then, in another shell:  curl -d "a lighthouse" http://127.0.0.1:8080/pictures -o lighthouse.jpg
"""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from aiohttp import web

from mirage_async import Mirage
from mirage_async.sandbox import Sandbox
from mirage_async.webhooks import WebhookReceiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HUB = web.AppKey("hub", Mirage)


def service(receiver: WebhookReceiver, *, real: bool) -> web.Application:
    """Draw pictures at POST /pictures, and take deliveries below /hooks."""

    async def hub(app: web.Application) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            urls = None if real else (await stack.enter_async_context(Sandbox(durations=(0.3, 0.9)))).base_urls
            app[HUB] = await stack.enter_async_context(Mirage(base_urls=urls, webhooks=receiver))
            yield

    async def draw(request: web.Request) -> web.Response:
        job = await request.app[HUB].mirako.submit(await request.text())
        generation = await job  # the delivery wakes it; were it lost, a slow poll would
        headers = {"X-Status-Calls": str(generation.polls)}
        return web.Response(body=await generation.image.read(), content_type="image/jpeg", headers=headers)

    app = web.Application()
    app.cleanup_ctx.append(hub)
    app.router.add_post("/pictures", draw)
    app.add_subapp("/hooks", receiver.aiohttp_app())
    return app


if __name__ == "__main__":
    real = "--real" in sys.argv
    port = int(next((word for word in sys.argv[1:] if word.isdigit()), 8080))
    public_url = os.environ["PUBLIC_URL"] if real else f"http://127.0.0.1:{port}/hooks"
    secret = os.environ["MIRAGE_WEBHOOK_SECRET"] if real else secrets.token_hex(32)
    receiver = WebhookReceiver(public_url=public_url, secret=secret)
    # Without an access log, which would show the addresses of deliveries.
    web.run_app(service(receiver, real=real), host="127.0.0.1", port=port, access_log=None)
