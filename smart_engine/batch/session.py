"""`BatchSession`: returns the calls to make, records outcomes, hands out answers.

The session does the book-keeping and decides nothing; a strategy decides. It does no
I/O: a driver makes the calls, in any order and concurrently, and records each outcome.
A session is not thread-safe: record from one thread, or hold a lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from smart_engine.batch.certificate import Certificate
from smart_engine.batch.ending import Ending
from smart_engine.batch.progress import Progress, measure
from smart_engine.bulk import Calls, Outcomes
from smart_engine.calls import (
    Call,
    Failure,
    HandedOut,
    Outcome,
    Served,
    check_outcome,
)
from smart_engine.equivalence import EquivalenceLike, Exact, as_equivalence
from smart_engine.equivalence.labelling import LabelOf
from smart_engine.errors import (
    BudgetExceededError,
    InvalidInputError,
    ProtocolError,
    check_share,
    check_whole,
    choose,
)
from smart_engine.evidence.record import (
    ANSWERED,
    ASKED,
    FAILED,
    REFERENCE,
    UNASKED,
    BatchRecord,
)
from smart_engine.evidence.tails import IntArray
from smart_engine.guarantee import Guarantee, as_guarantee
from smart_engine.money.ledger import LedgerScope
from smart_engine.money.spending import Spend
from smart_engine.strategies import (
    Decision,
    Strategy,
    Wave,
    check_rounds,
    check_sliced,
    strategy_for,
)
from smart_engine.strategies.looks import LOOKS
from smart_engine.tiers import MIN_SAVING, Tier, check_tiers

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
        firsts: Per item, the first one with the same request, if such requests are
            made once, as by `RepeatedSession`: then the reference alone is taken to
            be asked in that way, too. None if every item is asked.
        min_saving: Least share of the job's cost that candidates must be expected to
            save, for the audit to let any serve. With 0, all are tried from the first
            item on, whatever that costs.
        label_of: A function from an answer to its label, for a guarantee of recall or
            precision; by default, the label is what the equivalence reads.
        max_rounds: Most waves of calls, for calls that take long, as those of a
            provider's batch API: whatever the answers are, the last of these waves
            ends the batch. Only asking the reference in place of a model that failed
            may take one more. For the strategies `"audit"` (2 or more) and
            `"reference"`; None: as many as pay.
        decide: Decides in place of the strategy, as for a task whose jobs share one
            promise; see `smart_engine.jobs.job`.
        keep_answers: Whether the session keeps the answers, to hand them out. A driver
            that keeps them itself, millions of them in a data set, saves the memory:
            what is handed out then says who answers, not what. The rule must give each
            answer a key, as `Normalized`, `Label` and `Json` do.
        slices: Per item, the name of its slice, such as a tenant or a language: then
            `max_disagreement` holds in each of them, all together with the confidence.

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
        firsts: Sequence[int] | None = None,
        min_saving: float = MIN_SAVING,
        label_of: LabelOf | None = None,
        max_rounds: int | None = None,
        decide: Strategy | None = None,
        keep_answers: bool = True,
        slices: Sequence[str] | None = None,
    ) -> None:
        check_whole("n_items", n_items, 0)
        check_whole("seed", seed, 0)
        check_whole("max_in_flight", max_in_flight, 1)
        choose("looks", looks, LOOKS)
        promise, sliced = as_guarantee(guarantee), slices is not None
        check_sliced(promise, sliced=sliced)
        named = strategy_for(strategy, promise, sliced=sliced)
        check_rounds(max_rounds, strategy, promise, by_task=decide is not None)
        self._equivalence = rule = as_equivalence(equivalence)
        if not (keep_answers or getattr(rule, "keyed", False)):
            hint = "it compares answers in pairs, so keep them: keep_answers=True"
            raise InvalidInputError("equivalence", rule.name, hint)
        self._batch = batch = BatchRecord(
            n_items,
            check_tiers(tiers),
            promise,
            seed,
            rule,
            max_in_flight,
            scope,
            firsts,
            check_share("min_saving", min_saving),
            label_of,
            max_rounds=max_rounds,
            keep_answers=keep_answers,
            slices=slices,
        )
        self._names = batch.names
        self._index = {name: tier for tier, name in enumerate(batch.names)}
        self._codes: dict[Any, int] = {}
        self._strategy, self._looks, self._seed = strategy, looks, seed
        self._task = task
        self._deciding = (decide or named)(batch, looks)
        self._decision: Decision | None = None
        self._profiled = np.zeros(n_items, bool)
        self._uncovered = np.zeros(n_items, bool)
        self._in_flight = 0
        self._none = self._unstarted = Calls.of(batch.names, ())
        self._escalations: list[int] = []
        self._reference_errors: dict[int, BaseException] = {}
        self._certificate: Certificate | None = None
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
        return list(self.next_block())

    def next_block(self, most: int | None = None) -> Calls:
        """Return the calls that may start now, as columns; see `next_calls`.

        Args:
            most: Return no more than so many; the others follow in further calls,
                whether or not these are recorded by then. None: all.
        """
        batch = self._batch
        while not self._unstarted:
            idle = not self._in_flight
            if self._decision is not None or self._in_flight:
                escalations, self._escalations = sorted(self._escalations), []
                self._unstarted = self._ask(REFERENCE, np.array(escalations, np.int64))
                batch.rounds += idle and self._in_flight > 0
                break
            try:
                self._unstarted = self._start(next(self._deciding))
            except StopIteration as stop:
                self._unstarted = self._apply(stop.value)
            batch.rounds += self._in_flight > 0
        calls = self._unstarted[:most]
        rest = self._unstarted[len(calls) :]
        self._unstarted = rest or self._none  # which holds no table in memory
        return calls

    def keep(self, call: Call, outcome: Outcome | Failure) -> None:
        """Do nothing with a result before it is recorded; see `ResumedSession`."""

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record the result of a call; the order of recording does not matter.

        Args:
            call: A call that `next_calls` returned.
            outcome: Its result.

        Returns:
            Why its answer cannot be used, None if it can.

        Raises:
            ProtocolError: If that call is not in flight.
            InvalidInputError: If the cost is not a number of zero or more, or the
                confidence no number.
        """
        item, name = call
        batch, tier = self._batch, self._index.get(name, -1)
        known = tier >= 0 and 0 <= item < batch.n_items
        if not known or batch.status[tier, item] != ASKED:
            raise ProtocolError(f"{call} is not in flight: record each call once")
        check_outcome(outcome)
        if outcome.usage is not None:
            batch.count(tier, outcome.usage.input_tokens, outcome.usage.output_tokens)
        if outcome.earlier or outcome.unknown:
            batch.lose(tier, item, outcome)
        batch.sat_out[tier] += isinstance(outcome, Failure) and outcome.sat_out
        error = self._read(tier, item, outcome)
        if batch.scope is not None:
            batch.scope.record_call(item, name, outcome, error)
        if error is not None and tier == REFERENCE:
            self._reference_errors[item] = error
        cached = isinstance(outcome, Outcome) and outcome.cached
        figures = (outcome.cost, cached, outcome.estimated > 0)
        self._enter(tier, item, ANSWERED if error is None else FAILED, figures)
        self._in_flight -= 1
        if batch.status[REFERENCE, item] >= ANSWERED:
            if self._profiled[item]:  # others show nothing, and may cost money
                self._compare(tier, item)
        elif error is not None and self._decision is not None:
            self._escalations.append(item)
        return error

    def record_all(self, outcomes: Outcomes) -> None:
        """Record results that brought an answer, all at once; see `record`.

        Args:
            outcomes: The results, with keys in the place of answers, which are
                somewhere else: the equivalence is a `ByKey`, and `keep_answers` false.

        Raises:
            ProtocolError: If one of the calls is not in flight, or answers are needed.
            InvalidInputError: If a cost is not a number of zero or more.
        """
        batch, items = self._batch, outcomes.items
        if not batch.hidden or batch.answers or batch.guarantee.labels:
            raise ProtocolError("answers are needed here: record them one by one")
        tier = self._index.get(outcomes.tier, -1)
        known = tier >= 0 and ((items >= 0) & (items < batch.n_items)).all()
        once = known and len(np.unique(items)) == len(items)
        if not once or (batch.status[tier, items] != ASKED).any():
            problem = f"calls of {outcomes.tier} are not in flight"
            raise ProtocolError(f"{problem}: record each call once")
        outcomes.check()
        batch.count(tier, *outcomes.tokens[:2])
        scored = ~np.isnan(outcomes.confidences)
        if scored.any():
            batch.score(tier, items[scored], outcomes.confidences[scored])
        told = np.flatnonzero(self._profiled[items] | self._all_tell)
        codes = [self._code(outcomes.keys[place]) for place in told.tolist()]
        batch.codes[tier, items[told]] = codes
        if batch.scope is not None:
            batch.scope.record_calls(outcomes)
        figures = (outcomes.costs, outcomes.cached, outcomes.guessed)
        self._enter(tier, items, ANSWERED, figures)
        self._in_flight -= len(items)
        known = self._profiled[items] & (batch.status[REFERENCE, items] >= ANSWERED)
        for item in items[known].tolist():
            self._compare(tier, item)

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
        unfinished = self.unfinished
        unmade = Calls.of(self._names, unmade) + self._unstarted
        over = self._stopped is not None or (self.done and not unfinished)
        if over or self._in_flight != len(unmade):
            hint = "record the calls that were made, and name all that were not"
            raise ProtocolError(f"{self._in_flight} calls are in flight: {hint}")
        self._batch.status[unmade.tiers, unmade.items] = UNASKED
        self._in_flight, self._unstarted = 0, self._none
        self._escalations.clear()
        self._deciding.close()
        route = np.full(self._batch.n_items, -1, np.int16)
        answered = self._batch.status == ANSWERED
        if self._decision is not None:
            for tier in self._batch.candidates:
                route[(self._decision.route == tier) & answered[tier]] = tier
        covered = self._batch.status[REFERENCE] >= ANSWERED
        covered[unfinished] = False
        covered |= route >= 0
        if not strict:
            for tier in self._batch.candidates:
                route[~covered & answered[tier]] = tier
        self._uncovered = ~covered
        decision = self._decision or Decision(route)
        self._decision = decision._replace(route=route)
        self._stopped = why

    @property
    def unfinished(self) -> list[int]:
        """Items for which the reference's call went beyond a budget."""
        return [
            item
            for item, error in self._reference_errors.items()
            if isinstance(error, BudgetExceededError)
        ]

    @property
    def done(self) -> bool:
        """Whether every item has its answer."""
        return self._decision is not None and not (self._in_flight or self._escalations)

    @property
    def rounds(self) -> int:
        """Waves so far: lists of calls returned while no call was in flight."""
        return self._batch.rounds

    def progress(self) -> Progress:
        """Where the batch stands; at any time, but not while another thread records."""
        drawn, whole = np.flatnonzero(self._profiled), self._stopped is None
        return measure(self._batch, drawn, self._decision, done=self.done, whole=whole)

    # -- results ---------------------------------------------------------------

    @property
    def answers(self) -> list[Served]:
        """The answer handed out for each item, in the order of the items.

        Raises:
            ProtocolError: If the session is not done.
        """
        answers = self._batch.answers
        handed_out = self._ended("answers").handed_out()
        return list(
            handed_out.served(lambda tier, item: answers[tier][item])
            if answers
            else handed_out.served(lambda *_: None)
        )

    @property
    def handed_out(self) -> HandedOut:
        """Who answers each item, as tables: of millions of items, too.

        Raises:
            ProtocolError: If the session is not done.
        """
        return self._ended("handed_out").handed_out()

    def bought(self, item: int) -> list[tuple[str, Any]]:
        """Return every answer bought for an item, with the name of its model.

        Answers that could not be read are among them: they were paid for, too. Those
        from a cache are not.
        """
        cached = self._batch.cached[:, item]
        return [
            (self._names[tier], answers[item])
            for tier, answers in enumerate(self._batch.answers)
            if answers[item] is not None and not cached[tier]
        ]

    @property
    def spend(self) -> dict[str, Spend]:
        """What each model was asked and what it cost, so far; judges included."""
        return self._batch.spend

    @property
    def certificate(self) -> Certificate:
        """What was promised, what was seen, and what follows.

        Raises:
            ProtocolError: If the session is not done.
        """
        if self._certificate is None:
            settings = (self._task, self._strategy, self._looks, self._seed)
            self._certificate = self._ended("certificate").certificate(*settings)
        return self._certificate

    # -- book-keeping ----------------------------------------------------------

    def _start(self, wave: Wave) -> Calls:
        """Turn a wave into calls, leaving out what was asked before."""
        status = self._batch.status
        started = []
        for part in (wave, *wave.also):
            tiers = np.array(part.tiers, np.int16)
            # Item by item, so that an item's calls run side by side.
            asked = status[np.ix_(tiers, part.items)].T != UNASKED
            places, which = np.nonzero(~asked)
            started.append(self._ask(tiers[which], part.items[places]))
            if REFERENCE in part.tiers and part.learning:
                self._profiled[part.items] = True
        return reduce(add, started)

    def _apply(self, decision: Decision) -> Calls:
        """Start the calls that the decision still needs."""
        self._decision = decision
        status = self._batch.status
        settled = status[REFERENCE] >= ANSWERED
        calls: list[Calls] = []
        for tier in range(len(self._names)):
            routed = (decision.route == tier) & ~settled
            unasked = np.flatnonzero(routed & (status[tier] == UNASKED))
            calls.append(self._ask(tier, unasked))
            failed = np.flatnonzero(routed & (status[tier] == FAILED))
            calls.append(self._ask(REFERENCE, failed))
        return reduce(add, calls)

    def _ask(self, tiers: Any, items: IntArray) -> Calls:
        """Return calls, which are in flight from here on."""
        self._batch.status[tiers, items] = ASKED
        self._in_flight += len(items)
        models = np.broadcast_to(np.asarray(tiers, np.int16), items.shape)
        return Calls(self._names, items, models)

    def _read(
        self, tier: int, item: int, outcome: Outcome | Failure
    ) -> BaseException | None:
        """Enter an answer in the record; return why it cannot be used, if so."""
        if isinstance(outcome, Failure):
            return outcome.error
        batch = self._batch
        if batch.answers:
            batch.answers[tier][item] = outcome.answer
        if tier == REFERENCE:
            with suppress(Exception):  # it is right, with or without a label
                self._read_label(tier, item, outcome.answer)
        if tier == REFERENCE and not batch.keyed:
            return None
        try:
            parsed = self._equivalence.parse(outcome.answer)
            if tier != REFERENCE:
                self._read_label(tier, item, outcome.answer)
        except Exception as error:  # noqa: BLE001 - a user's rule may raise anything
            return None if tier == REFERENCE else error
        if outcome.confidence is not None:
            batch.score(tier, item, outcome.confidence)
        if self._all_tell or self._profiled[item]:
            with suppress(TypeError):  # not hashable: compared one by one
                batch.codes[tier, item] = self._code(parsed)
        if self._profiled[item] and not batch.keyed:
            batch.readings[tier, item] = parsed
        return None

    def _read_label(self, tier: int, item: int, answer: Any) -> None:
        """Enter the label of an answer in the record, if labels are promised."""
        batch = self._batch
        if batch.guarantee.labels:
            batch.labels[tier, item] = batch.labelling.number(answer)

    @property
    def _all_tell(self) -> bool:
        """Whether any answer may be compared or shown; else those of profiled items."""
        return self._decision is None or not self._batch.hidden

    def _code(self, reading: Any) -> int:
        """Return the number of all answers that are read like this."""
        return self._codes.setdefault(reading, len(self._codes) + 1)

    def _enter(
        self, tier: int, items: int | IntArray, status: int, figures: tuple[Any, ...]
    ) -> None:
        """Enter what calls cost and how they ended, one or many.

        Args:
            tier: The tier.
            items: Their items.
            status: Of all.
            figures: Costs, whether cached, whether what was paid is estimated: of
                all, or of each.
        """
        batch, (costs, cached, estimated) = self._batch, figures
        batch.costs[tier, items] = costs
        batch.cached[tier, items] = cached
        batch.estimated[tier, items] = estimated
        batch.status[tier, items] = status

    def _compare(self, tier: int, item: int) -> None:
        """Record which answers to an item are wrong, now that a tier's is known."""
        batch = self._batch
        candidates = batch.candidates if tier == REFERENCE else (tier,)
        if batch.status[REFERENCE, item] == FAILED:
            batch.wrong[candidates, item] = True
            return
        for each in candidates:
            if batch.status[each, item] == ANSWERED:
                batch.wrong[each, item] = not batch.agree(item, each, REFERENCE)

    def _ended(self, what: str) -> Ending:
        """Return what a finished session ended with."""
        if self._decision is None or not self.done:
            hint = "record every call until next_calls() returns none and done is true"
            raise ProtocolError(f"{what} of an unfinished session: {hint}")
        return Ending(
            self._batch,
            self._decision,
            self._profiled,
            self._uncovered,
            self._reference_errors,
            self._codes,
            self._stopped,
        )
