"""What earlier processes still owe: found in the journal, healed where it can be, and handed on as jobs.

A purchase that was accepted is asked about again, and one whose outcome is on record gets it. What is left are those
of which only the intent is on record: their process ended between the request and the answer. Before such a one is
called uncertain, whatever can still tell is asked:

1. its pictures, where they were written and their row was not (the journal itself sees to that);
2. the provider's list, where it has one and exactly one entry in it fits (Mirako's avatars);
3. a late webhook: its address carries our key, and its body the provider's id, which counts once a status call with our
   own key has confirmed it.

Then the caller decides. Nothing is ever sent again unless he says so.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import anyio

from mirage_async._retry import Retrier
from mirage_async._tasks import fail, fulfil
from mirage_async.clients._records import job_of, remembered, uncertain_error
from mirage_async.exceptions import (
    APIError,
    ClosedError,
    ConfigurationError,
    ConnectionFailedError,
    InputError,
    MirageError,
    ResponseError,
)
from mirage_async.jobs import Job, accept, new_job, refuse
from mirage_async.journal import Entry, EntryState
from mirage_async.models import JobStatus
from mirage_async.wire import Submitted

if TYPE_CHECKING:
    from mirage_async.clients._base import ProviderClient
    from mirage_async.clients._runtime import Runtime
    from mirage_async.jobs import JobKind
    from mirage_async.journal import Journal
    from mirage_async.webhooks import Hint

__all__ = ["Decision", "OnUncertain", "Recovery", "checked_decision"]

_logger = logging.getLogger("mirage_async.clients")

Decision: TypeAlias = Literal["report", "resubmit", "abandon"]
OnUncertain: TypeAlias = Decision | Callable[[Entry], "Decision | Awaitable[Decision]"]

CONFIRM_TIMEOUT = 60.0  # seconds for one answer to whether there is such a job
CONFIRM_TRIES = 4
CONFIRM_BUDGET = 30.0  # seconds
TYPICAL = 60.0  # seconds to wait for a late webhook where the provider's document does not say how long a job takes


class Recovery:
    """Makes jobs of what a journal is owed.

    Args:
        runtime: the shared parts.
        journal: of the runtime.
        client_of: returns the client of a provider, or raises `ConfigurationError` where it has no key.
    """

    def __init__(self, runtime: Runtime, journal: Journal, client_of: Callable[[str], ProviderClient]) -> None:
        self._runtime = runtime
        self._journal = journal
        self._client_of = client_of
        self._turn = anyio.Lock()  # of two who recover at once, one gets a job
        self._left: dict[str, Job[Any]] = {}  # made for one who was cancelled, and for whoever recovers next
        self._found_ids: set[tuple[str, str]] = set()  # by provider: given to an uncertain purchase here

    async def recover(self, *, on_uncertain: OnUncertain, any_account: bool, max_wait: float | None) -> list[Job[Any]]:
        """Return the jobs that are owed, the oldest first; `Mirage.recover` tells the rules.

        Taking over what is owed and making jobs of it is not cut short with the caller, since nobody else would do the
        second half. What a cancelled caller left goes to the next one, and is in the `jobs` of its client.
        """
        self.listen()
        answer: asyncio.Future[list[Job[Any]]] = asyncio.get_running_loop().create_future()
        self._runtime.buyers.spawn(self._recover(answer, on_uncertain, any_account, max_wait))
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self._leave(answer.result())
            raise

    async def _recover(
        self,
        answer: asyncio.Future[list[Job[Any]]],
        on_uncertain: OnUncertain,
        any_account: bool,
        max_wait: float | None,
    ) -> None:
        try:
            async with self._turn:
                if answer.cancelled():  # nothing is taken over yet
                    return
                made = await self._made(on_uncertain, any_account=any_account, max_wait=max_wait)
                if not fulfil(answer, made):
                    self._leave(made)
        except asyncio.CancelledError:  # everything closes, and the grace is over
            fail(answer, ClosedError("the client was closed while it recovered; what is owed stays owed"))
            raise
        except ClosedError as error:  # no failure where whoever asked has left, and all is closed
            fail(answer, error)
        except Exception as error:
            if not fail(answer, error):
                raise

    async def _made(self, on_uncertain: OnUncertain, *, any_account: bool, max_wait: float | None) -> list[Job[Any]]:
        """Take over what is owed and return its jobs, after those that a cancelled caller left."""
        found: list[tuple[Entry, ProviderClient]] = []
        for entry in await self._journal.owed():
            client = self._client_for(entry, any_account=any_account)
            if client is not None:
                found.append((entry, client))
        await self._journal.take(entry.key for entry, _ in found)
        left, self._left = self._left, {}
        for job in left.values():
            self._client_of(job.provider).desk.ledger.orphans.pop(job, None)
        lists = _lists(found)
        made = [
            self._job(entry, client, lists[client], on_uncertain, max_wait)
            for entry, client in found
            if entry.key not in left
        ]
        return [job for job in left.values() if not job.taken] + made

    def _leave(self, made: list[Job[Any]]) -> None:
        """Keep the jobs of a caller who was cancelled."""
        for job in made:
            self._left[job.key] = job
            self._client_of(job.provider).keep(job)

    def _client_for(self, entry: Entry, *, any_account: bool) -> ProviderClient | None:
        try:
            client = self._client_of(entry.provider)
        except (ConfigurationError, InputError) as error:
            _logger.warning("the %s job %s stays owed: %s", entry.provider, entry.id or entry.key, error)
            return None
        if client.kind_of(entry) is None:
            _logger.warning("the %s job %s stays owed: this version knows no %s", entry.provider, entry.key, entry.kind)
            return None
        if entry.account != client.desk.alias and not any_account:
            _logger.warning(
                "the %s job %s stays owed: it was bought with another key or at another address (account %s, this is "
                "%s); recover(any_account=True) takes it all the same, as after a change of keys",
                entry.provider,
                entry.id or entry.key,
                entry.account,
                client.desk.alias,
            )
            return None
        return client

    def _job(
        self,
        entry: Entry,
        client: ProviderClient,
        listed: _List,
        on_uncertain: OnUncertain,
        max_wait: float | None,
    ) -> Job[Any]:
        desk, kind = client.desk, _kind(client, entry)
        if entry.state is EntryState.ACCEPTED or entry.settled:
            return remembered(desk, job_of(desk, kind, entry, max_wait=max_wait))
        job: Job[Any] = new_job(kind, key=entry.key, model=entry.model, requested=entry.requested)
        job.may_be_billed = True
        desk.ledger.buying.add(job)
        if entry.announced and self._runtime.webhooks is not None:
            self._runtime.webhooks.expect(job)
        self._runtime.buyers.spawn(self._heal(job, entry, listed, on_uncertain, max_wait))
        return remembered(desk, job)

    async def _heal(
        self, job: Job[Any], entry: Entry, listed: _List, on_uncertain: OnUncertain, max_wait: float | None
    ) -> None:
        ledger = listed.client.desk.ledger
        try:
            await self._settle(job, entry, listed, on_uncertain, max_wait)
        except ClosedError:
            job.stop(job.closed_error())
        except Exception:
            _logger.exception("what became of %r (key %s) cannot be found out", job, job.key)
            self._give_up(job, entry)
        finally:
            if job.done or job.id is not None:
                ledger.buying.discard(job)
            elif self._runtime.closed:
                job.stop(job.closed_error())

    async def _settle(
        self, job: Job[Any], entry: Entry, listed: _List, on_uncertain: OnUncertain, max_wait: float | None
    ) -> None:
        found = await self._found(job, entry, listed)
        if found is None or (job.provider, found) in self._found_ids:
            await self._decide(job, entry, listed.client, on_uncertain)
            return
        self._found_ids.add((job.provider, found))
        _logger.info("%r (key %s) was bought after all: it is %s", job, job.key, found)
        wait = job.kind.pace.max_wait if max_wait is None else max_wait
        await accept(job, Submitted(id=found), self._runtime.clock.monotonic() + wait)
        job.kind.waker.wake(job)  # it was sent long ago

    @staticmethod
    def _give_up(job: Job[Any], entry: Entry) -> None:
        """Tell the waiters, and nobody else."""
        if job.claim():
            job.resolve(JobStatus.UNCERTAIN, None, uncertain_error(entry))

    async def _decide(self, job: Job[Any], entry: Entry, client: ProviderClient, on_uncertain: OnUncertain) -> None:
        decision = await _decided(on_uncertain, entry)
        if decision == "resubmit" and await self._sent_again(job, entry, client):
            return
        if decision != "abandon":
            await refuse(job, uncertain_error(entry))
        else:
            await self._journal.resolve(entry.key)
            self._give_up(job, entry)

    async def _found(self, job: Job[Any], entry: Entry, lists: _List) -> str | None:
        """Return the provider's id of a purchase of which only the intent is on record, if it can be found out."""
        if entry.blocking:
            return None
        listed = await self._listed(job, entry, lists)
        if listed is not None or not entry.announced or self._runtime.webhooks is None:
            return listed
        patience = TYPICAL if job.kind.pace.typical is None else job.kind.pace.typical
        with self._runtime.until_closed():
            hint = await self._runtime.webhooks.expected.heard(job, patience)
        return None if hint is None else await self._confirmed(job.kind, hint)

    async def _listed(self, job: Job[Any], entry: Entry, lists: _List) -> str | None:
        try:
            listed = await lists.id_of(entry)
            known = listed is None or await self._journal.knows_id(entry.provider, listed)
        except ClosedError:
            raise
        except MirageError as error:
            _logger.warning("whether %r was bought cannot be looked up: %s", job, error)
            return None
        return None if known else listed

    async def _confirmed(self, kind: JobKind[Any], hint: Hint) -> str | None:
        """Return the id that a webhook claims, if the provider knows it as one of our account's, and we as no other."""
        if hint.job_id is None or await self._journal.knows_id(kind.provider, hint.job_id):
            return None
        probe: Job[Any] = new_job(kind, id=hint.job_id, status=JobStatus.QUEUED)
        retrier = Retrier(self._runtime.waits, tries=CONFIRM_TRIES, budget=CONFIRM_BUDGET, max_floor=CONFIRM_BUDGET)
        while True:
            try:
                with anyio.fail_after(CONFIRM_TIMEOUT):
                    await kind.look(probe)
            except (MirageError, TimeoutError) as error:
                if not _may_pass(error) or not await retrier.again(getattr(error, "retry_after", None)):
                    _logger.warning("a webhook names a %s job that cannot be confirmed: %s", kind.provider, error)
                    return None
            else:
                return hint.job_id

    async def _sent_again(self, job: Job[Any], entry: Entry, client: ProviderClient) -> bool:
        call = await self._journal.request(entry.key)
        if call is None:
            _logger.warning(
                "%r cannot be sent again, since its request is not on record: that takes "
                "Journal(store_prompts=True) at the time it is made",
                job,
            )
            return False
        client.desk.buy_again(job, call, client.readers[entry.kind, entry.blocking], blocking=entry.blocking)
        return True

    # --- webhooks that come when the purchase has been called uncertain already ---

    def listen(self) -> None:
        """Hear from now on of webhooks about purchases that were called uncertain."""
        if self._runtime.webhooks is not None:
            self._runtime.webhooks.listen(self._unclaimed)

    def _unclaimed(self, hint: Hint) -> None:
        if not self._runtime.closed and hint.job_id is not None:
            self._runtime.buyers.spawn(self._heal_late(hint))

    async def _heal_late(self, hint: Hint) -> None:
        entry = await self._journal.entry(hint.key)
        if entry is None or entry.state is not EntryState.UNCERTAIN or entry.provider != hint.provider:
            return
        client = self._client_for(entry, any_account=False)
        found = None if client is None else await self._confirmed(_kind(client, entry), hint)
        if found is None:
            return
        try:
            await self._journal.resolve(entry.key, id=found)
        except InputError as error:  # its own process is alive
            what_next = str(error)
        else:
            what_next = "recover() returns it"
        _logger.warning(
            "the uncertain purchase %s was bought after all: it is the %s job %s; %s",
            entry.key,
            entry.provider,
            found,
            what_next,
        )


