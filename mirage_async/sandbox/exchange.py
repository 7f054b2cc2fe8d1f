"""The way of one request through the sandbox: noted, read, met by a fault or not, worked on, answered."""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import nullcontext
from dataclasses import dataclass
from email.utils import formatdate
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web

from mirage_async.sandbox.accounts import alias_of
from mirage_async.sandbox.answers import Answer, RefusalError, json_answer
from mirage_async.sandbox.bodies import Body, decode_body
from mirage_async.sandbox.dialects.provider import Call
from mirage_async.sandbox.faults.rules import Occasion
from mirage_async.sandbox.faults.strikes import fault_answer, strike
from mirage_async.sandbox.requestlog import SeenRequest, redacted

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from mirage_async.sandbox.dialects.provider import Operation, Provider
    from mirage_async.sandbox.faults.fault import Fault
    from mirage_async.sandbox.faults.flaws import Point
    from mirage_async.sandbox.faults.rules import FaultRules
    from mirage_async.sandbox.requestlog import RequestLog
    from mirage_async.sandbox.world import World

__all__ = ["Exchange", "Route"]

_UNAUTHORIZED = "Authentication required: the API key is missing or empty."
_HERE = b"http://sandbox"
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9a-fA-F:]{2,45}\])(?::[0-9]{1,5})?")

