"""Fault × who is at fault × verb × sync or async × adapter, in process.

The clients are real; their provider is a transport without a socket. `tests/wire` has
the same over HTTP: each fault once, and in `make verify` the whole matrix.
"""

from __future__ import annotations

from collections import Counter

import pytest
from fault_runs import (
    ADAPTERS,
    ALL,
    AT_FAULT,
    MODES,
    Case,
    assert_a_right_answer_or_a_clear_error,
    assert_sync_and_async_decide_alike,
    assert_the_ledger_is_the_bill_and_nothing_hangs,
    assert_the_promise_is_kept_after_every_answer,
    each,
)
from faults import FAULTS, WRONG_CALLS

CASES = [
    Case(adapter, verb, mode, who)
    for adapter in ALL
    for verb in (*adapter.verbs, *adapter.further)
    for mode in MODES
    for who in AT_FAULT
]

pytestmark = pytest.mark.filterwarnings("ignore:.*reported no usage")


@each(CASES)
def test_a_right_answer_or_a_clear_error(case):
    assert_a_right_answer_or_a_clear_error(case)


@each(CASES)
def test_the_ledger_is_the_bill_and_nothing_hangs(case):
    assert_the_ledger_is_the_bill_and_nothing_hangs(case)


@each(CASES)
def test_the_promise_is_kept_after_every_answer(case):
    assert_the_promise_is_kept_after_every_answer(case)


@each(case for case in CASES if case.mode == "async")
def test_sync_and_async_decide_alike(case):
    assert_sync_and_async_decide_alike(case)


def test_every_fault_met_every_verb():
    text, tools = len(FAULTS), len({**FAULTS, **WRONG_CALLS})
    assert (text, tools) == (20, 22)
    counts = Counter((c.adapter.__name__, c.verb) for c in CASES for _ in c.met)
    four = len(MODES) * len(AT_FAULT)
    both = {"whole": text, "batch": text, "pieces": text + 1}
    both |= {"tools": tools, "object": tools}
    expected = {(a.__name__, v): four * n for a in ADAPTERS for v, n in both.items()}
    expected["LangChain", "objects"] = four * tools
    default = {case[:2] for case in CASES if case.verb in case.adapter.verbs}
    names = {(adapter.__name__, verb) for adapter, verb in default}
    assert {name: counts[name] for name in names} == expected
    assert sum(expected.values()) == 928
    assert counts.total() == 2008