class _List:
    """What a provider lists of the uncertain purchases of one recovery, asked for once for all of them.

    Args:
        client: of the provider.
        entries: the purchases.
    """

    def __init__(self, client: ProviderClient, entries: Sequence[Entry]) -> None:
        self.client = client
        self._entries = entries
        self._turn = anyio.Lock()
        self._ids: Mapping[str, str] | MirageError | None = None

    async def id_of(self, entry: Entry) -> str | None:
        """Return the id of a purchase; raises as `ProviderClient.listed_ids` does."""
        async with self._turn:
            if self._ids is None:
                self._ids = await self._asked()
        if isinstance(self._ids, MirageError):
            raise copy.copy(self._ids)
        return self._ids.get(entry.key)

    async def _asked(self) -> Mapping[str, str] | MirageError:
        try:
            return await self.client.listed_ids(self._entries)
        except MirageError as error:
            return error.with_traceback(None)


def _lists(found: Sequence[tuple[Entry, ProviderClient]]) -> dict[ProviderClient, _List]:
    """Return for each client what its provider lists of those purchases of which only the intent is on record."""
    entries: dict[ProviderClient, list[Entry]] = {client: [] for _, client in found}
    for entry, client in found:
        if entry.state in {EntryState.INTENDED, EntryState.UNCERTAIN} and not entry.blocking:
            entries[client].append(entry)
    return {client: _List(client, those) for client, those in entries.items()}


