"""A picture service on FastAPI whose jobs are resolved by webhooks: order now, fetch later.

python examples/webhook_fastapi.py [PORT]          on a sandbox that delivers: no key, no network, no money
python examples/webhook_fastapi.py PORT --real     with keys, MIRAGE_WEBHOOK_SECRET and PUBLIC_URL of your environment

Needs fastapi and uvicorn. Then look at http://127.0.0.1:8080/docs
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from secrets import token_hex

import uvicorn
from fastapi import FastAPI, HTTPException, Response

from mirage_async import Generation, Job, Mirage
from mirage_async.sandbox import Sandbox
from mirage_async.webhooks import WebhookReceiver


def service(receiver: WebhookReceiver, *, real: bool) -> FastAPI:
    """Take orders at POST /pictures, hand out GET /pictures/{key}, and take deliveries below /hooks."""
    jobs: dict[str, Job[Generation]] = {}

    @asynccontextmanager
    async def hub(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            urls = None if real else (await stack.enter_async_context(Sandbox(durations=(0.3, 0.9)))).base_urls
            app.state.hub = await stack.enter_async_context(Mirage(base_urls=urls, webhooks=receiver))
            yield

    app = FastAPI(lifespan=hub)
    app.mount("/hooks", receiver.asgi_app())

    @app.post("/pictures", status_code=202)
    async def order(prompt: str) -> dict[str, str]:
        job = await app.state.hub.mirako.submit(prompt)
        jobs[job.key] = job
        return {"key": job.key}

    @app.get("/pictures/{key}")
    async def fetch(key: str) -> Response:
        if key not in jobs:
            raise HTTPException(404)
        generation = await jobs[key]  # the delivery wakes it; were it lost, a slow poll would
        return Response(await generation.image.read(), 200, {"X-Status-Calls": str(generation.polls)}, "image/jpeg")

    return app


if __name__ == "__main__":
    real = "--real" in sys.argv
    port = int(next((word for word in sys.argv[1:] if word.isdigit()), 8080))
    public_url = os.environ["PUBLIC_URL"] if real else f"http://127.0.0.1:{port}/hooks"
    secret = os.environ["MIRAGE_WEBHOOK_SECRET"] if real else token_hex(32)
    app = service(WebhookReceiver(public_url=public_url, secret=secret), real=real)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)