_logger = logging.getLogger("mirage_async.sandbox")


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

    def __init__(self, world: World, log: RequestLog, faults: FaultRules) -> None:
        self._world = world
        self._log = log
        self._faults = faults
        self._running: set[asyncio.Task[Any]] = set()

    async def serve(self, request: web.Request, route: Route | None) -> web.StreamResponse:
        """Serve one request; without a route, say that there is nothing at this path."""
        with self._world.clock.at_work():
            try:
                return await self._serve(request, route)
            except Exception:
                # A mistake of the sandbox itself. Whoever asked still gets an answer in the provider's words.
                _logger.exception("%s %s could not be served", request.method, request.rel_url.raw_path)
                if route is None:
                    raise
                answer = route.provider.refuse(RefusalError(500, "The sandbox has made a mistake; its log says more."))
                return web.Response(status=500, body=answer.body, headers={"Content-Type": answer.content_type})

    async def stop(self) -> None:
        """Cancel what is still being served or worked on, and wait until it has ended."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _serve(self, request: web.Request, route: Route | None) -> web.StreamResponse:
        self._watch(cast("asyncio.Task[Any]", asyncio.current_task()))
        headers = {name.lower(): value for name, value in request.headers.items()}
        serial = self._log.arrive(self._first_sight(request, headers, route))
        name = {
            "X-Request-Id": self._world.identifiers.request(),
            "Date": formatdate(int(self._world.clock.time()), usegmt=True),
        }
        if route is None:
            nothing = json_answer({"error": f"Nothing at {request.method} {request.path}"}, status=404)
            return self._respond(nothing.with_headers(name), serial, request)
        fault: Fault | None = None
        try:
            body = await self._read(request, serial)
            account = self._admit(headers, route, name)
            fault = self._fault_for(request, route, body, serial)
            flaws = frozenset({fault.flaw}) if fault is not None and fault.flaw is not None else frozenset[str]()
            call = Call(path_values=dict(request.match_info), body=body, account=account, flaws=flaws)
            answer = await self._answer(request, route, call, fault)
        except RefusalError as refusal:
            answer = route.provider.refuse(refusal).with_headers(refusal.headers)
        answer = answer.with_headers(name)
        if fault is None:
            return self._respond(answer, serial, request)
        self._log.amend(serial, fault=str(fault))
        if fault.flaw is not None:
            return self._respond(_spoiled(answer, fault, route.provider), serial, request)
        ordered = fault_answer(fault, route.provider, self._world.clock)
        if ordered is None:
            return await self._strike(fault, request, answer, serial)
        return self._respond(ordered.with_headers(name), serial, request)

    def _respond(self, answer: Answer, serial: int, request: web.Request) -> web.Response:
        url = self._world.url.encode()
        digest = blake2b(answer.body.replace(url, _HERE), digest_size=16).hexdigest()
        self._log.amend(serial, status=answer.status, answer_digest=digest)
        body, found = answer.body, f"http://{request.host}".encode()
        if found != url and answer.content_type == "application/json" and _HOST.fullmatch(request.host):
            # Links lead to where the client found us, which from inside a container has another name.
            body = body.replace(url, found)
        headers = {"Content-Type": answer.content_type, **answer.headers}
        return web.Response(status=answer.status, body=body, headers=headers)

    def _admit(self, headers: Mapping[str, str], route: Route, extra: dict[str, str]) -> str:
        """Return the account of a request that its limit lets pass, and note what the limit says in `extra`."""
        account = alias_of(route.provider.find_key(headers))
        if not account or route.operation is None:
            return account
        admission = self._world.accounts.admit(route.provider.name, account)
        extra.update(admission.headers)
        if admission.retry_after:
            raise RefusalError(429, "Too many requests", retry_after=admission.retry_after)
        return account

    def _fault_for(self, request: web.Request, route: Route, body: Body, serial: int) -> Fault | None:
        """Return what is to go wrong with a request, and note what it is about."""
        if route.operation is None:
            return None
        occasion = _occasion(self._world, route.operation, request.match_info, body)
        self._log.amend(serial, job_id=occasion.job_id)
        try:
            return self._faults.take(occasion)
        except ValueError as error:
            raise RefusalError(400, str(error), name="prompt") from None

    async def _answer(self, request: web.Request, route: Route, call: Call, fault: Fault | None) -> Answer:
        """Return the genuine answer; the work is left out when a fault strikes before it."""
        if fault is not None and not fault.after_the_work:
            return json_answer({})
        operation = _operation(request, route, call.account)
        work = operation.handle(self._world, call)
        return await (self._unstoppable(work) if operation.stage == "submit" else work)

    async def _read(self, request: web.Request, serial: int) -> Body:
        try:
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise RefusalError(413, "The request body is too large.") from None
        except web.RequestPayloadError:
            raise RefusalError(400, "The request body cannot be read.") from None
        body = decode_body(request.headers.get("Content-Type", ""), raw)
        self._log.amend(serial, body=raw, fields=body.fields)
        return body

    async def _unstoppable(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Do a purchase to its end even when the client leaves: a provider works on, and charges."""
        task = asyncio.create_task(self._at_work(work))
        self._watch(task)
        # Two tasks, two counts: the one that serves waits, and may leave before the work is done.
        with self._world.clock.at_rest():
            return await asyncio.shield(task)

    async def _at_work(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        with self._world.clock.at_work():
            return await work

    async def _strike(self, fault: Fault, request: web.Request, answer: Answer, serial: int) -> web.StreamResponse:
        # There is one: losing the connection cancels whoever serves it.
        transport = cast("asyncio.Transport", request.transport)
        waits = fault.stall is not None or fault.dribble is not None
        with self._world.clock.at_rest() if waits else nullcontext():
            status = await strike(fault, transport, answer, self._world.clock)
        self._log.amend(serial, status=status)
        # The server will find the connection closed and drop this.
        return web.Response()

    def _watch(self, task: asyncio.Task[Any]) -> None:
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _first_sight(self, request: web.Request, headers: Mapping[str, str], route: Route | None) -> SeenRequest:
        """Return what the head of a request tells."""
        operation = route.operation if route else None
        key = headers.get("authorization") or headers.get("x-api-key") or ""
        if route and operation and operation.needs_key:
            key = route.provider.find_key(headers)
        return SeenRequest(
            operation=operation.name if operation else "unknown",
            provider=route.provider.name if route else "",
            method=request.method,
            path=request.path,
            query=redacted(request.query),
            headers=redacted(headers),
            authorized=bool(key),
            account=alias_of(key),
            body=b"",
            fields={},
            at=self._world.clock.monotonic(),
            status=None,
        )


def _operation(request: web.Request, route: Route, account: str) -> Operation:
    """Return the operation, unless the method or the missing key forbids it."""
    if route.operation is None:
        message = f"{request.method} is not allowed here; use {route.allowed}."
        raise RefusalError(405, message, headers={"Allow": route.allowed})
    if route.operation.needs_key and not account:
        raise RefusalError(401, _UNAUTHORIZED)
    return route.operation


def _occasion(world: World, operation: Operation, path_values: Mapping[str, str], body: Body) -> Occasion:
    """Return what a request is about, as far as faults are concerned."""
    points: set[Point] = set()
    prompt, job_id = "", ""
    named = list(path_values.values())[-1:]
    embedded: set[Point] = {"result", "picture"} if operation.embeds(body.fields) else {"result"}
    if operation.stage == "submit":
        # An avatar has no prompt; its name stands for it.
        prompt = str(body.fields.get("prompt") or body.fields.get("name") or "")
        points = {"submit", *embedded} if operation.blocking else {"submit"}
    elif operation.stage == "status" and named and (job := world.jobs.get_job(named[0])) is not None:
        prompt, job_id = job.prompt, job.id
        points = {"status", *embedded} if world.tells_result(job) else {"status"}
    elif operation.stage == "picture" and named and (link := world.links.find(named[0])) is not None:
        prompt, job_id = link.picture.prompt, link.job_id
        points = {"picture"}
    return Occasion(operation=operation.name, points=frozenset(points), prompt=prompt, job_id=job_id)


def _spoiled(answer: Answer, fault: Fault, provider: Provider) -> Answer:
    """Return an answer that arrives whole and is no good, for the flaws that are the same everywhere."""
    if fault.flaw == "error-body":
        refused = provider.refuse(RefusalError(500, "Internal error (ordered from the sandbox)"))
        return Answer(status=200, body=refused.body, content_type=refused.content_type, headers=answer.headers)
    if fault.flaw == "invalid-json":
        body = answer.body[: max(1, len(answer.body) * 2 // 3)]
        return Answer(status=answer.status, body=body, content_type=answer.content_type, headers=answer.headers)
    return answer