def _may_pass(error: Exception) -> bool:
    """Whether the same question may be answered better in a moment."""
    if isinstance(error, APIError):
        return error.status == 429 or error.status >= 500  # noqa: PLR2004 - HTTP's own numbers
    return isinstance(error, ConnectionFailedError | ResponseError | TimeoutError)


def _kind(client: ProviderClient, entry: Entry) -> JobKind[Any]:
    kind = client.kind_of(entry)
    assert kind is not None  # noqa: S101 - checked when the client was looked for; says so to the type checker
    return kind


async def _decided(on_uncertain: OnUncertain, entry: Entry) -> Decision:
    if not callable(on_uncertain):
        return on_uncertain
    try:
        decision = on_uncertain(entry)
        decided = await decision if inspect.isawaitable(decision) else decision
    except Exception:
        _logger.exception("on_uncertain failed; the purchase %s is reported as uncertain", entry.key)
        return "report"
    if decided not in get_args(Decision):
        _logger.error("on_uncertain must return one of %s; got %r, taken as 'report'", get_args(Decision), decided)
        return "report"
    return decided


def checked_decision(on_uncertain: OnUncertain) -> OnUncertain:
    """Return what to do about uncertain purchases, or raise `InputError`."""
    if not callable(on_uncertain) and on_uncertain not in get_args(Decision):
        allowed = ", ".join(map(repr, get_args(Decision)))
        msg = f"on_uncertain must be one of {allowed}, or a function of an entry that returns one; got {on_uncertain!r}"
        raise InputError(msg)
    return on_uncertain
