"""Slices: in each of them the share is kept, all together, at the cost of audits."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from smart_engine import (
    BatchSession,
    Guarantee,
    InvalidInputError,
    Label,
    Outcome,
    Tier,
)
from smart_engine.batch.certificate import Certificate
from smart_engine.batch.verification import verify
from smart_engine.calls import Failure
from smart_engine.evidence.acceptance import Acceptance

BIG, SMALL = Tier("big", "reference", 1.0), Tier("small", cost=0.01)
PROMISE = Guarantee(0.05, 0.95)


class Job:
    """A session over slices, on answers that are known.

    Args:
        sizes: Slice → its number of items.
        errors: Slice → how many of its items the small model gets wrong.
    """

    def __init__(
        self,
        sizes: dict[str, int],
        errors: dict[str, int],
        guarantee: Guarantee = PROMISE,
        *,
        seed: int = 0,
        failing: frozenset[int] = frozenset(),
        confidence: bool = False,
        **settings: Any,
    ) -> None:
        rng = np.random.default_rng(seed)
        slices = np.repeat(list(sizes), list(sizes.values())).astype(str)
        self.slices = slices = rng.permutation(slices)
        self.truth = rng.choice(["fine", "fraud"], len(slices), p=[0.8, 0.2])
        self.wrong = np.zeros(len(slices), bool)
        for name, count in errors.items():
            self.wrong[np.flatnonzero(slices == name)[:count]] = True
        said = np.where(
            self.wrong, np.where(self.truth == "fine", "fraud", "fine"), self.truth
        )
        sure = rng.random(len(slices)) * np.where(self.wrong, 1.0, 0.5) + 0.5
        self.session = session = BatchSession(
            len(slices),
            [BIG, SMALL],
            guarantee,
            slices=slices.tolist(),
            seed=seed,
            equivalence=Label(["fine", "fraud"]),
            **settings,
        )
        while calls := session.next_calls():
            for item, model in calls:
                if model == "big" and item in failing:
                    session.record((item, model), Failure(RuntimeError("no"), 1.0))
                elif model == "big":
                    session.record((item, model), Outcome(self.truth[item], 1.0))
                else:
                    score = float(sure[item]) if confidence else None
                    outcome = Outcome(said[item], 0.01, confidence=score)
                    session.record((item, model), outcome)
        self.certificate: Certificate = session.certificate
        self.guarantee = guarantee

    @property
    def differing(self) -> dict[str, tuple[int, int]]:
        """Slice → its answers that differ, and how many may."""
        served = self.session.answers
        answered = np.array([each.error is None for each in served])
        given = np.array([each.answer for each in served])
        differing = answered & (given != self.truth)
        return {
            name: (
                int(differing[self.slices == name].sum()),
                self.guarantee.max_errors(int(answered[self.slices == name].sum())),
            )
            for name in np.unique(self.slices).tolist()
        }

    @property
    def holds(self) -> bool:
        """Whether every slice keeps its share."""
        return all(count <= most for count, most in self.differing.values())


SIZES = {"de": 1500, "en": 1000, "fr": 12}


def test_each_slice_keeps_its_share_where_the_whole_would_hide_it() -> None:
    sizes, errors = {"large": 4000, "small": 400}, {"small": 120}
    job = Job(sizes, errors)
    assert job.holds
    assert sum(errors.values()) <= job.guarantee.max_errors(4400)
    assert job.certificate.valid
    by_reference = {
        each.name: each.served["big"] / each.items for each in job.certificate.slices
    }
    assert by_reference["small"] > 0.5
    assert by_reference["large"] < 0.2


def test_a_certificate_of_slices_follows_from_its_record() -> None:
    certificate = Job(SIZES, {"de": 20, "en": 10}).certificate
    read = Certificate.model_validate_json(certificate.model_dump_json())
    assert [check for check in verify(read) if not check.holds] == []
    assert certificate.max_errors == 75 + 50 + 0
    assert "(0.05 of each slice) differ from big's" in certificate.claim
    assert [each.items for each in certificate.slices].count(12) == 1
    assert certificate.cost < 0.4 * 2512


@pytest.mark.parametrize(
    "forged",
    [
        {"max_errors": 80},
        {"slices": ()},
        {"tests": ()},
        {"profiled": 10},
    ],
)
def test_a_forged_certificate_of_slices_is_found_out(forged: dict[str, Any]) -> None:
    certificate = Job(SIZES, {"de": 20, "en": 10}).certificate
    told = certificate.model_copy(update=forged)
    assert not all(check.holds for check in verify(told))


@pytest.mark.parametrize(
    "forged",
    [{"items": 900}, {"name": "de"}, {"served": {"big": 0, "small": 1000}}],
)
def test_a_forged_slice_is_found_out(forged: dict[str, Any]) -> None:
    certificate = Job(SIZES, {"de": 20, "en": 10}).certificate
    slices = [
        each.model_copy(update=forged) if each.name == "en" else each
        for each in certificate.slices
    ]
    told = certificate.model_copy(update={"slices": tuple(slices)})
    assert not all(check.holds for check in verify(told))


def test_an_audit_cannot_be_lent_to_another_slice() -> None:
    certificate = Job({"a": 800, "b": 800}, {"b": 200}).certificate
    lent = [test.model_copy(update={"in_slice": "b"}) for test in certificate.tests]
    told = certificate.model_copy(update={"tests": tuple(lent)})
    assert not all(check.holds for check in verify(told))


@pytest.mark.parametrize("sizes", [{"a": 1}, {str(n): 1 for n in range(40)}, {}])
def test_slices_of_one_item_are_the_references_and_cost_no_more(
    sizes: dict[str, int],
) -> None:
    certificate = Job(sizes, {}).certificate
    assert certificate.valid == all(check.holds for check in verify(certificate))
    assert certificate.valid
    assert certificate.cost == len(sizes)
    assert certificate.spend["small"].calls == 0


def test_a_slice_too_small_for_an_audit_asks_no_candidate() -> None:
    job = Job({"large": 3000, "tiny": 15}, {"tiny": 15})
    tiny = next(each for each in job.certificate.slices if each.name == "tiny")
    assert tiny.served == {"big": 15, "small": 0}
    assert job.certificate.spend["small"].calls <= 3000
    assert job.certificate.cost < 0.2 * 3015


def test_slices_choose_their_models_by_themselves() -> None:
    job = Job({"good": 1500, "bad": 1500}, {"bad": 1500})
    served = {each.name: each.served["small"] for each in job.certificate.slices}
    assert served["bad"] == 0
    assert served["good"] > 1200


def test_slices_and_labels_are_promised_together() -> None:
    guarantee = Guarantee(0.05, 0.95, recall={"fraud": 0.8}, precision={"fraud": 0.8})
    job = Job(SIZES, {"de": 20, "en": 10}, guarantee)
    certificate = job.certificate
    assert job.holds
    assert certificate.valid
    read = Certificate.model_validate_json(certificate.model_dump_json())
    assert [check for check in verify(read) if not check.holds] == []
    assert {each.in_slice for each in certificate.promised} == {None, *SIZES}
    for forged in ({"in_slice": None}, {"answers": 900}, {"unseen": 0}):
        promised = [
            each.model_copy(update=forged) if each.in_slice == "en" else each
            for each in certificate.promised
        ]
        told = certificate.model_copy(update={"promised": tuple(promised)})
        assert not all(check.holds for check in verify(told))


def test_waves_of_slices_may_be_limited() -> None:
    job = Job(SIZES, {"de": 20, "en": 10}, max_rounds=4)
    assert job.session.rounds <= 4
    assert job.certificate.valid
    assert job.certificate.cost < 0.6 * 2512
    assert all(check.holds for check in verify(job.certificate))


def test_a_failing_reference_shrinks_what_may_differ_in_its_slice() -> None:
    job = Job({"a": 1000, "b": 1000}, {"a": 20}, failing=frozenset(range(0, 2000, 40)))
    certificate = job.certificate
    assert certificate.unanswered > 0
    assert job.holds
    assert certificate.valid
    assert all(check.holds for check in verify(certificate))


@pytest.mark.parametrize(
    ("slices", "hint"),
    [
        (["a"] * 9, "each of 10 items"),
        ("aaaaaaaaaa", "each of 10 items"),
        ([*"aaaaaaaaa", None], "item 9 is in no slice"),
        ([*"aaaaaaaaa", float("nan")], "item 9 is in no slice"),
    ],
)
def test_items_without_a_slice_are_refused(slices: Any, hint: str) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        BatchSession(10, [BIG, SMALL], slices=slices)


def test_slices_without_a_share_to_keep_are_refused() -> None:
    promise = Guarantee(None, recall={"fraud": 0.9})
    with pytest.raises(InvalidInputError, match="in each slice: give one"):
        BatchSession(2, [BIG, SMALL], promise, slices=["a", "b"])
    with pytest.raises(InvalidInputError, match="use 'audit'"):
        BatchSession(2, [BIG, SMALL], strategy="mix", slices=["a", "b"])


def test_the_reference_alone_needs_no_audit_of_slices() -> None:
    job = Job({"a": 30, "b": 2}, {}, strategy="reference")
    assert job.certificate.valid
    assert job.certificate.cost == 32


LAYOUTS = {
    "just above": ({"a": 400, "b": 300, "c": 1}, {"a": 21, "b": 16, "c": 1}),
    "one hidden": ({"a": 2000, "b": 200}, {"b": 11}),
    "many": ({str(n): 150 for n in range(6)}, {str(n): 8 for n in range(6)}),
    "one of many": ({str(n): 150 for n in range(6)}, {"3": 8}),
    "single items": ({"a": 500, **{str(n): 1 for n in range(9)}}, {"a": 26, "3": 1}),
}


@pytest.mark.guarantee
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("layout", "labels"), [*itertools.product(LAYOUTS, [False, True])]
)
def test_all_slices_keep_their_shares_as_often_as_stated(
    layout: str, labels: bool
) -> None:
    """Ten layouts, 2,000 runs in all."""
    runs, (sizes, errors) = 200, LAYOUTS[layout]
    recall = {"fraud": 0.7} if labels else {}
    guarantee, broken = Guarantee(0.05, 0.9, recall=recall), 0
    for seed in range(runs):
        job = Job(sizes, errors, guarantee, seed=seed, confidence=bool(seed % 2))
        assert job.certificate.valid
        broken += not job.holds
    assert broken / runs <= 0.1 + 3 * (0.1 * 0.9 / runs) ** 0.5


def accepted_wrongly(items: int, errors: int, allowed: int, level: float) -> float:
    """Probability, over all orders of drawing, that more than `allowed` stay unseen."""
    design = Acceptance(items, allowed, level)
    at, wrong = {0: 1.0}, 0.0
    for drawn in range(items + 1):
        after: dict[int, float] = {}
        for found, chance in at.items():
            if drawn >= design.draws(found):
                wrong += chance * (errors - found > allowed)
                continue
            for hit, ways in ((1, errors - found), (0, items - drawn - errors + found)):
                if ways > 0:
                    key = found + hit
                    share = ways / (items - drawn)
                    after[key] = after.get(key, 0.0) + chance * share
        at = after
    return wrong


@pytest.mark.parametrize("sizes", [(1, 6), (8, 12), (15, 15)])
def test_two_slices_break_their_shares_together_at_most_at_the_level(
    sizes: tuple[int, int],
) -> None:
    alpha, share, worst = 0.3, Guarantee(0.2, 0.7), 0.0
    by_slice = [
        [
            accepted_wrongly(size, errors, share.max_errors(size), alpha / 2)
            for errors in range(size + 1)
        ]
        for size in sizes
    ]
    for first, second in itertools.product(*by_slice):
        worst = max(worst, 1 - (1 - first) * (1 - second))
    assert worst <= alpha + 1e-12
    assert max(sizes) < 15 or worst > alpha / 3  # and not much of it is lost
