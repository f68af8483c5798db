"""Several sessions on one stream decide what one session would have decided."""

from __future__ import annotations

import functools
import json
import random
from contextlib import nullcontext

import numpy as np
import pytest
from fuzzing import FEWER
from hypothesis import given
from hypothesis import strategies as st

from smart_engine import (
    Call,
    Failure,
    Guarantee,
    Judged,
    Label,
    Normalized,
    Outcome,
    StreamSession,
    Tier,
    Usage,
)
from smart_engine.equivalence.identity import identity
from smart_engine.stream.draws import AuditDraws
from smart_engine.stream.state import SharedPart

BROKEN = RuntimeError("no answer")


def session(candidates: int = 2, delta: float = 0.2) -> StreamSession:
    tiers = [Tier("big", role="reference")]
    tiers += [Tier(f"c{k}") for k in range(1, candidates + 1)]
    return StreamSession(tiers, Guarantee(delta, 0.9), seed=5)


def outcome(call: Call) -> Outcome | Failure:
    """The result of a call depends on the call alone."""
    dice = random.Random(f"{call.item} {call.tier}")
    cost = dice.random() * (1 if call.tier == "big" else 0.01)
    if dice.random() < 0.05:
        return Failure(BROKEN, cost, Usage(dice.randrange(99), 1))
    wrong = call.tier != "big" and dice.random() < 0.05
    return Outcome("n" if wrong else "y", cost, Usage(dice.randrange(99), 1))


class Team:
    """Sessions that work on one stream, each on what the last step left, as text."""

    def __init__(self, size: int, candidates: int) -> None:
        self.members = [session(candidates) for _ in range(size)]
        self.text = self.members[0].shared().model_dump_json()
        self.at_home: dict[int, int] = {}

    def step(self, member: int, name: str, *args):
        one = self.members[member]
        one.take_up(SharedPart.model_validate_json(self.text))
        result = getattr(one, name)(*args)
        self.text = one.shared().model_dump_json()
        return result

    def arrive(self, member: int) -> int:
        item = self.step(member % len(self.members), "arrive")
        self.at_home[item] = member % len(self.members)
        return item

    def on(self, item: int, name: str, *args):
        return self.step(self.at_home[item], name, *args)


def work(team: Team, dice: random.Random, items: int, window: int) -> list:
    """Let items in and drive them to their ends in a random order; return all of it."""
    seen, flying, opened = [], [], set()

    def ask(item: int) -> None:
        calls = team.on(item, "next_calls", item)
        flying.extend(calls)
        seen.append(calls)

    for _ in range(items):
        item = team.arrive(dice.randrange(6))
        opened.add(item)
        ask(item)
        while len(opened) >= window or (flying and dice.random() < 0.3):
            call = flying.pop(dice.randrange(len(flying)))
            team.on(call.item, "record", call, outcome(call))
            if call.item not in opened:
                continue
            ask(call.item)
            if team.on(call.item, "ready", call.item):
                opened.remove(call.item)
                seen.append(team.on(call.item, "answer", call.item))
            elif dice.random() < 0.02:
                opened.remove(call.item)
                flying[:] = [one for one in flying if one.item != call.item]
                team.on(call.item, "abandon", call.item)
    return seen


@FEWER
@given(st.randoms(use_true_random=False), st.sampled_from([1, 3, 9]))
def test_whatever_the_order_a_team_does_what_one_session_does(dice, window) -> None:
    seed, candidates = dice.random(), dice.choice([1, 3])
    alone, team = Team(1, candidates), Team(3, candidates)
    items = dice.randrange(20, 120)
    one = work(alone, random.Random(seed), items, window)
    many = work(team, random.Random(seed), items, window)
    assert one == many
    assert alone.text == team.text
    state = alone.members[0].state()
    for member in team.members:
        member.take_up(SharedPart.model_validate_json(team.text))
        same = {"in_flight": state.in_flight}
        assert member.state().model_copy(update=same) == state
    assert sum(member.state().in_flight for member in team.members) == state.in_flight


def test_handing_on_and_taking_up_changes_nothing() -> None:
    plain, handed = session(), session()
    for _ in range(700):
        item = plain.arrive()
        handed.take_up(
            SharedPart.model_validate_json(handed.shared().model_dump_json())
        )
        assert handed.arrive() == item
        while calls := plain.next_calls(item):
            assert handed.next_calls(item) == calls
            for call in calls:
                plain.record(call, outcome(call))
                handed.record(call, outcome(call))
        assert handed.answer(item) == plain.answer(item)
    assert handed.state() == plain.state()
    state = plain.state()
    assert state.served["c1"] + state.served["c2"] > 100
    assert state.found > 0


def busy(seed: int = 0, items: int = 250) -> Team:
    """Return a team in the middle of its work: audits are unresolved."""
    team = Team(2, 1)
    work(team, random.Random(seed), items, 6)
    return team


def test_who_is_killed_leaves_its_audits_at_their_worst_and_its_sums() -> None:
    team = busy()
    killed, left = team.members
    killed.take_up(SharedPart.model_validate_json(team.text))
    audited = 0
    while not audited:  # it lets an item in that is audited, asks, and is no more
        item = team.arrive(0)
        calls = team.on(item, "next_calls", item)
        audited = item if len(calls) == 2 else 0
        team.on(item, "record", calls[0], Outcome("y", 0.125))
    left.take_up(SharedPart.model_validate_json(team.text))
    before = left.state()
    mine = {item for item, home in team.at_home.items() if home == 1}
    work_of_one = [item for item in left._items if item in mine]
    for item in work_of_one:
        team.on(item, "abandon", item)
    for _ in range(300):
        item = team.arrive(1)
        while calls := team.on(item, "next_calls", item):
            for call in calls:
                team.on(item, "record", call, Outcome("y", 0.01))
        team.on(item, "answer", item)
    after = left.state()
    assert audited in left._guard.unresolved
    assert after.unresolved == len(left._guard.unresolved) >= 1
    assert after.possible_misses <= after.allowed
    assert after.served["c1"] > before.served["c1"]  # the stream goes on all the same
    assert after.cost >= before.cost > 0.125


