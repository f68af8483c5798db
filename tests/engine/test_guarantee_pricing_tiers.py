"""What users type in: bad values are refused with field, value and way out."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smart_engine import (
    BatchSession,
    Guarantee,
    InvalidInputError,
    Label,
    Number,
    Price,
    SmartError,
    Tier,
    Usage,
)
from smart_engine.tiers import check_tiers

BIG, SMALL = Tier("big", role="reference"), Tier("small")
NOT_SHARES = [
    0,
    1,
    -0.1,
    1.5,
    95,
    float("nan"),
    float("inf"),
    "0.05",
    None,
    True,
    [0.1],
]
NOT_PRICES = [-1, -1e-9, float("nan"), float("inf"), "3", None, True]


def refuses(error: pytest.ExceptionInfo, field: str, value: object, hint: str) -> None:
    """Check that a message tells field, value and way out, all in one line."""
    message = str(error.value)
    assert message.startswith(f"{field}={value!r}: ")
    assert hint in message
    assert "\n" not in message
    assert isinstance(error.value, (SmartError, ValueError))
    assert error.value.field == field


@pytest.mark.parametrize("value", NOT_SHARES)
@pytest.mark.parametrize(
    ("field", "hint"),
    [("max_disagreement", "0.05 means 5 %"), ("confidence", "0.95 means 95 %")],
)
def test_guarantee_refuses_what_is_no_share(field: str, hint: str, value) -> None:
    with pytest.raises(InvalidInputError) as error:
        Guarantee(**{field: value})
    refuses(error, field, value, hint)


@pytest.mark.parametrize("value", NOT_PRICES)
@pytest.mark.parametrize("field", ["input", "output", "call"])
def test_price_refuses_what_is_no_price(field: str, value) -> None:
    given_prices = {"input": 1.0, "output": 1.0} | {field: value}
    with pytest.raises(InvalidInputError) as error:
        Price(**given_prices)
    refuses(error, f"Price.{field}", value, "Price.free()")


@pytest.mark.parametrize(
    ("tiers", "field", "hint"),
    [
        ([], "tiers", "role='reference'"),
        ([SMALL], "tiers", "role='reference'"),
        ([BIG, Tier("other", role="reference"), SMALL], "tiers", "exactly one"),
        ([BIG], "candidates", "at least one cheaper model"),
        ([BIG, SMALL, SMALL], "tiers", "share this name"),
        ([BIG, Tier("big")], "tiers", "cannot be a candidate too"),
    ],
)
def test_tiers_are_one_reference_and_distinct_candidates(tiers, field, hint) -> None:
    with pytest.raises(InvalidInputError, match=hint) as error:
        check_tiers(tiers)
    assert error.value.field == field


def test_tiers_put_the_reference_first_and_keep_the_candidates_order() -> None:
    z, a = Tier("z"), Tier("a")
    assert check_tiers([z, BIG, a]) == (BIG, z, a)


@pytest.mark.parametrize(
    ("arguments", "field", "hint"),
    [
        ({"n_items": -1}, "n_items", "zero or more"),
        ({"n_items": 2.5}, "n_items", "zero or more"),
        ({"n_items": "10"}, "n_items", "zero or more"),
        ({"strategy": "best"}, "strategy", "mix"),
        ({"looks": "often"}, "looks", "corrected"),
        ({"equivalence": "exact"}, "equivalence", "Exact()"),
        ({"tiers": [BIG]}, "candidates", "at least one"),
    ],
)
def test_session_refuses_bad_arguments_before_anything_is_spent(
    arguments: dict, field: str, hint: str
) -> None:
    with pytest.raises(InvalidInputError) as error:
        BatchSession(**({"n_items": 10, "tiers": [BIG, SMALL]} | arguments))
    value = [] if field == "candidates" else arguments[field]
    refuses(error, field, value, hint)


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "A"], ["a", " "], "ab"])
def test_label_needs_two_distinct_labels(labels) -> None:
    with pytest.raises(InvalidInputError) as error:
        Label(labels)
    refuses(error, "Label.labels", labels, "two distinct labels")


@pytest.mark.parametrize("field", ["absolute", "relative"])
@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_number_refuses_negative_tolerances(field: str, value: float) -> None:
    with pytest.raises(InvalidInputError) as error:
        Number(**{field: value})
    refuses(error, f"Number.{field}", value, "zero or more")


@pytest.mark.parametrize(
    ("share", "n_items", "allowed"),
    [
        (0.07, 100, 7),
        (0.29, 100, 29),
        (0.57, 100, 57),
        (0.1, 10, 1),
        (0.05, 19, 0),
        (0.05, 20, 1),
        (0.02, 49, 0),
        (0.5, 0, 0),
        (0.999, 1, 0),
    ],
)
def test_max_errors_floors_what_is_meant(
    share: float, n_items: int, allowed: int
) -> None:
    assert Guarantee(share).max_errors(n_items) == allowed


@given(st.integers(1, 9_999), st.integers(0, 100_000))
def test_max_errors_is_the_floor_of_the_decimal_product(
    digits: int, n_items: int
) -> None:
    text = f"0.{digits:04d}"
    assert Guarantee(float(text)).max_errors(n_items) == int(Fraction(text) * n_items)


def test_alpha_is_what_confidence_leaves() -> None:
    assert Guarantee(0.1, 0.9).alpha == pytest.approx(0.1)


@given(*[st.floats(0, 1e6)] * 4)
def test_cost_is_tokens_times_price_per_million(
    asked: float, said: float, dear: float, dearer: float
) -> None:
    cost = Price(input=dear, output=dearer).cost(Usage(asked, said))
    assert cost == pytest.approx(asked * dear / 1e6 + said * dearer / 1e6)


def test_free_models_cost_nothing_whatever_they_use() -> None:
    assert Price.free().cost(Usage(10**9, 10**9)) == 0
    assert Usage(120, 3).total_tokens == 123


def test_a_price_per_call_is_added_to_that_of_the_tokens() -> None:
    assert Price.per_call(0.25).cost(Usage(10**6, 10**6)) == 0.25
    assert Price(1, 2, call=0.5).cost(Usage(10**6, 10**6)) == 3.5
    assert Price.per_call(0) == Price.free()
