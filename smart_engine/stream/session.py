"""`StreamSession`: items one by one, without a known end, under a guarantee.

A session does no I/O: its runner makes the calls, in any order and concurrently, and
records each result. It is not thread-safe: hold a lock.

Several sessions, in as many processes, may work on one stream: each knows the items it
let in, and between two steps of any of them the shared part is handed on, by `shared`
and `take_up`. What they do together is what one session would have done.

`guard` settles how an item is answered when it arrives, and makes the draw:

| way       | asked                                  | answer             | role       |
|-----------|----------------------------------------|--------------------|------------|
| audited   | reference, and the policy's candidates | the reference's    | profiled   |
| served    | the policy's candidates                | the policy's       | applied    |
|           | and the reference if they fail         | the reference's    | escalated  |
| reference | the reference                          | the reference's    | reference  |
|           | and candidates to compare with it      | the reference's    | profiled   |
"""

from __future__ import annotations

from collections.abc import Sequence

from smart_engine.calls import Call, Failure, Outcome, Role, Served, check_outcome
from smart_engine.equivalence import (
    Equivalence,
    EquivalenceLike,
    Exact,
    as_equivalence,
)
from smart_engine.errors import ProtocolError, check_share, check_whole
from smart_engine.evidence.record import REFERENCE
from smart_engine.guarantee import Guarantee, of_all_answers
from smart_engine.money.spending import add_spend
from smart_engine.stream.choice import HARM, REFERENCE_ONLY, Choice
from smart_engine.stream.guard import StreamGuard
from smart_engine.stream.item import Item
from smart_engine.stream.rate import plan
from smart_engine.stream.record import StreamRecord
from smart_engine.stream.state import SharedPart, StreamState
from smart_engine.tiers import MIN_SAVING, Tier, check_tiers, expected_ratios

__all__ = ["StreamSession"]

_PATIENCE = 0.01  # growth of the number of answers after which to plan again


