"""The commands: each calls the method of `Sandbox` that is named like it, and shows what that returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from mirage_async import __version__
from mirage_async.sandbox.accounts import alias_of
from mirage_async.sandbox.answers import Answer
from mirage_async.sandbox.control.gate import DeniedError, Order, whole
from mirage_async.sandbox.control.orders import (
    CreditsOrder,
    EmptyOrder,
    FailOrder,
    FaultsOrder,
    LimitsOrder,
    ResetOrder,
    SettingsOrder,
)
from mirage_async.sandbox.control.views import plain, request_view
from mirage_async.sandbox.durations import durations_from_json
from mirage_async.sandbox.faults.catalogue import GLOSSARY

if TYPE_CHECKING:
    from mirage_async.sandbox.server import Sandbox
    from mirage_async.sandbox.world import World

__all__ = [
    "Console",
    "add_faults",
    "change_settings",
    "clear_faults",
    "fail_job",
    "finish_job",
    "list_accounts",
    "list_deliveries",
    "list_faults",
    "list_honesty",
    "list_jobs",
    "list_names",
    "list_requests",
    "redeliver",
    "remove_fault",
    "reset",
    "set_credits",
    "set_limits",
    "show_health",
    "show_job",
    "show_statistics",
    "show_transcript",
]

_REQUESTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """What commands work on.

    Attributes:
        sandbox: whose methods they call.
        world: its state.
        opened_at: seconds on its clock when it started.
    """

    sandbox: Sandbox
    world: World
    opened_at: float


async def show_health(console: Console, order: Order) -> Any:
    """Say that it runs, and how it was started."""
    order.filters()
    world = console.world
    return {
        "status": "ok",
        "url": world.url,
        "version": __version__,
        "seed": world.seed,
        "strict": world.strict,
        "uptime": round(world.clock.monotonic() - console.opened_at, 6),
    }


async def reset(console: Console, order: Order) -> Any:
    """Begin anew."""
    scope: Any = order.body(ResetOrder).scope
    console.sandbox.reset(scope)
    return {"scope": scope}


async def show_statistics(console: Console, order: Order) -> Any:
    """Show the figures of this moment."""
    order.filters()
    return console.sandbox.statistics()


async def list_jobs(console: Console, order: Order) -> Any:
    """Show the jobs that have all that is given."""
    wanted = order.filters(provider=_word, kind=_word, status=_word, open=_yes_or_no)
    is_open = wanted.pop("open", None)
    jobs = [
        job
        for job_id, job in console.sandbox.jobs.items()
        if all(getattr(job, name) == value for name, value in wanted.items())
        and (is_open is None or _is_open(console, job_id) == is_open)
    ]
    return {"jobs": jobs}


async def show_job(console: Console, order: Order) -> Any:
    """Show one job."""
    order.filters()
    return console.sandbox.jobs[_job_id(console, order)]


async def finish_job(console: Console, order: Order) -> Any:
    """Let one job be done now, and show it."""
    order.body(EmptyOrder)
    job_id = _open_job_id(console, order)
    console.sandbox.finish_job(job_id)
    return console.sandbox.jobs[job_id]


async def fail_job(console: Console, order: Order) -> Any:
    """Let one job come to a bad end now, and show it."""
    failure = order.body(FailOrder)
    end: Any = failure.end
    job_id = _open_job_id(console, order)
    console.sandbox.fail_job(job_id, failure.reason, end=end)
    return console.sandbox.jobs[job_id]


async def list_faults(console: Console, order: Order) -> Any:
    """Show the faults that wait."""
    order.filters()
    return {"faults": console.sandbox.faults}


async def add_faults(console: Console, order: Order) -> Any:
    """Let requests fail, and show the numbers of the rules."""
    wanted = order.body(FaultsOrder)
    ids = console.sandbox.fail(
        wanted.operation,
        *wanted.made(),
        times=wanted.times,
        probability=wanted.probability,
        prompt=wanted.prompt,
    )
    return {"ids": ids}


async def remove_fault(console: Console, order: Order) -> Any:
    """Take back one fault."""
    rule_id = whole("the number of a fault", order.names["id"])
    try:
        console.sandbox.remove_fault(rule_id)
    except ValueError as error:
        raise DeniedError(404, str(error)) from None
    return {"removed": [rule_id]}


async def clear_faults(console: Console, _: Order) -> Any:
    """Take back all of them."""
    waiting = [rule.id for rule in console.sandbox.faults]
    console.sandbox.clear_faults()
    return {"removed": waiting}


async def list_names(_: Console, order: Order) -> Any:
    """Explain the names of faults."""
    order.filters()
    return {"names": GLOSSARY}


async def list_requests(console: Console, order: Order) -> Any:
    """Show the latest requests that have all that is given, newest last; with `after`, those that come next."""
    wanted = order.filters(
        provider=_word,
        operation=_word,
        method=_word,
        status=whole,
        job_id=_word,
        prompt=_word,
        after=whole,
        limit=_limit,
    )
    limit = wanted.pop("limit", _REQUESTS)
    found = console.sandbox.find_requests(**wanted)
    # Who says after what is on the way through all of them, and goes on after the last one shown.
    page = found[:limit] if "after" in wanted else found[-limit:]
    return {"requests": [request_view(request) for request in page]}


async def show_transcript(console: Console, order: Order) -> Any:
    """Tell what was asked and answered, a line of JSON each."""
    order.filters()
    lines = [msgspec.json.encode(plain(entry)) + b"\n" for entry in console.sandbox.transcript()]
    return Answer(body=b"".join(lines), content_type="application/x-ndjson")


async def list_accounts(console: Console, order: Order) -> Any:
    """Show what each key has asked for, spent and left."""
    order.filters()
    return {"accounts": console.sandbox.accounts}


async def set_credits(console: Console, order: Order) -> Any:
    """Let keys of a provider spend so many credits; the answer does not repeat the key."""
    wanted = order.body(CreditsOrder)
    console.sandbox.set_credits(wanted.provider, wanted.credits, key=wanted.key)
    return {"provider": wanted.provider, "credits": wanted.credits, "account": alias_of(wanted.key or "")}


async def set_limits(console: Console, order: Order) -> Any:
    """Let keys of a provider make so many requests in a time; the answer does not repeat the key."""
    wanted = order.body(LimitsOrder)
    console.sandbox.set_rate_limit(wanted.provider, wanted.requests, seconds=wanted.seconds, key=wanted.key)
    return {
        "provider": wanted.provider,
        "requests": wanted.requests,
        "seconds": wanted.seconds,
        "account": alias_of(wanted.key or ""),
    }


async def change_settings(console: Console, order: Order) -> Any:
    """Change what is given, or nothing when one value of it is wrong."""
    wanted = order.body(SettingsOrder)
    given = {name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not msgspec.UNSET}
    if "durations" in given:
        given["durations"] = durations_from_json(given["durations"])
    console.sandbox.set_all(**given)
    return {"changed": list(given)}


async def list_deliveries(console: Console, order: Order) -> Any:
    """Show the latest deliveries."""
    order.filters()
    return {"deliveries": console.sandbox.deliveries}


async def redeliver(console: Console, order: Order) -> Any:
    """Make one more attempt of a delivery, and show what came of it."""
    order.body(EmptyOrder)
    delivery_id = whole("the number of a delivery", order.names["id"])
    try:
        return await console.sandbox.redeliver(delivery_id)
    except ValueError as error:
        raise DeniedError(404, str(error)) from None
    except RuntimeError as error:
        raise DeniedError(400, str(error)) from None


async def list_honesty(console: Console, order: Order) -> Any:
    """Show where the behaviours of the sandbox come from."""
    wanted = order.filters(provider=_word, tag=_word)
    behaviours = [
        one for one in console.sandbox.honesty if all(getattr(one, name) == value for name, value in wanted.items())
    ]
    return {"behaviours": behaviours}


def _job_id(console: Console, order: Order) -> str:
    job_id = order.names["id"]
    if job_id not in console.sandbox.jobs:
        raise DeniedError(404, f"no job {job_id!r} among the {len(console.sandbox.jobs)} there are")
    return job_id


def _open_job_id(console: Console, order: Order) -> str:
    job_id = _job_id(console, order)
    if not _is_open(console, job_id):
        raise DeniedError(409, f"job {job_id!r} has ended: it is {console.sandbox.jobs[job_id].status}")
    return job_id


def _is_open(console: Console, job_id: str) -> bool:
    job = console.world.jobs.get_job(job_id)
    return job is not None and job.end is None


def _word(_: str, text: str) -> str:
    return text


def _yes_or_no(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{name} must be true or false, got {text!r}")
    return text == "true"


def _limit(name: str, text: str) -> int:
    limit = whole(name, text)
    if limit < 1:
        raise ValueError(f"{name} must be 1 or more, got {text!r}")
    return limit
