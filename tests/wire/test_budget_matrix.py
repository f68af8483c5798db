"""Budget and ledger against the server's bill: failure × verb × adapter × who fails.

The server bills a request before it fails. The default tests have each kind of failure
once per adapter; `make verify-quick` has every cell.
"""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from budget_runs import (
    FORMS,
    KINDS,
    Cell,
    assert_no_request_is_missing,
    assert_nothing_is_free_that_was_not,
    assert_the_budget_held,
    assert_the_failure_was_met,
    assert_what_is_unknown_is_marked,
    cells,
    run,
)
from faults import Chains

from smart_engine.errors import InvalidInputError

pytestmark = pytest.mark.filterwarnings("ignore:.*reported no usage")

ALL = list(cells())


def chosen() -> list[Cell]:
    """Return one cell of each kind and adapter, of other verbs each time."""
    found = []
    for number, (kind, adapter) in enumerate(itertools.product(KINDS, FORMS)):
        if mine := [cell for cell in ALL if cell[:2] == (kind, adapter)]:
            found.append(mine[number * 7 % len(mine)])
    return found


DEFAULT = chosen()


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(
            cell, id=str(cell), marks=[pytest.mark.slow] * (cell not in DEFAULT)
        )
        for cell in ALL
    ],
)
def test_the_budget_holds_and_every_request_is_booked(cell):
    ran = run(cell)
    assert_the_failure_was_met(ran)
    assert_the_budget_held(ran)
    assert_no_request_is_missing(ran)
    assert_nothing_is_free_that_was_not(ran)
    assert_what_is_unknown_is_marked(ran)


def test_a_chain_whose_clients_ask_again_unseen_has_no_budget():
    with pytest.raises(InvalidInputError, match=r"budget_usd.*max_retries"):
        run(Cell("503, client asks again", Chains, "whole", "sync", "big"))


def test_every_failure_meets_every_verb():
    forms = sum(map(len, FORMS.values()))
    counts = Counter(cell.kind for cell in ALL)
    assert counts["timeout"] == forms * 2 * 2
    asked = {(cell.adapter, cell.verb) for cell in DEFAULT}
    assert asked == {
        (adapter, verb) for adapter, verbs in FORMS.items() for verb in verbs
    }
    assert {cell.mode for cell in DEFAULT} == {"sync", "async"}
    assert {cell.who for cell in DEFAULT} == {"small", "big"}