class StreamSession:
    """A stream of items, served by several models under a guarantee.

    With probability at least `confidence`, after every answer handed out, at most the
    share `max_disagreement` of the answers so far is not equivalent to what the
    reference would have said. The items may drift, or be chosen by an adversary who
    sees all that happened before; keep the seed from such a one. What a model answers
    must not depend on whether its item, or a later one, is audited. An item is open
    until its answer is handed out; methods raise ProtocolError for any other.

    Args:
        tiers: One reference and at least one candidate, the cheapest first.
        guarantee: What is promised.
        seed: Seed of all audit draws, one per item. The same seed and the same sequence
            of calls to the session give the same result.
        equivalence: When two answers mean the same; a plain function will do.
        task: Name of the task, for the record.
        min_saving: Least share of the reference's cost that candidates must be expected
            to save, to serve at all. With 0, all are tried from the first item on.

    Raises:
        InvalidInputError: If an argument cannot be used.

    Example:
        ```python
        models = {"big": lambda item: item % 2, "small": lambda item: item % 2}
        stream = StreamSession([Tier("big", role="reference"), Tier("small")])
        for _ in range(2000):
            item = stream.arrive()
            while calls := stream.next_calls(item):
                for call in calls:
                    cost = 1.0 if call.tier == "big" else 0.01
                    stream.record(call, Outcome(models[call.tier](item), cost))
            assert stream.answer(item).answer == item % 2
        assert stream.state().cost < 1000
        ```
    """

    def __init__(
        self,
        tiers: Sequence[Tier],
        guarantee: Guarantee | None = None,
        *,
        seed: int = 0,
        equivalence: EquivalenceLike = Exact(),
        task: str | None = None,
        min_saving: float = MIN_SAVING,
    ) -> None:
        check_whole("seed", seed, 0)
        self._task = task
        self._guarantee = of_all_answers(guarantee, "a stream")
        tiers = check_tiers(tiers)
        self._names = [tier.name for tier in tiers]
        self._rule = as_equivalence(equivalence)
        self._index = {name: tier for tier, name in enumerate(self._names)}
        self._guard = StreamGuard(self._guarantee, seed)
        self._choice = Choice(
            range(1, len(tiers)),
            self._guarantee.tolerance,
            expected_ratios(tiers),
            check_share("min_saving", min_saving),
        )
        self._record = StreamRecord(self._names)
        self._rules_used: dict[str, None] = {}  # their names: a pool has several
        self._items: dict[int, Item] = {}
        self._due = 0

    @property
    def waits(self) -> bool:
        """Whether comparing answers may wait, such as for a judge's verdict."""
        return bool(getattr(self._rule, "waits", False))

    @property
    def idle(self) -> bool:
        """Whether no item is open."""
        return not self._items

    @property
    def reference_cost(self) -> float | None:
        """Recent mean cost of a call of the reference, in USD; None before any."""
        return self._choice.cost(REFERENCE)

    # -- an item, from its arrival to its answer -----------------------------------

    def arrive(self, *, shown: bool = False, rule: Equivalence | None = None) -> int:
        """Let the next item in, and return its number: 0, 1, … in order of arrival.

        Args:
            shown: The answer of a single candidate will be shown while it is being
                written. Then it cannot be taken back where it turns out unreadable:
                the item does not escalate, and an audit counts that as an error.
            rule: When two of its answers mean the same; the stream's own if not given.
        """
        guard, choice, rule = self._guard, self._choice, rule or self._rule
        self._rules_used[rule.name] = None
        if guard.answered >= self._due:
            self._replan()
        number, way = guard.arrived, guard.admit()
        if way == "served":
            item = Item(rule, "applied", choice.policy, shown=shown)
        elif way == "audited":
            compared = (
                *choice.policy.tiers,
                *choice.to_compare(guard.audits - 1, self._spare),
            )
            compared = tuple(dict.fromkeys(compared))
            item = Item(rule, "profiled", choice.policy, compared, shown=shown)
        else:
            compared = choice.to_compare(guard.forced, self._spare)
            role: Role = "profiled" if compared else "reference"
            item = Item(rule, role, REFERENCE_ONLY, compared)
        for tier in item.compared:
            choice.pending[tier] += 1
        self._items[number] = item
        return number

    def serving(self, item: int) -> str | None:
        """Name of the model whose answer is handed out if its call succeeds.

        None if that depends on what several candidates say. It lets an adapter hand
        out an answer while it is still being written; it counts as an answer only
        when `answer` is called.
        """
        server = self._open(item).expected_server
        return None if server is None else self._names[server]

    def next_calls(self, item: int) -> list[Call]:
        """Return the calls of an item that may start now; never the same twice.

        An empty list means: nothing to start before more outcomes are recorded, or
        nothing at all.
        """
        return [Call(item, self._names[tier]) for tier in self._open(item).ask()]

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record the result of a call.

        Outcomes may still be recorded when the item's answer was handed out already:
        audits learn from them. Let those calls go on: an audit whose candidate fails
        after that counts as a detected error, for the call may have been cancelled.

        Args:
            call: A call that `next_calls` returned.
            outcome: Its answer and cost, or why it failed.

        Returns:
            Why no answer of it can be used, None if one can.

        Raises:
            ProtocolError: If that call is not in flight.
            InvalidInputError: If the cost is not a number of zero or more, or the
                confidence no number.
        """
        error = self.evaluate(call, outcome)
        self.book(call, outcome)
        return error

    def evaluate(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Read the answer of a call and compare it: the first half of `record`.

        Comparing may take long where a judge is asked. Nothing shared is touched: the
        lock that guards it need not be held, as long as the outcomes of one item are
        recorded one after the other. Returns and raises what `record` does.
        """
        item, tier = self._in_flight(call)
        if tier in item.evaluated:
            raise ProtocolError(f"{call} is not in flight: record each call once")
        check_outcome(outcome)
        item.evaluate(tier, outcome, self._choice.policies)
        return item.errors.get(tier)

    def book(self, call: Call, outcome: Outcome | Failure) -> None:
        """Book an evaluated outcome: the second half of `record`."""
        item, tier = self._in_flight(call)
        if tier not in item.evaluated:
            raise ProtocolError(f"{call} was not evaluated yet: use record()")
        item.booked.add(tier)
        if tier in item.compared:
            self._choice.pending[tier] -= 1
        self._record.book(call.tier, outcome, usable=tier not in item.errors)
        self._choice.paid(tier, outcome.cost)
        self._book_judges(item)
        if item.asked == item.booked:
            if item.compared:
                self._learn(call.item, item)
            if item.handed_out:
                del self._items[call.item]

    def ready(self, item: int) -> bool:
        """Whether the answer to an item can be handed out."""
        return self._open(item).server is not None

    def answer(self, item: int) -> Served:
        """Hand out the answer to an item, once; the item is closed by it.

        Its `cost` is what was spent on it so far: candidates asked in order to learn
        may still be answering.

        Raises:
            ProtocolError: If the answer is not ready, or was handed out already.
        """
        entry = self._open(item)
        served = entry.served(item, self._names)
        if served is None:
            hint = "make the calls that next_calls() returns and record their outcomes"
            raise ProtocolError(f"item {item} has no answer yet: {hint}")
        self._book_judges(entry)
        self._record.hand_out(served)
        if served.error is None:
            self._guard.hand_out()
        entry.handed_out = True
        if entry.asked == entry.booked:
            del self._items[item]
        self._record.mark(self._guard)
        return served

    def must_finish(self, item: int) -> bool:
        """Whether the calls of an item decide an audit that is not resolved yet.

        Make them to their end, whatever the caller does: else the audit counts as a
        detected error.
        """
        return item in self._items and item in self._guard.unresolved

    def fall_back(self, item: int, model: str) -> None:
        """Let one candidate answer an item, whatever was decided, as `uncertified`.

        The stream claims nothing from then on. Calls that were not made yet are made
        no more, and an audit of the item counts as a detected error.

        Args:
            item: Its number.
            model: Name of the candidate.
        """
        entry = self._open(item)
        self._release(entry)
        entry.fall_back(self._index[model])
        if item in self._guard.unresolved:
            self._settle(item, detected=True)

    def abandon(self, item: int, *, shown: bool = False) -> None:
        """Close an item whose answer, or whose audit, is not waited for any longer.

        The promise holds all the same: an unfinished audit counts as a detected error,
        and a served item as a possible undetected one. Calls without a result are in no
        sum: record those that were billed first.

        An item whose answer was handed out may be abandoned while candidates still
        answer.

        Args:
            item: Its number.
            shown: Whether a piece of its answer was shown: then the answer counts as
                handed out.
        """
        entry = self._items.pop(item, None)
        if entry is None:
            raise ProtocolError(f"item {item} is not open: abandon each item once")
        self._book_judges(entry)
        self._release(entry)
        if item in self._guard.unresolved:
            self._settle(item, detected=True)
        server = entry.expected_server
        if shown and not entry.handed_out and server is not None:
            part = Served(item, self._names[server], entry.role, None, entry.cost)
            self._record.hand_out(part)
            self._guard.hand_out()
        elif not entry.handed_out:
            self._record.abandoned += 1

    @property
    def task(self) -> str | None:
        """Name of the task."""
        return self._task

    @property
    def audited(self) -> tuple[int, int, str]:
        """Resolved audits, those that detected an error, and what is audited now."""
        guard, policy = self._guard, self._choice.policy.name(self._names)
        return guard.audits - len(guard.unresolved), guard.detected, policy

    # -- several processes -------------------------------------------------------

    def shared(self) -> SharedPart:
        """Return the part that all processes of the stream share.

        Example:
            ```python
            tiers = [Tier("big", role="reference"), Tier("small")]
            here, there = StreamSession(tiers), StreamSession(tiers)
            first = here.arrive()
            there.take_up(here.shared())
            second = there.arrive()
            assert (first, second) == (0, 1)
            ```
        """
        guard = self._guard
        return SharedPart(
            seed=guard.seed,
            arrived=guard.arrived,
            unaudited=guard.unaudited,
            slopes=tuple(guard.bound.slopes.tolist()),
            log_wealth=tuple(guard.bound.log_wealth.tolist()),
            plan=guard.plan,
            due=self._due,
            crowd=guard.margin,
            unresolved=guard.waiting(),
            learned=self._choice.shared(),
            compared=tuple(self._choice.compared),
            pending=tuple(self._choice.pending),
            by_reference=guard.forced,
            sums=self._record.totals(guard),
            history=tuple(self._record.history),
        )

    def take_up(self, part: SharedPart) -> None:
        """Go on from where other processes have come; items let in here stay open.

        Args:
            part: What `shared` returned, of a session that was begun with the same
                arguments.

        Raises:
            ValueError: If it is of another stream.
        """
        self._choice.take_up(part)
        self._record.take_up(part)
        self._guard.take_up(part)
        self._due = part.due

    def peek(self, item: int) -> Served | None:
        """Return the answer to an item if it can be handed out; it is not."""
        entry = self._items.get(item)
        if entry is None or entry.handed_out:
            return None
        return entry.served(item, self._names)

    def forget(self, item: int) -> None:
        """Close an item here, and leave what is shared as it is.

        To the others it is as if this process had been killed: an unresolved audit
        counts at its worst forever, and a served item as a possible undetected error.
        Its answer may still be handed out.
        """
        self._items.pop(item, None)

    # -- results ---------------------------------------------------------------

    def state(self) -> StreamState:
        """What is promised, what audits showed and what was spent so far."""
        guard, record, guarantee = self._guard, self._record, self._guarantee
        return StreamState(
            task=self._task,
            seed=guard.seed,
            max_disagreement=guarantee.tolerance,
            confidence=guarantee.confidence,
            equivalence=", ".join(self._rules_used) or self._rule.name,
            reference=self._names[REFERENCE],
            arrived=guard.arrived,
            in_flight=len(self._items),
            answered=guard.answered,
            allowed=guard.allowed(),
            possible_misses=guard.possible_errors,
            audits=guard.audits,
            unresolved=len(guard.unresolved),
            found=guard.detected,
            audit_rate=guard.rate,
            policy=self._choice.policy.name(self._names) or self._names[REFERENCE],
            served=dict(record.served),
            roles=dict(record.roles),
            unanswered=record.unanswered,
            abandoned=record.abandoned,
            spend=record.models | record.judges,
            reference_cost=self.reference_cost,
            history=tuple(record.history),
            valid=not record.roles["uncertified"]
            and (guard.answered > 0 or not record.unanswered),
        )

    # -- steps that several of these take --------------------------------------

    def _replan(self) -> None:
        """Choose policy and audit rate anew."""
        guard, choice = self._guard, self._choice
        self._due = guard.answered + 1 + int(_PATIENCE * guard.answered)
        choice.choose(guard.answered)
        idle = choice.policy == REFERENCE_ONLY
        errors = choice.error * guard.answered
        found = None if idle else plan(guard.bound, guard.room, errors)
        guard.follow(found if found and choice.pays(found.rate) else None)

    @property
    def _spare(self) -> float:
        """What comparing may cost now, so that the stream is hardly ever dearer for it.

        In USD: what was saved so far, and a small share of what the reference alone
        would have cost.
        """
        record, reference = self._record, self._names[REFERENCE]
        by_others = sum(record.served.values()) - record.served[reference]
        avoided = by_others * (self.reference_cost or 0.0)
        paid = record.models[reference].cost
        choice = self._choice
        started = sum(
            n * choice.price(tier) for tier, n in enumerate(choice.pending) if n
        )
        return HARM * (paid + avoided) + avoided - (record.cost - paid) - started

    def _learn(self, number: int, item: Item) -> None:
        """Learn from an item that was compared, all of its outcomes being recorded."""
        if REFERENCE not in item.errors:
            self._choice.learn(item.usable, item.same)
        if number in self._guard.unresolved:
            self._settle(number, detected=item.shows_error())

    def _settle(self, number: int, *, detected: bool) -> None:
        """Resolve an audit; after a detected error, plan again."""
        self._guard.settle(number, detected=detected)
        if detected:
            self._due = 0

    def _release(self, item: Item) -> None:
        """Forget what the comparisons of an item that will not be made were to cost."""
        for tier in set(item.compared) - item.booked:
            self._choice.pending[tier] -= 1

    def _book_judges(self, item: Item) -> None:
        """Book what comparing answers has cost."""
        calls, item.judge_calls = item.judge_calls, []
        if calls:
            add_spend(self._record.judges, calls)

    def _in_flight(self, call: Call) -> tuple[Item, int]:
        """Return the item of a call that was made and is not recorded, and its tier."""
        item = self._items.get(call.item)
        tier = self._index.get(call.tier, -1)
        if item is None or tier not in item.asked or tier in item.booked:
            raise ProtocolError(f"{call} is not in flight: record each call once")
        return item, tier

    def _open(self, item: int) -> Item:
        """Return an item whose answer was not handed out."""
        entry = self._items.get(item)
        if entry is None or entry.handed_out:
            hint = "use a number that arrive() returned, until its answer is taken"
            raise ProtocolError(f"item {item!r} is not open: {hint}")
        return entry