def test_to_forget_an_item_leaves_what_is_shared_as_it_is() -> None:
    one = session(1)
    item = one.arrive()
    for call in one.next_calls(item):
        one.record(call, Outcome("y", 1.0))
    before = one.shared()
    assert one.peek(item).answer == "y"
    one.forget(item)
    assert one.shared() == before
    assert one.peek(item) is None
    assert one.state().in_flight == 0


def test_answers_are_compared_before_anything_shared_is_touched() -> None:
    one = session(2)
    item = one.arrive()
    calls = one.next_calls(item)
    for call in calls:
        before = one.shared()
        one.evaluate(call, Outcome("y", 1.0))
        assert one.shared() == before
        one.book(call, Outcome("y", 1.0))
        assert one.shared() != before
    assert one.answer(item).cost == len(calls)


# -- the record --------------------------------------------------------------------


@FEWER
@given(st.integers(0, 10**6), st.integers(1, 80))
def test_the_shared_part_survives_being_written(seed, items) -> None:
    team = busy(seed, items)
    part = SharedPart.model_validate_json(team.text)
    assert part.model_dump_json() == team.text
    again = session(1)
    again.take_up(part)
    assert again.shared() == part


def test_a_record_of_an_older_version_is_taken_up() -> None:
    seen = json.loads(record())
    spends = [*seen["sums"]["spend"].values(), *seen["sums"]["judging"].values()]
    assert spends
    for spend in spends:
        del spend["estimated"]  # which that version did not know
    here = session(1)
    here.take_up(SharedPart.model_validate_json(json.dumps(seen)))
    assert here.state().cost > 0
    assert here.state().estimated == 0


@functools.cache
def record() -> str:
    """Return the record of a team in the middle of its work."""
    return busy(items=60).text


SPOILT = {
    "a negative count": ("unaudited", -1),
    "no slopes": ("slopes", []),
    "a slope of zero": ("slopes", [0.0] * 24),
    "wealth that is none": ("log_wealth", [None] * 24),
    "wealth above all": ("log_wealth", [5.0] * 24),
    "another version": ("format", 2),
    "a rate above one": ("plan", [1.5, 0.1]),
    "a field too many": ("more", 1),
    "other models": ("compared", [1, 2, 3, 4]),
    "a policy that is none": ("learned", {"chosen": 9}),
    "no policy": ("learned", {"policies": []}),
    "sums of others": ("sums", {"served": {"you": 1}}),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_record_that_is_spoilt_is_refused(how) -> None:
    seen = json.loads(record())
    field, value = SPOILT[how]
    seen[field] = {**seen[field], **value} if isinstance(value, dict) else value
    with pytest.raises(ValueError):  # noqa: PT011 - pydantic's, or ours
        session(1).take_up(SharedPart.model_validate_json(json.dumps(seen)))


# -- draws -------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10**7), max_size=30), st.integers(0, 2**70))
def test_a_draw_follows_from_seed_and_number_alone(numbers, seed) -> None:
    draws = AuditDraws(seed)
    drawn = [draws[number] for number in numbers]
    assert drawn == [AuditDraws(seed)[number] for number in numbers]
    assert all(0 <= draw < 1 for draw in drawn)


def test_draws_are_uniform_and_seeds_have_draws_of_their_own() -> None:
    some = np.array(
        [[AuditDraws(seed)[n] for n in range(0, 9000, 7)] for seed in range(9)]
    )
    assert len(np.unique(some)) == some.size
    counts = np.histogram(some, bins=20, range=(0, 1))[0]
    expected = some.size / 20
    assert ((counts - expected) ** 2 / expected).sum() < 45  # χ² with 19: p ≈ .0007
    assert np.abs(np.corrcoef(some) - np.eye(9)).max() < 0.12


# -- what tells rules apart --------------------------------------------------------


def nearer_than(margin):
    return lambda left, right: abs(left - right) < margin


def equal(left, right):
    return left == right


class Embeddings:
    def embed(self, text):
        return [1.0]


def test_rules_are_told_apart_by_what_they_do() -> None:
    def alike(left, right) -> bool:
        return identity(Judged(left)) == identity(Judged(right))

    assert alike(nearer_than(0.1), nearer_than(0.1))
    assert not alike(nearer_than(0.1), nearer_than(0.2))
    assert not alike(lambda a, b: a == b, lambda a, b: a != b)
    assert alike(functools.partial(equal, 1), functools.partial(equal, 1))
    assert not alike(functools.partial(equal, 1), functools.partial(equal, 2))
    assert identity(Normalized()) == identity(Normalized())
    assert identity(Normalized()) != identity(Label(["a", "b"]))
    assert identity(Label(["a", "b"])) != identity(Label(["a", "c"]))
    assert identity(Normalized() | Judged(equal)) != identity(
        Normalized() | equal.__ne__
    )
    recursive: list = [nearer_than(1)]
    recursive.append(recursive)
    assert identity(Judged(functools.partial(equal, recursive))).mark


def test_an_object_is_known_by_its_class_and_within_a_process_by_itself() -> None:
    one, other = (identity(Judged(Embeddings().embed)) for _ in range(2))
    assert one.mark == other.mark
    with nullcontext(Embeddings()) as kept:
        assert identity(Judged(kept.embed)) == identity(Judged(kept.embed))
        assert identity(Judged(kept.embed)).objects == (id(kept),)
