"""`StreamSession`: items one by one, without a known end, under a guarantee.

The session keeps the books and tosses the coins. It does no I/O: whoever drives it
makes the calls, in any order and concurrently, and records each outcome. A session is
not thread-safe: hold a lock.

Several sessions, in as many processes, may work on one stream: each knows the items it
let in, and between two steps of any of them the part that all share is handed on, by
`shared` and `take_up`. What they do together is what one session would have done.

What it does with an item is settled when the item arrives:

| way       | asked                                  | answer             | role       |
|-----------|----------------------------------------|--------------------|------------|
| audited   | reference, and the policy's candidates | the reference's    | profiled   |
| served    | the policy's candidates                | the policy's       | applied    |
|           | and the reference if they fail         | the reference's    | escalated  |
| forced    | the reference                          | the reference's    | reference  |
|           | or with it candidates, to learn        | the reference's    | profiled   |

An item is tossed for (audited or served) only while the bound on misses, with all that
is in flight taken at its worst, is at most δ·(answers handed out + 1). So whenever a
missed answer is handed out, at least as many answers are out as the bound had asked
for: with the stated confidence the promise holds after every single answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from smart_engine.calls import Call, Failure, Outcome, Role, Served, check_outcome
from smart_engine.equivalence import EquivalenceLike, Exact, agree, as_equivalence
from smart_engine.errors import ProtocolError, check_whole
from smart_engine.evidence.policies import Policy
from smart_engine.evidence.record import REFERENCE
from smart_engine.evidence.tails import FloatArray
from smart_engine.guarantee import Guarantee, as_guarantee
from smart_engine.money.spending import RuleCalls, add_spend, record_rule_calls
from smart_engine.stream.bound import MissBound, charges
from smart_engine.stream.choice import NOBODY, Choice, advance
from smart_engine.stream.draws import AuditDraws
from smart_engine.stream.rate import Plan, plan
from smart_engine.stream.record import StreamRecord
from smart_engine.stream.shared import SharedPart, Waiting
from smart_engine.stream.state import StreamPoint, StreamState
from smart_engine.tiers import Tier, check_tiers

__all__ = ["StreamSession"]

_PATIENCE = 0.01
"""Growth of the number of answers after which to plan again."""

_ACQUAINTED = 128
"""Comparisons with the reference after which a candidate is no longer a stranger."""

_NOW_AND_THEN = 16
"""Later, one in so many items that the reference answers anyway is learned from."""

_CUTS = 16
"""Cuts of the stream at which to bound the misses while audits are unresolved."""

_MARKS = 0.05
"""Growth of the number of answers after which the history gains a point."""

_FADING = 0.99
"""How fast past crowding in flight is forgotten, per item."""


class _Item:
    """One item in flight."""

    __slots__ = (
        "alike",
        "answers",
        "asked",
        "booked",
        "cost",
        "errors",
        "estimated",
        "judging",
        "learners",
        "policy",
        "role",
        "server",
        "shown",
        "taken",
    )

    def __init__(self, role: Role, policy: Policy, *, shown: bool = False) -> None:
        self.role: Role = role
        self.policy = policy
        self.shown = shown and len(policy.tiers) == 1
        self.learners: tuple[int, ...] = ()
        self.asked: set[int] = set()
        self.answers: dict[int, Any] = {}
        self.errors: dict[int, BaseException] = {}
        self.booked: set[int] = set()
        self.alike: dict[tuple[int, int], bool] = {}
        self.judging: RuleCalls = []
        self.cost = self.estimated = 0.0
        self.server: int | None = None
        self.taken = False

    @property
    def waiting(self) -> int:
        """Number of its calls that are not booked."""
        return len(self.asked) - len(self.booked)


class StreamSession:
    """A stream of items, served by several models under a guarantee.

    With probability at least `confidence`, after every answer handed out, at most the
    share `max_disagreement` of the answers so far is not equivalent to what the
    reference would have said. The items may drift, or be chosen by an adversary who
    sees all that happened before; keep the seed from such a one. What a model answers
    must not depend on whether its item, or a later one, is audited.

    Args:
        tiers: One reference and at least one candidate, the cheapest first.
        guarantee: What is promised.
        seed: Seed of all coins, one per item. The same seed and the same sequence of
            calls to the session give the same result.
        equivalence: When two answers mean the same; a plain function will do.
        task: Name of the task, for the record.

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
    ) -> None:
        """Check everything before anything is spent."""
        check_whole("seed", seed, 0)
        self._task = task
        guarantee = as_guarantee(guarantee)
        checked = check_tiers(tiers)
        self._rule = as_equivalence(equivalence)
        self._names = [tier.name for tier in checked]
        self._index = {name: tier for tier, name in enumerate(self._names)}
        self._guarantee, self._seed = guarantee, seed
        self._share = guarantee.share.as_integer_ratio()
        self._coins = AuditDraws(seed)
        self._bound = MissBound(guarantee.alpha)
        self._choice = Choice(range(1, len(checked)), guarantee.max_disagreement)
        self._ledger = StreamRecord(self._names)
        self._items: dict[int, _Item] = {}
        self._next = 0
        self._plan: Plan | None = None
        self._charges: FloatArray = np.zeros_like(self._bound.slopes)
        self._due = 0
        self._unresolved: dict[int, tuple[FloatArray, int]] = {}
        self._if_found = self._bound.misses
        self._at_cuts = 0
        self._unaudited = 0
        self._crowd = 0.0
        self._compared = [0] * len(checked)
        self._by_reference = 0
        self._history: list[StreamPoint] = []

    @property
    def waits(self) -> bool:
        """Whether comparing answers may wait, such as for a judge's verdict."""
        return bool(getattr(self._rule, "waits", False))

    # -- driving ---------------------------------------------------------------

    def arrive(self, *, shown: bool = False) -> int:
        """Let the next item in and settle how it is answered.

        Args:
            shown: The answer of a single candidate will be shown while it is being
                written. Then it cannot be taken back where it turns out unreadable:
                the item does not escalate, and an audit counts that as a find.

        Returns:
            The item's number, counted from 0 in the order of arrival.
        """
        number, self._next = self._next, self._next + 1
        coin = self._coins[number]
        if self._ledger.answered >= self._due:
            self._replan()
        policy = self._choice.policy
        if self._plan is None or not self._within_budget():
            self._items[number] = self._forced()
        elif coin < self._plan.rate:
            self._items[number] = self._audited(number, policy, shown=shown)
        else:
            self._items[number] = _Item("applied", policy, shown=shown)
            self._unaudited += 1
        return number

    def serving(self, item: int) -> str | None:
        """Name of the model whose answer is handed out if its call succeeds.

        None if that depends on what several candidates say. It lets an adapter hand
        out an answer while it is still being written; it counts as an answer only
        when `answer` is called.

        Raises:
            ProtocolError: If that item is not open.
        """
        entry = self._open(item)
        if entry.role != "applied":
            return self._names[REFERENCE]
        tiers = entry.policy.tiers
        return self._names[tiers[0]] if len(tiers) == 1 else None

    def next_calls(self, item: int) -> list[Call]:
        """Return the calls of an item that may start now; never the same twice.

        An empty list means: nothing to start before more outcomes are recorded, or
        nothing at all.

        Raises:
            ProtocolError: If that item is not open.
        """
        entry = self._open(item)
        wanted: tuple[int, ...] = (REFERENCE, *entry.learners)
        if entry.role == "applied":
            wanted = self._wanted(entry)
        fresh = [tier for tier in wanted if tier not in entry.asked]
        entry.asked.update(fresh)
        return [Call(item, self._names[tier]) for tier in fresh]

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record what a call brought.

        Outcomes may still be recorded when the item's answer was handed out already:
        audits learn from them. Let those calls go on: an audit whose candidate fails
        after that counts as a find, for the call may have been cancelled.

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
        error = self.evaluate(call, outcome)
        self.book(call, outcome)
        return error

    def evaluate(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Take note of what a call brought: the first half of `record`.

        Answers are compared here, which may take long where a judge is asked. Nothing
        shared is touched: the lock that guards it need not be held, as long as the
        outcomes of one item are recorded one after the other.

        Returns:
            Why no answer of it can be used, None if one can.

        Raises:
            ProtocolError: If that call is not in flight.
            InvalidInputError: If the cost is not a number of zero or more, or the
                confidence no number.
        """
        entry, tier = self._flying(call)
        if tier in entry.answers or tier in entry.errors:
            raise ProtocolError(f"{call} is not in flight: record each call once")
        check_outcome(outcome)
        self._keep(entry, tier, outcome)
        entry.cost += outcome.paid
        entry.estimated += outcome.estimated
        if entry.role == "applied" and entry.server is None:
            self._wanted(entry)
        elif tier == REFERENCE:
            entry.server = REFERENCE
        if entry.learners and len(entry.answers) + len(entry.errors) == len(
            entry.asked
        ):
            self._compare(entry)
        return entry.errors.get(tier)

    def book(self, call: Call, outcome: Outcome | Failure) -> None:
        """Book an evaluated outcome: the second half of `record`."""
        entry, tier = self._flying(call)
        error = entry.errors.get(tier)
        if error is None and tier not in entry.answers:
            raise ProtocolError(f"{call} was not evaluated yet: use record()")
        entry.booked.add(tier)
        self._ledger.book(tier, outcome, failed=error is not None)
        self._choice.paid(tier, outcome.cost)
        self._pass_on(entry)
        if not entry.waiting:
            if entry.learners:
                self._resolve(call.item, entry)
            if entry.taken:
                del self._items[call.item]

    def ready(self, item: int) -> bool:
        """Whether the answer to an item can be handed out.

        Raises:
            ProtocolError: If that item is not open.
        """
        return self._open(item).server is not None

    def answer(self, item: int) -> Served:
        """Hand out the answer to an item, once; the item is closed by it.

        Its `cost` is what was spent on it so far: candidates asked in order to learn
        may still be answering.

        Raises:
            ProtocolError: If the answer is not ready, or was handed out already.
        """
        entry = self._open(item)
        server = entry.server
        if server is None:
            hint = "make the calls that next_calls() returns and record their outcomes"
            raise ProtocolError(f"item {item} has no answer yet: {hint}")
        served = self._served(item, entry, server)
        self._pass_on(entry)
        self._ledger.hand_out(server, served.role, failed=served.error is not None)
        entry.taken = True
        if not entry.waiting:
            del self._items[item]
        self._mark()
        return served

    def abandon(self, item: int) -> None:
        """Close an item whose answer, or whose audit, nobody waits for any longer.

        The books stay sound: an audit that was not finished counts as a find, and a
        served item may have been missed already by the bound. Calls still in flight
        are booked as failures without a cost; record those that were billed first.

        Args:
            item: An item that arrived and is not closed; one whose answer was handed
                out may be abandoned while candidates still answer.

        Raises:
            ProtocolError: If the item is closed.
        """
        entry = self._items.pop(item, None)
        if entry is None:
            raise ProtocolError(f"item {item} is not open: abandon each item once")
        for tier in entry.asked - entry.booked:
            self._ledger.lost(tier)
        self._pass_on(entry)
        if item in self._unresolved:
            self._settle(item, found=True)
        if not entry.taken:
            self._ledger.abandoned += 1

    # -- several processes -------------------------------------------------------

    def shared(self) -> SharedPart:
        """Return the part that all who work on the stream share.

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
        together: dict[tuple[float, ...], list[tuple[int, int]]] = {}
        for number, (charged, before) in self._unresolved.items():
            key = tuple(charged.tolist())
            together.setdefault(key, []).append((number, before))
        return SharedPart(
            arrived=self._next,
            unaudited=self._unaudited,
            slopes=tuple(self._bound.slopes.tolist()),
            log_wealth=tuple(self._bound.log_wealth.tolist()),
            plan=self._plan,
            due=self._due,
            crowd=self._crowd,
            unresolved=tuple(
                Waiting(charges=charged, audits=tuple(audits))
                for charged, audits in together.items()
            ),
            learned=self._choice.learned(),
            compared=tuple(self._compared),
            by_reference=self._by_reference,
            sums=self._ledger.sums(),
            history=tuple(self._history),
        )

    def take_up(self, part: SharedPart) -> None:
        """Go on from where the others have come; the items let in here stay open.

        Args:
            part: What `shared` returned, of a session that was begun with the same
                arguments.

        Raises:
            ValueError: If it is of another stream.
        """
        self._bound.take_up(part.slopes, part.log_wealth)
        self._choice.take_up(part.learned)
        self._ledger.take_up(part.sums)
        if len(part.compared) != len(self._names):
            raise ValueError("comparisons of other models")
        self._next, self._unaudited = part.arrived, part.unaudited
        self._due, self._crowd = part.due, part.crowd
        self._compared, self._by_reference = list(part.compared), part.by_reference
        self._history = list(part.history)
        self._plan = None if part.plan is None else Plan(*part.plan)
        if self._plan is not None:
            self._charges = charges(self._bound.slopes, self._plan.rate)
            if not np.isfinite(self._charges).all():
                raise ValueError("an audit rate too low for its slopes")
        waiting = {
            number: (np.array(one.charges), before)
            for one in part.unresolved
            for number, before in one.audits
        }
        self._unresolved = dict(sorted(waiting.items()))
        self._recount()

    def peek(self, item: int) -> Served | None:
        """Return the answer to an item if it can be handed out; nothing is."""
        entry = self._items.get(item)
        if entry is None or entry.server is None or entry.taken:
            return None
        return self._served(item, entry, entry.server)

    def forget(self, item: int) -> None:
        """Close an item here, and leave what is shared as it is.

        To the others it is as if this process had been killed: an audit that was not
        resolved counts at its worst for ever, and a served item as a possible miss. Its
        answer may still be handed out.
        """
        self._items.pop(item, None)

    # -- results ---------------------------------------------------------------

    def state(self) -> StreamState:
        """What is promised, what was seen and what was spent so far."""
        ledger, guarantee = self._ledger, self._guarantee
        return StreamState(
            task=self._task,
            seed=self._seed,
            max_disagreement=guarantee.max_disagreement,
            confidence=guarantee.confidence,
            equivalence=self._rule.name,
            reference=self._names[REFERENCE],
            arrived=self._next,
            in_flight=len(self._items),
            answered=ledger.answered,
            allowed=self._allowed(ledger.answered),
            possible_misses=self._possible_misses(),
            audits=ledger.audits,
            unresolved=len(self._unresolved),
            found=ledger.found,
            audit_rate=self._current_rate(),
            policy=self._policy_name(),
            served=dict(zip(self._names, ledger.served, strict=True)),
            roles=dict(ledger.roles),
            unanswered=ledger.unanswered,
            abandoned=ledger.abandoned,
            spend=ledger.spend(),
            reference_cost=self.reference_cost,
            history=tuple(self._history),
        )

    @property
    def reference_cost(self) -> float | None:
        """Recent mean cost of a call of the reference, in USD; None before any."""
        return self._choice.cost(REFERENCE)

    # -- how an item is answered -----------------------------------------------

    def _forced(self) -> _Item:
        """Answer an item by the reference; now and then, learn from it."""
        self._by_reference += 1
        learners = self._learners(self._by_reference)
        entry = _Item("profiled" if learners else "reference", NOBODY)
        entry.learners = learners
        return entry

    def _audited(self, number: int, policy: Policy, *, shown: bool) -> _Item:
        """Answer an item by the reference, and see what the policy would have done."""
        entry = _Item("profiled", policy, shown=shown)
        others = self._learners(self._ledger.audits)
        entry.learners = tuple(dict.fromkeys((*policy.tiers, *others)))
        self._ledger.audits += 1
        self._unresolved[number] = (self._charges, self._unaudited)
        self._recount()
        return entry

    def _learners(self, turn: int) -> tuple[int, ...]:
        """Candidates to compare with the reference, which answers anyway."""
        candidates = range(1, len(self._names))
        if turn % _NOW_AND_THEN == 0:
            return tuple(candidates)
        return tuple(t for t in candidates if self._compared[t] < _ACQUAINTED)

    def _wanted(self, entry: _Item) -> tuple[int, ...]:
        """Tiers a served item needs next; settles its server once that is known."""
        if REFERENCE in entry.asked:
            if REFERENCE in entry.answers or REFERENCE in entry.errors:
                entry.server = REFERENCE
            return ()
        step = advance(entry.policy, _usable(entry), self._alike(entry))
        entry.server = step.server
        if step.server is None and not step.ask:
            return (REFERENCE,)
        return step.ask

    def _keep(self, entry: _Item, tier: int, outcome: Outcome | Failure) -> None:
        """Keep an answer, or why it cannot be used."""
        error: BaseException | None = None
        if isinstance(outcome, Failure):
            error = outcome.error
        elif tier != REFERENCE and not (entry.shown and tier in entry.policy.tiers):
            try:
                self._rule.parse(outcome.answer)
            except Exception as unread:  # noqa: BLE001 - a user's rule may raise anything
                error = unread
        if error is not None:
            entry.errors[tier] = error
        elif isinstance(outcome, Outcome):
            entry.answers[tier] = outcome.answer

    def _compare(self, entry: _Item) -> None:
        """Compare all that resolving an item will ask for."""
        alike, usable = self._alike(entry), _usable(entry)
        others = [] if REFERENCE in entry.errors else self._choice.policies
        for policy in (entry.policy, *others):
            server = advance(policy, usable, alike).server
            if server is not None:
                alike(server, REFERENCE)

    def _pass_on(self, entry: _Item) -> None:
        """Enter what comparing has cost."""
        add_spend(self._ledger.judging, entry.judging)
        entry.judging = []

    def _served(self, item: int, entry: _Item, server: int) -> Served:
        """Return the answer of an item that is ready."""
        error = entry.errors.get(REFERENCE) if server == REFERENCE else None
        role: Role = entry.role
        if role == "applied" and server == REFERENCE:
            role = "escalated"
        answer = entry.answers.get(server) if error is None else None
        told = (role, answer, entry.cost, error, entry.estimated)
        return Served(item, self._names[server], *told)

    def _flying(self, call: Call) -> tuple[_Item, int]:
        """Return the item of a call that was made and is not booked, and its tier."""
        entry = self._items.get(call.item)
        tier = self._index.get(call.tier, -1)
        if entry is None or tier not in entry.asked or tier in entry.booked:
            raise ProtocolError(f"{call} is not in flight: record each call once")
        return entry, tier

    def _open(self, item: int) -> _Item:
        """Return an item whose answer was not handed out."""
        entry = self._items.get(item)
        if entry is None or entry.taken:
            hint = "use a number that arrive() returned, until its answer is taken"
            raise ProtocolError(f"item {item!r} is not open: {hint}")
        return entry

    # -- what audits show --------------------------------------------------------

    def _resolve(self, number: int, entry: _Item) -> None:
        """See what an item shows, now that all of its outcomes are in."""
        alike, usable = self._alike(entry), _usable(entry)
        failed = REFERENCE in entry.errors

        def wrong(tier: int) -> bool:
            return failed or not alike(tier, REFERENCE)

        if not failed:
            for tier in entry.learners:
                self._compared[tier] += 1
            self._choice.learn(usable, alike, wrong)
        if number in self._unresolved:
            server = advance(entry.policy, usable, alike).server
            # Nobody waits for a candidate once the answer is out: a call that failed
            # then may have been cancelled, which shows nothing.
            hidden = entry.taken and not all(usable[t] for t in entry.policy.tiers)
            found = hidden if server is None else wrong(server)
            self._settle(number, found=found)

    def _alike(self, entry: _Item) -> Any:
        """Return whether two tiers' answers to an item mean the same, as a function."""
        answers, rule, known = entry.answers, self._rule, entry.alike

        def same(left: int, right: int) -> bool:
            if left not in answers or right not in answers:
                return False
            if (left, right) not in known:
                with record_rule_calls() as bought:
                    known[left, right] = agree(rule, answers[left], answers[right])
                entry.judging += bought
                entry.cost += sum(brought.paid for _, brought in bought)
                entry.estimated += sum(brought.estimated for _, brought in bought)
            return known[left, right]

        return same

    def _settle(self, number: int, *, found: bool) -> None:
        """Resolve an audit."""
        charged, _ = self._unresolved.pop(number)
        if found:
            self._ledger.found += 1
            self._bound.charge(charged)
            self._due = 0
        self._recount()

    # -- the promise -------------------------------------------------------------

    def _allowed(self, answered: int) -> int:
        """Number of misses allowed among so many answers, ⌊δ·answered⌋."""
        numerator, denominator = self._share
        return numerator * answered // denominator

    def _recount(self) -> None:
        """Bound the misses anew, at several cuts before unresolved audits."""
        waiting = list(self._unresolved.values())
        self._if_found, self._at_cuts = self._bound.misses, 0
        if not waiting:
            return
        count = len(waiting)
        cuts = sorted({count * k // _CUTS for k in range(_CUTS + 1)})
        charged = np.cumsum([charged for charged, _ in waiting], axis=0)
        before = np.vstack([np.zeros_like(charged[:1]), charged])[cuts]
        *bounds, self._if_found = self._bound.bounds(before).tolist()
        self._at_cuts = min(
            bound - waiting[cut][1] for bound, cut in zip(bounds, cuts, strict=False)
        )

    def _misses(self, more: int = 0) -> int:
        """Bound on the misses among all that arrived, and so many served items more."""
        if not self._unresolved:
            return self._bound.misses
        return min(self._if_found, self._at_cuts + self._unaudited + more)

    def _possible_misses(self) -> int:
        """Bound on the misses: no more can be missed than went unaudited."""
        return min(self._misses(), self._unaudited)

    def _within_budget(self) -> bool:
        """Whether one more item may be tossed for."""
        misses = self._misses(more=1)
        crowd = misses - self._bound.misses
        self._crowd = max(crowd, _FADING * self._crowd)
        return misses <= self._allowed(self._ledger.answered + 1)

    def _replan(self) -> None:
        """Choose policy and audit rate anew."""
        answered = self._ledger.answered
        self._due = answered + 1 + int(_PATIENCE * answered)
        self._choice.choose(answered)
        self._plan = None
        if self._choice.policy == NOBODY:
            return
        allowed = self._allowed(answered + 1)
        room = max(0, allowed - int(self._crowd))
        self._plan = plan(self._bound, room, self._choice.error * answered)
        if self._plan is not None:
            self._bound.flatten(self._plan.steepest)
            self._charges = charges(self._bound.slopes, self._plan.rate)
            self._recount()

    def _current_rate(self) -> float:
        """Probability with which the next item would be audited or forced."""
        if self._plan is None:
            return 1.0
        within = self._misses(more=1) <= self._allowed(self._ledger.answered + 1)
        return self._plan.rate if within else 1.0

    def _mark(self) -> None:
        """Add a point to the history, if the stream has grown enough."""
        answered = self._ledger.answered
        last = self._history[-1].answered if self._history else 0
        if answered <= last + int(_MARKS * last):
            return
        point = StreamPoint(
            answered=answered,
            allowed=self._allowed(answered),
            possible_misses=self._possible_misses(),
            audits=self._ledger.audits,
            cost=self._ledger.cost,
        )
        self._history.append(point)

    def _policy_name(self) -> str:
        """Name of the policy that serves."""
        policy = self._choice.policy
        return self._names[REFERENCE] if policy == NOBODY else policy.name(self._names)


def _usable(entry: _Item) -> dict[int, bool]:
    """Candidate → whether its answer can be used, of those that are in."""
    usable = dict.fromkeys(entry.answers, True) | dict.fromkeys(entry.errors, False)
    usable.pop(REFERENCE, None)
    return usable
