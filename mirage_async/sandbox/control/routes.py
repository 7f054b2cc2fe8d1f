"""The table of control routes, and how they get into the application."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from mirage_async.sandbox.control import commands, timing
from mirage_async.sandbox.control.commands import Console
from mirage_async.sandbox.control.gate import DeniedError, Order, check_host, read_order, respond

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp import web

    from mirage_async.sandbox.server import Sandbox
    from mirage_async.sandbox.world import World

__all__ = ["PREFIX", "ROUTES", "ControlRoute", "add_control"]

PREFIX = "/_sandbox"

_Work: TypeAlias = "Callable[[web.Request], Awaitable[Any]]"


@dataclass(frozen=True, slots=True)
class ControlRoute:
    """One control route.

    Attributes:
        method: HTTP method.
        path: path below the prefix, with `{names}`.
        says: what it does, with the fields it takes.
        handle: does it, and returns what the answer shows.
    """

    method: str
    path: str
    says: str
    handle: Callable[[Console, Order], Awaitable[Any]]


async def _list_routes(_: Console, order: Order) -> Any:
    """Show the table below."""
    order.filters()
    return {"routes": [{"method": one.method, "path": PREFIX + one.path, "says": one.says} for one in ROUTES]}


ROUTES: tuple[ControlRoute, ...] = (
    ControlRoute("GET", "/", "this list", _list_routes),
    ControlRoute("GET", "/health", "status, url, version, seed, strict, uptime on its clock", commands.show_health),
    ControlRoute("POST", "/reset", 'begin anew: scope "all", "state" or "rules"', commands.reset),
    ControlRoute("GET", "/statistics", "requests, purchases, open jobs, waiting faults", commands.show_statistics),
    ControlRoute("GET", "/jobs", "jobs; filters provider, kind, status, open=true or false", commands.list_jobs),
    ControlRoute("GET", "/jobs/{id}", "one job", commands.show_job),
    ControlRoute("POST", "/jobs/{id}/finish", "let a job be done now", commands.finish_job),
    ControlRoute(
        "POST",
        "/jobs/{id}/fail",
        'let a job fail now: reason, end "failed", "cancelled" or "timed_out"',
        commands.fail_job,
    ),
    # Before any path with a name in its place.
    ControlRoute("GET", "/faults/names", "every name of a fault, explained", commands.list_names),
    ControlRoute("GET", "/faults", "the faults that wait", commands.list_faults),
    ControlRoute(
        "POST",
        "/faults",
        "let requests fail: operation, fault or faults (names or fields), times, probability, prompt",
        commands.add_faults,
    ),
    ControlRoute("DELETE", "/faults", "take back all faults", commands.clear_faults),
    ControlRoute("DELETE", "/faults/{id}", "take back one fault", commands.remove_fault),
    ControlRoute("GET", "/clock", "monotonic, time, mode, waiting timers", timing.show_clock),
    ControlRoute(
        "POST",
        "/clock",
        "action freeze (at), resume, advance (seconds) or auto_advance (after)",
        timing.move_clock,
    ),
    ControlRoute(
        "GET",
        "/requests",
        "the latest requests; filters provider, operation, method, status, job_id, prompt, after, limit (1000)",
        commands.list_requests,
    ),
    ControlRoute("GET", "/transcript", "what was asked and answered, as lines of JSON", commands.show_transcript),
    ControlRoute("GET", "/accounts", "what each key asked for, spent and has left", commands.list_accounts),
    ControlRoute("PUT", "/credits", "provider, credits (null: any number), key", commands.set_credits),
    ControlRoute("PUT", "/limits", "provider, requests (null: no limit), seconds, key", commands.set_limits),
    ControlRoute("PUT", "/settings", "durations, progress, workers", commands.change_settings),
    ControlRoute("GET", "/deliveries", "deliveries to webhooks and their attempts", commands.list_deliveries),
    ControlRoute("POST", "/deliveries/{id}/redeliver", "make one more attempt now", commands.redeliver),
    ControlRoute(
        "GET", "/honesty", "what is documented, observed or invented; filters provider, tag", commands.list_honesty
    ),
)


def add_control(application: web.Application, sandbox: Sandbox, world: World, *, host: str) -> None:
    """Add the control routes.

    Args:
        application: where to; they have to come before a route that takes every path.
        sandbox: whose methods they call.
        world: its state.
        host: the name it listens on.
    """
    console = Console(sandbox=sandbox, world=world, opened_at=world.clock.monotonic())
    by_path: dict[str, list[ControlRoute]] = {}
    for route in ROUTES:
        by_path.setdefault(route.path, []).append(route)
    for path, routes in by_path.items():
        resource = application.router.add_resource(PREFIX + path)
        for route in routes:
            resource.add_route(route.method, _guarded(_command(console, route), world, host))
            if route.method == "GET":
                resource.add_route("HEAD", _guarded(_command(console, route), world, host))
        allowed = ", ".join("GET, HEAD" if route.method == "GET" else route.method for route in routes)
        denial = _denial(405, f"this path takes {allowed}", {"Allow": allowed})
        resource.add_route("*", _guarded(denial, world, host))
    index = application.router.add_resource(PREFIX)
    index.add_route("GET", _guarded(_command(console, ROUTES[0]), world, host))
    nothing = _denial(404, f"no such control route; GET {PREFIX}/ lists them", {})
    application.router.add_route("*", f"{PREFIX}{{rest:(?s:/.*|)}}", _guarded(nothing, world, host))


def _command(console: Console, route: ControlRoute) -> _Work:
    async def work(request: web.Request) -> Any:
        return await route.handle(console, await read_order(request))

    return work


def _denial(status: int, message: str, headers: Mapping[str, str]) -> _Work:
    async def work(_: web.Request) -> Any:
        raise DeniedError(status, message, headers=headers)

    return work


def _guarded(work: _Work, world: World, host: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return a handler that asks where a request was meant to go, and never fails."""

    async def serve(request: web.Request) -> web.StreamResponse:
        # An auto-advancing clock waits for orders as it waits for requests.
        with world.clock.at_work():
            try:
                check_host(request, host)
                return respond(await work(request))
            except DeniedError as denied:
                return respond(denied)
            except (ValueError, OverflowError, RecursionError) as error:
                return respond(DeniedError(400, str(error)))

    return serve
