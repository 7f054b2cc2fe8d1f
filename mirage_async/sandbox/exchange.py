"""The way of one request through the sandbox: noted, read, met by a fault or not, worked on, answered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web

from mirage_async.sandbox.answers import Answer, RefusalError, json_answer
from mirage_async.sandbox.bodies import Body, decode_body
from mirage_async.sandbox.dialects.provider import Call
from mirage_async.sandbox.faults.strikes import fault_answer, strike
from mirage_async.sandbox.requestlog import SeenRequest, redacted

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from mirage_async.sandbox.dialects.provider import Operation, Provider
    from mirage_async.sandbox.faults.fault import Fault, FaultQueues
    from mirage_async.sandbox.requestlog import RequestLog
    from mirage_async.sandbox.world import World

__all__ = ["Exchange", "Route"]

_UNAUTHORIZED = "Authentication required: the API key is missing or empty."


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request has come out: at an operation, or (without one) at a path that wants the method `allowed`."""

    provider: Provider
    operation: Operation | None
    allowed: str = ""


class Exchange:
    """Serves requests, one call each.

    Args:
        world: what the operations work on.
        log: where requests are noted.
        faults: where faults wait.
    """

    def __init__(self, world: World, log: RequestLog, faults: FaultQueues) -> None:
        self._world = world
        self._log = log
        self._faults = faults
        self._running: set[asyncio.Task[Any]] = set()

    async def serve(self, request: web.Request, route: Route | None) -> web.StreamResponse:
        """Serve one request; without a route, say that there is nothing at this path."""
        self._watch(cast("asyncio.Task[Any]", asyncio.current_task()))
        operation = route.operation if route else None
        headers = {name.lower(): value for name, value in request.headers.items()}
        place = self._log.arrive(self._first_sight(request, headers, route))
        name = {"X-Request-Id": self._world.identifiers.request()}
        fault = self._faults.take(operation.name) if operation else None
        answer = await self._answer(request, headers, route, place, fault)
        if fault is not None:
            ordered = fault_answer(fault, route.provider) if route else None
            if ordered is None:
                return await self._strike(fault, request, answer.with_headers(name), place)
            answer = ordered
        self._log.amend(place, status=answer.status)
        headers = {"Content-Type": answer.content_type, **name, **answer.headers}
        return web.Response(status=answer.status, body=answer.body, headers=headers)

    async def stop(self) -> None:
        """Cancel what is still being served or worked on, and wait until it has ended."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _answer(
        self, request: web.Request, headers: Mapping[str, str], route: Route | None, place: int, fault: Fault | None
    ) -> Answer:
        """Return the genuine answer; the work is left out when a fault strikes before it."""
        if route is None:
            return json_answer({"error": f"Nothing at {request.method} {request.path}"}, status=404)
        try:
            body = await self._read(request, place)
            if fault is not None and not fault.after_the_work:
                return json_answer({})
            operation = _admit(request, headers, route)
        except RefusalError as refusal:
            return route.provider.refuse(refusal)
        work = self._work(route.provider, operation, Call(path_values=dict(request.match_info), body=body))
        return await (work if request.method == "GET" else self._unstoppable(work))

    async def _work(self, provider: Provider, operation: Operation, call: Call) -> Answer:
        try:
            return await operation.handle(self._world, call)
        except RefusalError as refusal:
            return provider.refuse(refusal)

    async def _read(self, request: web.Request, place: int) -> Body:
        try:
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise RefusalError(413, "The request body is too large.") from None
        except web.RequestPayloadError:
            raise RefusalError(400, "The request body cannot be read.") from None
        body = decode_body(request.headers.get("Content-Type", ""), raw)
        self._log.amend(place, body=raw, fields=body.fields)
        return body

    async def _unstoppable(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Do a purchase to its end even when the client leaves: a provider works on, and charges."""
        task = asyncio.create_task(work)
        self._watch(task)
        return await asyncio.shield(task)

    async def _strike(self, fault: Fault, request: web.Request, answer: Answer, place: int) -> web.StreamResponse:
        # There is one: losing the connection cancels whoever serves it.
        transport = cast("asyncio.Transport", request.transport)
        self._log.amend(place, status=await strike(fault, transport, answer, self._world.clock))
        # The server will find the connection closed and drop this.
        return web.Response()

    def _watch(self, task: asyncio.Task[Any]) -> None:
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _first_sight(self, request: web.Request, headers: Mapping[str, str], route: Route | None) -> SeenRequest:
        """Return what the head of a request tells."""
        operation = route.operation if route else None
        if route and operation and operation.needs_key:
            authorized = bool(route.provider.find_key(headers))
        else:
            authorized = bool(headers.get("authorization") or headers.get("x-api-key"))
        return SeenRequest(
            operation=operation.name if operation else "unknown",
            provider=route.provider.name if route else "",
            method=request.method,
            path=request.path,
            query=dict(request.query),
            headers=redacted(headers),
            authorized=authorized,
            body=b"",
            fields={},
            at=self._world.clock.monotonic(),
            status=None,
        )


def _admit(request: web.Request, headers: Mapping[str, str], route: Route) -> Operation:
    """Return the operation, unless the method or the missing key forbids it."""
    if route.operation is None:
        raise RefusalError(405, f"{request.method} is not allowed here; use {route.allowed}.")
    if route.operation.needs_key and not route.provider.find_key(headers):
        raise RefusalError(401, _UNAUTHORIZED)
    return route.operation
