"""`BatchSession`: says which calls to make, records outcomes, hands out answers.

The session keeps the books and decides nothing; a strategy decides. It does no I/O:
whoever drives it makes the calls, in any order and concurrently, and records each
outcome. A session is not thread-safe: record from one thread, or hold a lock.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from smart_engine.batch.certificate import Certificate
from smart_engine.batch.progress import Progress, take_stock
from smart_engine.calls import Call, Failure, Outcome, Role, Served, check_outcome
from smart_engine.equivalence import EquivalenceLike, Exact, as_equivalence
from smart_engine.errors import BudgetExceededError, ProtocolError, check_whole
from smart_engine.evidence.record import (
    ANSWERED,
    ASKED,
    FAILED,
    REFERENCE,
    UNASKED,
    BatchRecord,
)
from smart_engine.guarantee import Guarantee, as_guarantee
from smart_engine.money.ledger import LedgerScope
from smart_engine.money.spending import Spend
from smart_engine.strategies import Decision, Wave, find_strategy
from smart_engine.strategies.looks import find_looks
from smart_engine.tiers import Tier, check_tiers

__all__ = ["BatchSession"]


class BatchSession:
    """One batch of items, served by several models under a guarantee.

    Args:
        n_items: Number of items, zero or more.
        tiers: One reference and at least one candidate.
        guarantee: What is promised.
        strategy: `"audit"`, or the paper's `"mix"`, `"efficient"`, `"exhaustive"`; or
            `"reference"`.
        looks: For the paper's strategies: `"corrected"` keeps the promise, `"paper"`
            is the paper's way.
        seed: Seed of all randomness. The same seed and outcomes give the same result,
            in whatever order the outcomes are recorded.
        equivalence: When two answers mean the same; a plain function will do. The
            audit also compares candidates with each other.
        max_in_flight: Most calls that will be made at once. The audit's waves are
            sized to fill it, but never buy a draw beyond those that may suffice.
        task: Name of the task, for the certificate.
        scope: Where every call is entered as it is recorded, if anywhere.

    Raises:
        InvalidInputError: If an argument cannot be used.

    Example:
        ```python
        models = {"big": lambda item: item % 2, "small": lambda item: item % 2}
        session = BatchSession(
            n_items=1000,
            tiers=[Tier("big", role="reference"), Tier("small")],
            guarantee=Guarantee(max_disagreement=0.05, confidence=0.95),
        )
        while calls := session.next_calls():
            for call in calls:
                cost = 1.0 if call.tier == "big" else 0.01
                session.record(call, Outcome(models[call.tier](call.item), cost))
        assert session.certificate.cost < 200
        assert [served.answer for served in session.answers[:3]] == [0, 1, 0]
        ```
    """

    def __init__(
        self,
        n_items: int,
        tiers: Sequence[Tier],
        guarantee: Guarantee | None = None,
        *,
        strategy: str = "audit",
        looks: str = "corrected",
        seed: int = 0,
        equivalence: EquivalenceLike = Exact(),
        max_in_flight: int = 1,
        task: str | None = None,
        scope: LedgerScope | None = None,
    ) -> None:
        """Check everything before anything is spent."""
        check_whole("n_items", n_items, 0)
        check_whole("seed", seed, 0)
        check_whole("max_in_flight", max_in_flight, 1)
        guarantee = as_guarantee(guarantee)
        find_looks(looks)
        checked = check_tiers(tiers)
        self._equivalence = as_equivalence(equivalence)
        self._scope = scope
        self._batch = BatchRecord(
            n_items, checked, guarantee, seed, self._equivalence, max_in_flight, scope
        )
        self._codes: dict[Any, int] = {}
        self._index = {tier.name: index for index, tier in enumerate(checked)}
        self._names = [tier.name for tier in checked]
        self._strategy, self._looks, self._seed = strategy, looks, seed
        self._task = task
        self._deciding = find_strategy(strategy)(self._batch, looks)
        self._decision: Decision | None = None
        self._profiled = bytearray(n_items)
        self._in_flight = 0
        self._escalations: list[int] = []
        self._errors: dict[tuple[int, int], BaseException] = {}
        self._certificate: Certificate | None = None
        self._uncovered = np.zeros(n_items, bool)
        self._stopped: BaseException | None = None

    @property
    def waits(self) -> bool:
        """Whether comparing answers may wait, such as for a judge's verdict."""
        return bool(getattr(self._equivalence, "waits", False))

    # -- driving ---------------------------------------------------------------

    def next_calls(self) -> list[Call]:
        """Return the calls that may start now, all at once; never the same twice.

        An empty list means: nothing to start before more outcomes are recorded, or,
        if `done`, nothing at all.
        """
        return self._due()

    def _due(self) -> list[Call]:
        """Return the calls that may start now."""
        while self._decision is None and not self._in_flight:
            try:
                wave = next(self._deciding)
            except StopIteration as stop:
                return self._apply(stop.value)
            if calls := self._start(wave):
                return calls
        calls = [Call(item, self._names[REFERENCE]) for item in self._escalations]
        self._escalations.clear()
        self._mark(REFERENCE, (call.item for call in calls))
        return calls

    def keep(self, call: Call, outcome: Outcome | Failure) -> None:
        """Do nothing with what a call has just brought; see `ResumedSession`."""

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record what a call brought; the order of recording does not matter.

        Args:
            call: A call that `next_calls` returned.
            outcome: What it brought, or why it brought nothing.

        Returns:
            Why no answer of it can be used, None if one can.

        Raises:
            ProtocolError: If that call is not in flight.
            InvalidInputError: If the cost is not a number of zero or more, or the
                confidence no number.
        """
        item, name = call
        tier = self._index.get(name, -1)
        batch = self._batch
        known = tier >= 0 and 0 <= item < batch.n_items
        if not known or batch.status[tier][item] != ASKED:
            raise ProtocolError(f"{call} is not in flight: record each call once")
        check_outcome(outcome)
        batch.costs[tier][item] = outcome.cost
        if outcome.usage is not None:
            batch.input_tokens[tier][item] = outcome.usage.input_tokens
            batch.output_tokens[tier][item] = outcome.usage.output_tokens
        batch.estimated[tier][item] = outcome.estimated > 0
        error = self._keep(tier, item, outcome)
        if self._scope is not None:
            self._scope.record_call(item, name, outcome, error)
        batch.status[tier][item] = ANSWERED if error is None else FAILED
        if error is not None:
            self._errors[tier, item] = error
        if batch.status[REFERENCE][item] >= ANSWERED:
            if self._decision is None:  # later it tells nothing, and may cost money
                self._compare(item, batch.candidates if tier == REFERENCE else (tier,))
        elif error is not None and self._decision is not None:
            self._escalations.append(item)
        self._in_flight -= 1
        return error

    def stop(
        self, unmade: Iterable[Call], why: BaseException, *, strict: bool = False
    ) -> None:
        """End the session here: nothing more is asked, and nothing more certified.

        Items that the reference answered keep its answer, and those a certified model
        had answered keep theirs. The rest is not covered by the guarantee: such an item
        is handed out with the last answer that a candidate gave, marked `uncertified`,
        or with the error if there is none.

        Args:
            unmade: All calls that `next_calls` returned and whose outcomes are not
                recorded; they must not be made any more.
            why: The error of items that stay without an answer.
            strict: Hand out no answer that the guarantee does not cover.

        Raises:
            ProtocolError: If other calls are in flight, or the session is done; unless
                calls of the reference could not be finished.
        """
        unmade, unfinished = list(unmade), self._unfinished()
        over = self._stopped is not None or (self.done and not unfinished)
        if over or self._in_flight != len(unmade):
            hint = "record the calls that were made, and name all that were not"
            raise ProtocolError(f"{self._in_flight} calls are in flight: {hint}")
        for item, name in unmade:
            self._batch.status[self._index[name]][item] = UNASKED
        self._in_flight = 0
        self._escalations.clear()
        self._deciding.close()
        route = np.full(self._batch.n_items, -1, np.int16)
        answered = [np.frombuffer(s, np.uint8) == ANSWERED for s in self._batch.status]
        if self._decision is not None:
            for tier in self._batch.candidates:
                route[(self._decision.route == tier) & answered[tier]] = tier
        asked = np.frombuffer(self._batch.status[REFERENCE], np.uint8)
        covered = asked >= ANSWERED
        covered[unfinished] = False
        covered |= route >= 0
        if not strict:
            for tier in self._batch.candidates:
                route[~covered & answered[tier]] = tier
        self._uncovered = ~covered
        decision = self._decision or Decision(route)
        self._decision = decision._replace(route=route)
        self._stopped = why

    def _unfinished(self) -> list[int]:
        """Return the items for which the reference's call went beyond a budget."""
        return [
            item
            for (tier, item), error in self._errors.items()
            if tier == REFERENCE and isinstance(error, BudgetExceededError)
        ]

    @property
    def done(self) -> bool:
        """Whether every item has its answer."""
        return (
            self._decision is not None and not self._in_flight and not self._escalations
        )

    def progress(self) -> Progress:
        """Where the batch stands; at any time, but not while another thread records."""
        drawn = np.flatnonzero(np.frombuffer(self._profiled, np.uint8))
        whole = self._stopped is None
        return take_stock(
            self._batch, drawn, self._decision, done=self.done, whole=whole
        )

    # -- results ---------------------------------------------------------------

    @property
    def answers(self) -> list[Served]:
        """The answer handed out for each item, in the order of the items.

        Raises:
            ProtocolError: If the session is not done.
        """
        self._require_done("answers")
        return [self._serve(item) for item in range(self._batch.n_items)]

    def bought(self, item: int) -> Iterator[tuple[str, Any]]:
        """Yield every answer bought for an item, with the name of its model.

        Answers that could not be read are among them: they were paid for, too.
        """
        for name, answers in zip(self._names, self._batch.answers, strict=True):
            if answers[item] is not None:
                yield name, answers[item]

    @property
    def spend(self) -> dict[str, Spend]:
        """What each model was asked and what it cost, so far; judges included."""
        table = {}
        for tier, name in enumerate(self._names):
            status = np.frombuffer(self._batch.status[tier], np.uint8)
            table[name] = Spend(
                calls=int((status >= ANSWERED).sum()),
                failures=int((status == FAILED).sum()),
                cost=self._batch.paid(tier),
                input_tokens=float(np.frombuffer(self._batch.input_tokens[tier]).sum()),
                output_tokens=float(
                    np.frombuffer(self._batch.output_tokens[tier]).sum()
                ),
                estimated=self._batch.paid_by_estimate(tier),
            )
        return table | self._batch.judging

    @property
    def certificate(self) -> Certificate:
        """What was promised, what was seen, and what follows.

        Raises:
            ProtocolError: If the session is not done.
        """
        if self._certificate is None:
            self._certificate = self._certify(self._require_done("certificate"))
        return self._certificate

    # -- book-keeping ----------------------------------------------------------

    def _start(self, wave: Wave) -> list[Call]:
        """Turn a wave into calls, leaving out what was asked before."""
        calls = []
        for tier in wave.tiers:
            status, name = self._batch.status[tier], self._names[tier]
            fresh = [item for item in wave.items.tolist() if status[item] == UNASKED]
            self._mark(tier, fresh)
            calls.append([Call(item, name) for item in fresh])
        if REFERENCE in wave.tiers:
            for item in wave.items.tolist():
                self._profiled[item] = 1
        # Item by item, so that an item's calls run side by side.
        rows = itertools.zip_longest(*calls)
        return [call for row in rows for call in row if call is not None]

    def _apply(self, decision: Decision) -> list[Call]:
        """Start the calls that the decision still needs."""
        self._decision = decision
        status = [np.frombuffer(s, np.uint8) for s in self._batch.status]
        settled = status[REFERENCE] >= ANSWERED
        calls: list[Call] = []
        for tier, name in enumerate(self._names):
            mine = (decision.route == tier) & ~settled
            fresh = np.flatnonzero(mine & (status[tier] == UNASKED)).tolist()
            self._mark(tier, fresh)
            calls.extend([Call(item, name) for item in fresh])
            failed = np.flatnonzero(mine & (status[tier] == FAILED)).tolist()
            self._escalations.extend(failed)
        return calls or self._due()

    def _mark(self, tier: int, items: Iterator[int] | list[int]) -> None:
        """Note that these calls are in flight."""
        status = self._batch.status[tier]
        for item in items:
            status[item] = ASKED
            self._in_flight += 1

    def _keep(
        self, tier: int, item: int, outcome: Outcome | Failure
    ) -> BaseException | None:
        """Keep an answer; return why it cannot be used, if so."""
        if isinstance(outcome, Failure):
            return outcome.error
        self._batch.answers[tier][item] = outcome.answer
        self._batch.cached[tier][item] = outcome.cached
        if tier == REFERENCE:
            return None
        try:
            parsed = self._equivalence.parse(outcome.answer)
        except Exception as error:  # noqa: BLE001 - a user's rule may raise anything
            return error
        if outcome.confidence is not None:
            self._batch.scores[tier][item] = outcome.confidence
        try:
            code = self._codes.setdefault(parsed, len(self._codes) + 1)
        except TypeError:  # not hashable: compared one by one
            return None
        self._batch.codes[tier][item] = code
        return None

    def _compare(self, item: int, candidates: Sequence[int]) -> None:
        """Note which candidates' answers to this item are wrong."""
        batch = self._batch
        if batch.status[REFERENCE][item] == FAILED:
            for tier in candidates:
                batch.wrong[tier][item] = 1
            return
        right = batch.answers[REFERENCE][item]
        for tier in candidates:
            if batch.status[tier][item] == ANSWERED:
                said = batch.answers[tier][item]
                batch.wrong[tier][item] = not batch.agree(item, said, right)

    def _serve(self, item: int) -> Served:
        """Return the answer handed out for an item."""
        batch = self._batch
        cost = batch.judged[item] + sum(
            costs[item]
            for costs, cached in zip(batch.costs, batch.cached, strict=True)
            if not cached[item]
        )
        estimated = batch.judged_by_estimate[item] + sum(
            costs[item]
            for costs, marked in zip(batch.costs, batch.estimated, strict=True)
            if marked[item]
        )
        asked = batch.status[REFERENCE][item]
        if asked == UNASKED or self._uncovered[item]:
            tier = int(self._require_done("answers").route[item])
            name = self._names[tier]
            role: Role = "uncertified" if self._uncovered[item] else "applied"
            if tier < 0:
                reference, why = self._names[REFERENCE], self._stopped
                return Served(item, reference, role, None, cost, why, estimated)
            answer = batch.answers[tier][item]
            return Served(item, name, role, answer, cost, None, estimated)
        role = "applied"
        if self._profiled[item]:
            role = "profiled"
        elif self._escalated(item):
            role = "escalated"
        error = self._errors.get((REFERENCE, item))
        name = self._names[REFERENCE]
        answer = batch.answers[REFERENCE][item]
        return Served(item, name, role, answer, cost, error, estimated)

    def _escalated(self, item: int) -> bool:
        """Whether a candidate was asked about this item."""
        status = self._batch.status
        return any(status[tier][item] != UNASKED for tier in self._batch.candidates)

    def _require_done(self, what: str) -> Decision:
        """Return the decision of a finished session."""
        if self._decision is None or not self.done:
            hint = "record every call until next_calls() returns none and done is true"
            raise ProtocolError(f"{what} of an unfinished session: {hint}")
        return self._decision

    def _certify(self, decision: Decision) -> Certificate:
        """Write the certificate."""
        batch, guarantee = self._batch, self._batch.guarantee
        spend = self.spend
        reference = self._names[REFERENCE]
        asked = np.frombuffer(batch.status[REFERENCE], np.uint8)
        profiled = np.frombuffer(self._profiled, np.uint8).astype(bool)
        by_reference = (asked != UNASKED) & ~self._uncovered
        tiers = np.where(by_reference, REFERENCE, decision.route)
        counts = np.bincount(tiers[tiers >= 0], minlength=len(self._names)).tolist()
        paid = np.flatnonzero(by_reference)
        mean = batch.cost(REFERENCE, paid) / len(paid) if len(paid) else None
        asked_others = np.zeros(batch.n_items, bool)
        for tier in batch.candidates:
            asked_others |= batch.asked(tier, np.arange(batch.n_items))
        escalated = by_reference & ~profiled & asked_others
        accepted = [test for test in decision.tests if test.accepted is not None]
        failed = by_reference & (asked == FAILED)
        unanswered = int(failed.sum() + (tiers < 0).sum())
        answered = batch.n_items - unanswered
        return Certificate(
            task=self._task,
            strategy=self._strategy,
            looks=None if decision.level is None else self._looks,
            level=decision.level,
            seed=self._seed,
            items=batch.n_items,
            max_disagreement=guarantee.max_disagreement,
            confidence=guarantee.confidence,
            max_errors=guarantee.max_errors(batch.n_items),
            equivalence=self._equivalence.name,
            reference=reference,
            evidence=tuple(decision.evidence),
            tests=tuple(decision.tests),
            wasted=min(
                (test.draws - (test.accepted or 0) for test in accepted), default=0
            ),
            profiled=int(profiled.sum()),
            served=dict(zip(self._names, counts, strict=True)),
            escalated=int(escalated.sum()),
            unanswered=unanswered,
            uncertified=int(self._uncovered.sum()),
            spend=spend,
            reference_only_cost=None if mean is None else mean * answered,
            valid=self._stopped is None
            and (decision.level is None or find_looks(self._looks).keeps_level),
        )
