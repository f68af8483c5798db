"""What is audited cannot be foreseen: seeds come from the operating system.

The adversary knows the package, and so every draw of every fixed seed: its candidate is
right where a seed of 0 looks, and wrong everywhere else.
"""

from __future__ import annotations

import pytest
from fakes import Scripted

from langchain_smart import Price, SmartChatModel

pytestmark = pytest.mark.fresh_seeds

ITEMS = [f"item {number}" for number in range(200)]
PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.3)}


def smart_over(wrong=frozenset(), **settings) -> SmartChatModel:
    """Return a smart model whose candidate is wrong on these items."""
    big = Scripted(name="big", script=lambda text, _: "yes")
    small = Scripted(
        name="small", script=lambda text, _: "no" if text in wrong else "yes"
    )
    settings = {"prices": PRICES, "max_disagreement": 0.05, **settings}
    return SmartChatModel(reference=big, candidates=[small], **settings)


def audited(smart) -> frozenset[str]:
    """Return the items that the reference was asked about."""
    return frozenset(text for text, _ in smart.reference.calls)


def wrong_answers(smart) -> int:
    return sum(answer.content == "no" for answer in smart.batch(ITEMS))


def test_who_knows_the_draws_of_a_fixed_seed_wins_against_that_seed_alone():
    known = smart_over(seed=0)
    known.batch(ITEMS)
    unseen = frozenset(ITEMS) - audited(known)
    assert wrong_answers(smart_over(unseen, seed=0)) > 100
    for _ in range(2):
        assert wrong_answers(smart_over(unseen)) <= 10


def test_each_batch_and_each_stream_draws_anew():
    audits = []
    for _ in range(2):
        smart = smart_over()
        smart.batch(ITEMS)
        smart.batch(ITEMS)
        first, second = smart.report().certificates
        assert first.seed != second.seed
        audits.append(audited(smart))
        smart.invoke("item")
    assert audits[0] != audits[1]


def test_a_seed_stays_with_its_job_and_its_stream(tmp_path):
    reports = []
    for _ in range(2):
        smart = smart_over(store=tmp_path / "answers.db")
        smart.batch(ITEMS)
        smart.invoke("item")
        reports.append(smart.report())
    first, again = (report.certificates[0] for report in reports)
    assert first.seed == again.seed
    assert reports[1].restored == pytest.approx(first.cost)
    seeds = [report.streams[0].seed for report in reports]
    assert seeds[0] == seeds[1]
    elsewhere = smart_over(store=tmp_path / "others.db")
    elsewhere.invoke("item")
    assert elsewhere.report().streams[0].seed != seeds[0]
