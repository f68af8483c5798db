"""Puts requests into batches of providers, waits for those, and hands replies over.

One thread works for all batches of a job, however many requests there are. A batch is
remembered before it is submitted; where it is not known whether it was, it is looked
for at the provider before it is submitted again. What fails for the moment is tried
again, for as long as batches may take.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from queue import Empty, Queue
from typing import NamedTuple, TypeVar

from smart_engine.calls import Call, Failure
from smart_engine.errors import SmartError, StoreError
from smart_engine.runtime.failure import (
    is_missing,
    is_unbilled,
    may_succeed_later,
    seconds_asked_for,
)
from smart_engine.runtime.lanes.carrier import (
    Carrier,
    GoneError,
    NoReply,
    NotYetKnownError,
    Row,
    State,
    UnansweredError,
    UncarriableError,
)
from smart_engine.runtime.lanes.exchange import Reply, Request
from smart_engine.serving.submissions import Submission, SubmissionStore
from smart_engine.warn import warn

__all__ = ["WORTH_A_BATCH", "CallReply", "Dispatcher", "LaneError", "Pace"]

T = TypeVar("T")

WORTH_A_BATCH = 100
"""Requests of a model from which on a batch is worth the time that it takes."""

_POLL = 0.05
"""Seconds between two looks at whether to wait any longer."""


class LaneError(SmartError):
    """A provider takes no batches of a model."""


class CallReply(NamedTuple):
    """What came of a call's request.

    Attributes:
        call: The call.
        reply: The reply, or why there is none.
    """

    call: Call
    reply: Reply | NoReply


Deliver = Callable[[list[CallReply] | BaseException], None]
"""Takes replies, none where batches were only looked at, or what ends the thread."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a batch is looked at, in seconds.

    Attributes:
        first: Seconds until the first look; each pause is a fifth longer.
        longest: The longest pause.
        missing: How long a provider may not know a batch, or its results, before they
            count as deleted: what is new, or moved, may be unknown for a minute.
        unlisted: How long a provider's list may lack a new batch: one that may have
            been submitted, and is still not listed after that, never was.
        patience: How long a provider may fail to answer at all.
    """

    first: float = 1.0
    longest: float = 60.0
    missing: float = 900.0
    unlisted: float = 120.0
    patience: float = 3600.0


@dataclass(frozen=True, slots=True)
class _QueuedCall:
    """A request on its way."""

    call: Call
    row: Row


@dataclass(slots=True)
class _OpenBatch:
    """A batch on its way.

    Attributes:
        submission: What is remembered of it.
        queued: Those of its requests that are waited for, by name.
        rows: Its requests as they are sent; empty once it is submitted, and for one
            that an earlier process began.
        looked_for: How often it was looked for at the provider in vain.
        tried: Whether it may be submitted, though its id is not known.
        state: Where it was when it was last looked at.
        replies: What its results say, by the names of its requests.
        due: When it is looked at next.
        pause: Seconds until the look after that.
        failing: Since when the provider fails to answer, if it does.
    """

    submission: Submission
    queued: dict[str, _QueuedCall]
    rows: Sequence[bytes] = ()
    tried: bool = False
    looked_for: int = 0
    state: State | None = None
    replies: dict[str, Reply | UnansweredError] = field(default_factory=dict)
    due: float = 0.0
    pause: float = 0.0
    failing: float | None = None


@dataclass
class Dispatcher:
    """Carries the calls of one job.

    Args:
        carriers: Who carries a model's requests, by its name.
        auto: Names of models whose requests are carried where they are many.
        submissions: What is remembered of batches.
        pace: How often they are looked at.

    """

    waits = True  # for the network

    carriers: Mapping[str, Carrier]
    auto: Collection[str]
    submissions: SubmissionStore
    pace: Pace = Pace()
    _collected: list[_QueuedCall] = field(init=False, default_factory=list)
    # No SimpleQueue: a short timeout of its `get` may never end in CPython 3.11.
    _sent: Queue[list[_QueuedCall] | None] = field(init=False, default_factory=Queue)
    _open: dict[str, _OpenBatch] = field(init=False, default_factory=dict)
    _thread: threading.Thread | None = field(init=False, default=None)
    _deliver: Deliver | None = field(init=False, default=None)
    _arrived: list[CallReply] = field(init=False, default_factory=list)
    _awaited: set[Call] = field(init=False, default_factory=set)
    _stopping: threading.Event = field(init=False, default_factory=threading.Event)
    _left: threading.Event = field(init=False, default_factory=threading.Event)
    _earlier: dict[str, Submission] = field(init=False, default_factory=dict)
    _loaded: bool = field(init=False, default=False)
    _warned: bool = field(init=False, default=False)

    # -- for who drives the job ------------------------------------------------

    @property
    def _kept(self) -> bool:
        """Whether another process finds all batches that are under way."""
        return self.submissions.durable and not self._warned

    def carries(self, model: str) -> bool:
        """Whether a model's calls are carried."""
        return model in self.carriers

    @property
    def collected(self) -> bool:
        """Whether any request waits to be sent."""
        return bool(self._collected)

    def collect(self, call: Call, request: Request) -> None:
        """Take a call's request, to be sent with others."""
        parts = (self.submissions.key, call.item, call.tier, request.url)
        name = sha256(repr(parts).encode() + request.body).hexdigest()[:40]
        self._collected.append(_QueuedCall(call, Row(name, request)))

    def few(self) -> list[Call]:
        """Give back the calls of which there are too few for a batch of their own.

        What an earlier process has put into a batch stays there.
        """
        if not self.auto:
            return []
        self._load()
        fresh = [e for e in self._collected if e.row.name not in self._earlier]
        counts = Counter(each.call.tier for each in fresh)
        few = {model for model in self.auto if counts[model] < WORTH_A_BATCH}
        back = {each.call for each in fresh if each.call.tier in few}
        self._collected = [e for e in self._collected if e.call not in back]
        return [*back]

    def send(self, deliver: Deliver) -> None:
        """Send what was collected.

        Args:
            deliver: Told of what comes of it, from a thread.
        """
        queued, self._collected = self._collected, []
        self._awaited.update(each.call for each in queued)
        self._sent.put(queued)
        if self._thread is None:
            self._deliver = deliver
            run = threading.Thread(target=self._run, name="smart-lane", daemon=True)
            self._thread = run
            run.start()

    def stop(self) -> None:
        """Return once nothing is under way here.

        Batches go on if they can be taken up again; else they are cancelled.
        """
        self._stopping.set()
        self._sent.put(None)
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(_POLL)
            if self._left.is_set():
                return
        if not self._kept:
            for batch in self._open.values():
                if batch.submission.batch is not None:
                    with suppress(Exception):  # it ends by itself some day
                        carrier = self.carriers[batch.submission.model]
                        carrier.cancel(batch.submission.batch)

    def interrupt(self, error: BaseException) -> None:
        """End the drive that waits for replies, if any does, from any thread."""
        if self._deliver is not None:
            self._deliver(error)

    def leave(self) -> None:
        """Let `stop` wait for nothing."""
        self._left.set()

    def lost(self, carried_calls: Mapping[Call, T]) -> list[T]:
        """Return those whose requests were sent, and whose replies nobody will read."""
        if self._kept:
            return []
        return [carried_calls[call] for call in carried_calls if call in self._awaited]

    def left_behind(self) -> str | None:
        """Return what to know about the batches that are under way, if any are."""
        submitted = [each.submission.batch for each in self._open.values()]
        names = ", ".join(name for name in submitted if name is not None)
        if not names:
            return None
        if self._kept:
            return f"batches go on ({names}): the same call takes them up"
        return f"batches were cancelled ({names}): with a store= they would go on"

    def status(self) -> str:
        """Return where the batches under way are, in a few words for a person."""
        return ", ".join(
            f"{each.submission.model} {each.state.name} "
            f"{each.state.done:,}/{len(each.submission.rows):,}"
            if each.state
            else f"{each.submission.model} sent"
            for each in [*self._open.values()]
        )

    # -- its thread ------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._load()
            while not self._stopping.is_set():
                self._take(self._next())
                for batch in [*self._open.values()]:
                    if batch.due <= time.monotonic() and not self._stopping.is_set():
                        self._attend(batch)
                self._hand_over()
        except BaseException as error:  # noqa: BLE001 - who drives the job raises it
            self._hand_over(error)

    def _load(self) -> None:
        """Learn which requests earlier processes put into batches, once."""
        if not self._loaded:
            for submission in self.submissions.saved():
                self._earlier.update(dict.fromkeys(submission.rows, submission))
        self._loaded = True

    def _hand_over(self, error: BaseException | None = None) -> None:
        """Deliver all replies at once: what they lead to can then be sent at once."""
        arrived, self._arrived = self._arrived, []
        self._awaited.difference_update(each.call for each in arrived)
        assert self._deliver is not None  # noqa: S101 - for type checkers
        self._deliver(arrived)
        if error is not None:
            self._deliver(error)

    def _next(self) -> list[_QueuedCall]:
        """Wait for requests, or until a batch has to be looked at."""
        due = min((each.due for each in self._open.values()), default=None)
        wait = None if due is None else max(0.0, due - time.monotonic())
        try:
            return self._sent.get(timeout=wait) or []
        except Empty:
            return []

    def _take(self, queued: Iterable[_QueuedCall]) -> None:
        """Put requests into batches: those they are in already, or new ones."""
        fresh: dict[tuple[str, str], list[_QueuedCall]] = {}
        for each in queued:
            earlier = self._earlier.get(each.row.name)
            if earlier is not None:
                batch = _OpenBatch(earlier, {}, tried=True)
                batch = self._open.setdefault(earlier.name, batch)
                batch.queued[each.row.name] = each
                continue
            model = each.call.tier
            try:
                kind = self.carriers[model].kind(each.row.request)
            except UncarriableError as error:
                self._arrived.append(CallReply(each.call, error))
            else:
                fresh.setdefault((model, kind), []).append(each)
        for (model, kind), group in fresh.items():
            self._pack(model, kind, group)

    def _pack(
        self, model: str, kind: str, queued: Iterable[_QueuedCall], due: float = 0.0
    ) -> None:
        """Put requests of one kind into as few batches as the provider's limits let."""
        carrier = self.carriers[model]
        limits, size = carrier.limits, 0
        chosen: list[_QueuedCall] = []
        rows: list[bytes] = []
        for each in queued:
            row = carrier.encode(each.row)
            if len(row) > limits.size:
                problem = f"its {len(row):,} bytes do not fit into a batch"
                self._arrived.append(CallReply(each.call, UncarriableError(problem)))
                continue
            if rows and (len(rows) == limits.rows or size + len(row) > limits.size):
                self._begin(model, kind, chosen, rows, due)
                chosen, rows, size = [], [], 0
            chosen.append(each)
            rows.append(row)
            size += len(row)
        if rows:
            self._begin(model, kind, chosen, rows, due)

    def _begin(
        self,
        model: str,
        kind: str,
        queued: Sequence[_QueuedCall],
        rows: Sequence[bytes],
        due: float,
    ) -> None:
        named = {each.row.name: each for each in queued}
        submission = Submission(
            f"smart-{secrets.token_hex(12)}",
            model,
            self.carriers[model].address,
            kind,
            tuple(named),
            time.time(),
            account=self.carriers[model].account,
        )
        self._open[submission.name] = _OpenBatch(submission, named, rows, due=due)

    # -- one batch ---------------------------------------------------------------

    def _attend(self, batch: _OpenBatch) -> None:
        """Do what a batch needs next: submit it, look at it, bring its replies."""
        now = time.monotonic()
        try:
            if batch.submission.batch is None:
                self._submit(batch)
            else:
                self._look(batch, batch.submission.batch)
        except LaneError:
            raise
        except Exception as error:
            again, batch.failing = batch.failing is not None, batch.failing or now
            failing = now - batch.failing
            if batch.submission.batch is not None and is_missing(error):
                known = batch.state is not None or isinstance(error, GoneError)
                if again and not known:
                    self._check_account(batch.submission)
                if isinstance(error, GoneError) or failing > self.pace.missing:
                    self._miss(batch, error)
                    return
            elif failing > self.pace.patience or not may_succeed_later(Failure(error)):
                raise self._refused(batch, error) from error
            asked = seconds_asked_for(error) or 0.0
            if batch.tried and batch.rows:  # it may have been submitted all the same
                asked = max(asked, self.pace.unlisted)
            self._wait(batch, asked)
        else:
            batch.failing = None

    def _wait(self, batch: _OpenBatch, asked: float | None = None) -> None:
        longer = batch.pause * 1.2 or self.pace.first
        batch.pause = min(longer, self.pace.longest)
        batch.due = time.monotonic() + (asked or batch.pause)

    def _refused(self, batch: _OpenBatch, error: Exception) -> LaneError:
        model, where = batch.submission.model, batch.submission.address
        if batch.submission.batch is not None:
            problem = f"{where} does not say how the batch {batch.submission.batch}"
            hint = "the same call, later, takes it up"
            return LaneError(f"{problem} of {model} is: {error}; {hint}")
        return LaneError(
            f"{where} does not carry batches of {model} ({error}); ask it live, by "
            f"lane={{{model!r}: 'live', …}}"
        )

    def _check_account(self, submission: Submission) -> None:
        """Refuse to buy anew what another key may have bought.

        A key is shown no batch of another project or workspace, so a batch that is
        unknown is deleted, or was never created, only if this key submitted it.

        Raises:
            LaneError: If it was another key, or may have been.
        """
        if submission.account == self.carriers[submission.model].account:
            return
        name, job = submission.batch or submission.name, self.submissions.key[:12]
        raise LaneError(
            f"{submission.address} shows this key no batch {name} of "
            f"{submission.model}, which job {job} submitted with another key: use one "
            "of the same project or workspace; if there is none, `smart cancel STORE "
            f"{name} --forget`, and the same call buys its {len(submission.rows):,} "
            "requests anew"
        )

    def _submit(self, batch: _OpenBatch) -> None:
        """Submit a batch, unless it is found at the provider."""
        submission = batch.submission
        carrier = self.carriers[submission.model]
        others = {each.submission.batch or "" for each in self._open.values()}
        try:
            found = carrier.find(submission, others) if batch.tried else None
        except NotYetKnownError:
            self._wait(batch)
            return
        if found is None and not batch.rows:
            # An earlier process was killed about here. It may still be on its way.
            batch.looked_for += 1
            if batch.looked_for > 1:
                self._check_account(submission)
                self._again(batch)
            else:
                self._wait(batch, self.pace.unlisted)
            return
        if found is None:
            self._remember(submission)
            try:
                batch.tried = True
                found = carrier.submit(submission.name, submission.kind, batch.rows)
            except Exception as error:
                batch.tried = not is_unbilled(error)
                raise
        batch.submission, batch.rows = replace(submission, batch=found), ()
        self._remember(batch.submission)
        self._wait(batch)

    def _look(self, batch: _OpenBatch, name: str) -> None:
        """Look where a batch is; bring its replies if it has ended."""
        carrier = self.carriers[batch.submission.model]
        batch.state = state = carrier.look(name)
        if not state.ended:
            self._wait(batch)
            return
        if state.busy:
            self._postpone(batch, state.problem or state.name)
            return
        for row, reply in carrier.replies(name):
            batch.replies[row] = reply
        problem = state.problem or f"the batch is {state.name}"
        self._settle(batch, UnansweredError(problem))

    def _settle(self, batch: _OpenBatch, problem: UnansweredError | GoneError) -> None:
        """Hand over the replies of a batch, and the problem of those without one."""
        again: list[_QueuedCall] = []
        for row, each in batch.queued.items():
            reply = batch.replies.get(row) or problem
            if self._earlier.pop(row, None) is not None and _may_come_later(reply):
                again.append(each)  # what an earlier process tried counts for it
            else:
                self._arrived.append(CallReply(each.call, reply))
        del self._open[batch.submission.name]
        self._pack(batch.submission.model, batch.submission.kind, again)

    def _miss(self, batch: _OpenBatch, error: Exception) -> None:
        """Give up a batch, or the part of its results, that the provider deleted.

        What is not answered in the rest may be billed.
        """
        where, model = batch.submission.address, batch.submission.model
        what = "all results of" if batch.replies else "the batch"
        problem = f"{where} no longer has {what} {batch.submission.batch} of {model}"
        hint = "requests are made again; what they may have cost is booked as unknown"
        if lost := batch.queued.keys() - batch.replies.keys():
            warn(f"{problem} ({error}): {len(lost):,} of its {hint}")
        self._settle(batch, GoneError(problem))

    def _again(self, batch: _OpenBatch) -> None:
        """Put the requests of a batch that does not exist into another one."""
        self._pack(batch.submission.model, batch.submission.kind, self._freed(batch))

    def _postpone(self, batch: _OpenBatch, problem: str) -> None:
        """Try a batch that was too much for the provider later, or in two parts."""
        queued, submission = self._freed(batch), batch.submission
        model, kind = submission.model, submission.kind
        later = time.monotonic() + self.pace.longest
        others = [each.submission for each in self._open.values()]
        if any(each.batch and each.model == model for each in others):
            self._pack(model, kind, queued, later)  # they take its place now
        elif len(queued) == 1:
            self._arrived.append(CallReply(queued[0].call, UncarriableError(problem)))
        else:
            half = len(queued) // 2
            self._pack(model, kind, queued[:half])
            self._pack(model, kind, queued[half:], later)

    def _freed(self, batch: _OpenBatch) -> list[_QueuedCall]:
        """Give up a batch; return its requests."""
        del self._open[batch.submission.name]
        for row in batch.queued:
            self._earlier.pop(row, None)
        return [*batch.queued.values()]

    def _remember(self, submission: Submission) -> None:
        """Remember a batch; a store that fails costs no answer, and is warned of."""
        try:
            self.submissions.save(submission)
        except StoreError as error:
            if not self._warned:
                problem = "the batch goes on, but cannot be taken up where it ends"
                warn(f"{problem}: {error}")
            self._warned = True


def _may_come_later(reply: Reply | UnansweredError | GoneError) -> bool:
    """Whether a request that cost nothing may be answered in another batch."""
    if not isinstance(reply, Reply):
        return isinstance(reply, UnansweredError)
    return reply.status in {408, 409, 429} or reply.status >= 500
