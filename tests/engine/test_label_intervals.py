"""What draws say about labels nobody promised: exact, at every number of draws."""

from __future__ import annotations

import numpy as np
import pytest

from smart_engine import BatchSession, Guarantee, Label, Outcome, Tier
from smart_engine.batch.certificate import Certificate
from smart_engine.batch.label_draws import hidden
from smart_engine.batch.verification import verify
from smart_engine.report.notes import notes
from smart_engine.report.report import Report
from smart_engine.report.tables import tables

LABELS = ("fine", "fraud", "odd")


def ever_left_out(items: int, kind: int, level: float) -> float:
    """Probability, over all orders of drawing, that an interval ever misses the truth.

    Items of which `kind` are of a kind are drawn one after the other, to the last one.
    """
    at, lost = {0: 1.0}, 0.0
    for drawn in range(1, items + 1):
        after: dict[int, float] = {}
        for found, chance in at.items():
            left = items - drawn + 1
            for hit, ways in ((1, kind - found), (0, left - kind + found)):
                if ways:
                    key = found + hit
                    after[key] = after.get(key, 0.0) + chance * ways / left
        at = {}
        for found, chance in after.items():
            least, most = hidden(items, drawn, found, level)
            if least <= kind - found <= most:
                at[found] = chance
            else:
                lost += chance
    return lost


@pytest.mark.parametrize("items", [1, 2, 7, 16, 30])
def test_an_interval_never_leaves_the_truth_out_more_often_than_stated(
    items: int,
) -> None:
    worst = max(ever_left_out(items, kind, 0.2) for kind in range(items + 1))
    assert worst <= 0.2 + 1e-12
    assert items < 16 or worst > 0.08  # and not much of it is lost


def test_trap_an_interval_for_one_number_of_draws_fails_where_one_may_stop() -> None:
    # Stopping at the first draw at which a fixed-size test rejects breaks its level.
    from scipy.stats import hypergeom

    rng, items, kind, broken = np.random.default_rng(0), 200, 20, 0
    for _ in range(60):
        found = np.cumsum(rng.permutation(np.arange(items) < kind))
        drawn = np.arange(1, items + 1)
        tail = hypergeom.cdf(found, items, kind, drawn)
        broken += bool((tail <= 0.05).any())
    assert broken / 60 > 0.1


class Job:
    """A batch whose labels are known, at δ = .05 and γ = .95 unless said otherwise."""

    def __init__(
        self,
        seed: int,
        *,
        size: int = 2000,
        shares: tuple[float, ...] = (0.9, 0.07, 0.03),
        flipped: float = 0.03,
        vanishing: float = 0.0,
        guarantee: Guarantee | None = None,
        slices: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.truth = rng.choice(LABELS, size, p=shares)
        said = np.where(
            rng.random(size) < flipped, rng.choice(LABELS, size), self.truth
        )
        gone = (self.truth == "odd") & (rng.random(size) < vanishing)
        said = np.where(gone, "fine", said)
        session = BatchSession(
            size,
            [Tier("big", "reference", 1.0), Tier("small", cost=0.01)],
            guarantee or Guarantee(0.05, 0.95),
            seed=seed,
            equivalence=Label(LABELS),
            slices=[str(n) for n in rng.integers(slices, size=size)]
            if slices
            else None,
        )
        while calls := session.next_calls():
            for item, model in calls:
                answers, cost = (said, 0.01) if model == "small" else (self.truth, 1.0)
                session.record((item, model), Outcome(str(answers[item]), cost))
        self.certificate: Certificate = session.certificate
        self.given = np.array([served.answer for served in session.answers])

    @property
    def covered(self) -> bool:
        """Whether every interval has the truth in it."""
        for each in self.certificate.label_intervals:
            false = (self.given == each.label) & (self.truth != each.label)
            missed = (self.given != each.label) & (self.truth == each.label)
            for count, (least, most) in (
                (false.sum(), each.false),
                (missed.sum(), each.missed),
            ):
                if not least <= count <= most:
                    return False
        return True


def test_intervals_have_the_truth_in_them_and_follow_from_the_record() -> None:
    job = Job(0)
    certificate = job.certificate
    intervals = {each.label: each for each in certificate.label_intervals}
    assert set(intervals) == set(LABELS)
    assert job.covered
    low, high = intervals["fine"].precision
    assert 0.9 < low < high <= 1
    low, high = intervals["odd"].recall
    assert 0 <= low < high <= 1
    read = Certificate.model_validate_json(certificate.model_dump_json())
    assert read.label_intervals == certificate.label_intervals
    assert [check for check in verify(read) if not check.holds] == []


@pytest.mark.parametrize("forged", [{"draws": 900}, {"level": 0.5}, {"cells": ()}])
def test_forged_comparisons_are_found_out(forged: dict[str, object]) -> None:
    certificate = Job(0).certificate
    (compared,) = certificate.compared
    told = certificate.model_copy(
        update={"compared": (compared.model_copy(update=forged),)}
    )
    assert not all(check.holds for check in verify(told))


def test_a_label_that_is_never_handed_out_is_named_all_the_same() -> None:
    job = Job(1, size=4000, shares=(0.95, 0.04, 0.01), vanishing=1.0, flipped=0.0)
    certificate = job.certificate
    odd = next(each for each in certificate.label_bounds if each.label == "odd")
    assert odd.missed > odd.answers
    report = Report(
        spend=certificate.spend,
        served=certificate.served,
        certificates=(certificate,),
    )
    assert any("'odd'" in line and "more may be" in line for line in notes(report))
    assert job.covered


def test_a_report_says_what_was_taken_for_what() -> None:
    certificate = Job(2, slices=2).certificate
    report = Report(
        spend=certificate.spend,
        served=certificate.served,
        certificates=(certificate,),
    )
    (table,) = [each for each in tables(report) if "(rows)" in each.caption]
    assert table.numbers == (*LABELS, "false among others")
    assert [row[0] for row in table.rows] == list(LABELS)
    counted = sum(int(cell.replace(",", "")) for row in table.rows for cell in row[1:4])
    assert counted == sum(each.draws for each in certificate.compared)
    assert table.total[0] == "missed among others"
    assert "missed among others" in report.to_html()


def test_labels_that_are_promised_have_the_bounds_of_their_audits() -> None:
    promise = Guarantee(0.05, 0.95, recall={"fraud": 0.8}, precision={"fraud": 0.8})
    job = Job(3, guarantee=promise)
    fraud = next(e for e in job.certificate.label_intervals if e.label == "fraud")
    assert min(fraud.recall[0], fraud.precision[0]) >= 0.8
    assert job.covered
    assert all(each.level == 0 for each in job.certificate.compared)
    assert all(check.holds for check in verify(job.certificate))


def test_the_reference_alone_leaves_nothing_open() -> None:
    certificate = Job(4, size=8).certificate
    for each in certificate.label_intervals:
        assert each.precision == each.recall == (1.0, 1.0)


@pytest.mark.guarantee
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("slices", [0, 2])
def test_all_intervals_hold_together_as_often_as_stated(slices: int) -> None:
    runs, alpha, broken = 500, 0.2, 0
    for seed in range(runs):
        job = Job(
            seed,
            size=600,
            flipped=0.04,
            vanishing=0.5,
            guarantee=Guarantee(0.1, 1 - alpha),
            slices=slices,
        )
        broken += not job.covered
    assert broken / runs <= alpha + 3 * (alpha * (1 - alpha) / runs) ** 0.5
