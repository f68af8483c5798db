"""Every kind of token at its own price, one call at a time, to the cent."""

from __future__ import annotations

import math
import pickle
import socket
import sys
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from smart_engine import (
    Failure,
    InvalidInputError,
    MissingExtraError,
    Outcome,
    Price,
    Usage,
)
from smart_engine.money.price_list import UnlistedError, listed_price
from smart_engine.serving.members import (
    Member,
    MissingUsageError,
    Named,
    find_members,
)

FULL = Price(
    input=3,
    output=15,
    cache_read=0.3,
    cache_write=3.75,
    cache_write_1h=6,
    input_audio=32,
    output_audio=64,
    reasoning=20,
    above={200_000: Price(6, 22.5, cache_read=0.6)},
)
PLAIN = Price(3, 15)


@pytest.mark.parametrize(
    ("usage", "full", "plain"),
    [
        # USD times a million: 1,000 tokens at 3, at .3, at 3.75, …
        (Usage(1000), 3000, 3000),
        (Usage(0, 1000), 15_000, 15_000),
        (Usage(1000, cache_read=1000), 300, 3000),
        (Usage(1000, cache_read=400), 600 * 3 + 400 * 0.3, 3000),
        (Usage(1000, cache_write=1000), 3750, 3000),
        (Usage(1000, cache_write=100, cache_write_1h=200), 2100 + 375 + 1200, 3000),
        (Usage(1000, input_audio=250), 750 * 3 + 250 * 32, 3000),
        (Usage(1000, cache_read=300, input_audio=250), 1350 + 90 + 8000, 3000),
        # Sound from the cache is billed as sound.
        (Usage(1000, cache_read=900, input_audio=250), 750 * 0.3 + 8000, 3000),
        (Usage(1000, cache_read=1000, input_audio=1000), 32_000, 3000),
        (Usage(0, 1000, reasoning=800), 200 * 15 + 800 * 20, 15_000),
        (Usage(0, 1000, output_audio=800), 200 * 15 + 800 * 64, 15_000),
        (Usage(0, 1000, output_audio=500, reasoning=500), 42_000, 15_000),
    ],
    ids=str,
)
def test_each_kind_of_token_has_its_price(usage, full, plain) -> None:
    assert usage.problem is None
    assert FULL.cost(usage) == pytest.approx(full / 1e6, rel=1e-12)
    assert PLAIN.cost(usage) == pytest.approx(plain / 1e6, rel=1e-12)


def test_writing_for_an_hour_costs_as_writing_if_no_price_is_given() -> None:
    price = Price(1, 1, cache_write=2)
    assert price.cost(Usage(1e6, cache_write_1h=1e6)) == pytest.approx(2)


@pytest.mark.parametrize(
    ("tokens", "cost"),
    [(199_999, 0.599997), (200_000, 0.6), (200_001, 1.200006), (1_000_000, 6.0)],
)
def test_a_tier_holds_for_the_whole_call_beyond_its_edge(tokens, cost) -> None:
    assert FULL.cost(Usage(tokens)) == pytest.approx(cost, rel=1e-12)


def test_the_highest_tier_that_is_passed_counts_in_whatever_order_they_are_given() -> (
    None
):
    price = Price(1, 1, above={100: Price(3, 3), 10: Price(2, 2)})
    costs = [price.cost(Usage(n)) * 1e6 / n for n in (10, 11, 100, 101)]
    assert costs == pytest.approx([1, 2, 2, 3])
    assert price.cost(Usage(11, 100, cache_read=11)) == pytest.approx(222e-6)


def test_many_small_calls_never_reach_a_tier() -> None:
    from smart_engine import BatchSession, Tier
    from smart_engine.money.spending import Spend

    one = FULL.cost(Usage(150_000))
    session = BatchSession(
        4, [Tier("big", role="reference"), Tier("c")], strategy="reference"
    )
    while calls := session.next_calls():
        for call in calls:
            session.record(call, Outcome("x", one, Usage(150_000)))
    spend = session.certificate.spend["big"]
    assert spend == Spend(calls=4, cost=4 * one, input_tokens=600_000)
    assert spend.cost == pytest.approx(4 * 0.45)


@pytest.mark.parametrize(
    ("usage", "problem"),
    [
        (Usage(-5, 1), "input_tokens is -5"),
        (Usage(1, math.nan), "output_tokens is nan"),
        (Usage(math.inf), "input_tokens is inf"),
        (Usage(10**400), f"input_tokens is {10**400}"),
        (Usage(1, 1e300), "output_tokens is 1e+300"),
        (Usage("7"), "input_tokens is '7'"),
        (Usage(None), "input_tokens is None"),
        (Usage(True), "input_tokens is True"),
        (Usage(10, cache_read=-1), "cache_read is -1"),
        (Usage(10, cache_read=11), "11 of 10 tokens are cached"),
        (Usage(10, cache_read=6, cache_write=5), "11 of 10 tokens are cached"),
        (Usage(10, input_audio=11), "11 of 10 tokens are input audio"),
        (Usage(10, 5, reasoning=6), "6 of 5 tokens are audio or reasoning"),
        (Usage(10, 5, 0, 0, 0, 0, 3, 3), "6 of 5 tokens are audio or reasoning"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_absurd_usage_is_no_money(usage, problem) -> None:
    assert usage.problem == problem
    with pytest.warns(UserWarning, match="reported no usage that can be priced"):
        failed = Member("m", None, PLAIN).outcome("x", usage)
    assert isinstance(failed, Failure)
    assert isinstance(failed.error, MissingUsageError)
    assert problem in str(failed.error)
    assert failed.cost == 0


GUESS = Usage(100, 2)
BAD = [None, Usage(-5, 1), Usage(0, 3), Usage(10, cache_read=11)]


@pytest.mark.parametrize("usage", BAD, ids=str)
def test_what_cannot_be_priced_is_estimated_where_it_is_allowed(usage) -> None:
    member = Member("m", None, PLAIN)
    asked = []

    def estimate() -> Usage:
        asked.append(usage)
        return GUESS

    result = member.outcome("x", usage, 0.5, estimate=estimate)
    assert result == Outcome("x", PLAIN.cost(GUESS), Usage(100, 2, estimated=True), 0.5)
    assert result.estimated == result.paid == result.cost
    told = member.outcome("x", Usage(7, 1), estimate=estimate)
    assert told.usage == Usage(7, 1)
    assert told.estimated == 0
    assert len(asked) == 1
    with pytest.warns(UserWarning, match="no usage that can be priced"):
        assert isinstance(member.outcome("x", usage), Failure)


def test_what_a_cache_answered_reads_nothing_and_costs_nothing() -> None:
    member = Member("m", None, PLAIN)
    assert member.outcome("x", Usage(), cached=True) == Outcome(
        "x", 0.0, Usage(), cached=True
    )
    guessed = member.outcome("x", None, cached=True, estimate=lambda: GUESS)
    assert guessed.cost == PLAIN.cost(GUESS)  # for plans
    assert (guessed.paid, guessed.estimated, guessed.usage) == (0, 0, Usage())


@pytest.mark.parametrize("usage", BAD, ids=str)
def test_who_charges_nothing_by_the_token_needs_no_usage(usage) -> None:
    for price in (Price.free(), Price.per_call(0.25)):
        result = Member("m", None, price).outcome("x", usage, estimate=lambda: GUESS)
        assert isinstance(result, Outcome)
        assert (result.cost, result.estimated) == (price.call, 0)
        absurd = usage is None or usage.problem is not None
        assert result.usage == (Usage() if absurd else usage)
    by_token = [PLAIN, FULL, Price(0, 0, reasoning=1), Price(0, 0, above={9: PLAIN})]
    for price in by_token:
        assert price.by_token
        assert price.most(10**6, 10**6) > 0
        with pytest.warns(UserWarning, match="no usage that can be priced"):
            assert isinstance(Member("m", None, price).outcome("x", usage), Failure)


def test_the_mark_is_no_count() -> None:
    assert Usage(1, 1, estimated=True).problem is None
    assert Usage(1, 1, estimated=True).total_tokens == 2


COUNTS = st.one_of(
    st.integers(-10, 2000),
    st.floats(),
    st.text(max_size=3),
    st.none(),
    st.booleans(),
    st.integers(),
)


def check_usage(counts) -> None:
    """A usage is money or a clear failure, whatever stands in it."""
    usage = Usage(*counts)
    for price in (FULL, PLAIN):
        if usage.problem is None and usage.input_tokens:
            cost = Member("m", None, price).outcome("x", usage).cost
            parts = (usage.input_tokens, usage.output_tokens)
            dearest = 32 * float(parts[0]) + 64 * float(parts[1])
            assert 0 <= cost <= dearest / 1e6 * (1 + 1e-9)
        else:
            with pytest.warns(UserWarning, match="no usage that can be priced"):
                assert isinstance(Member("m", None, price).outcome("x", usage), Failure)


@given(st.lists(COUNTS, max_size=8) | st.lists(st.integers(0, 99), max_size=8))
def test_any_usage_is_money_or_a_clear_failure(counts) -> None:
    check_usage(counts)


NO_PRICES = [-1, math.nan, math.inf, 10**400, "3", True]


@pytest.mark.parametrize(
    "field", ["cache_read", "cache_write", "cache_write_1h", "input_audio", "reasoning"]
)
@pytest.mark.parametrize("value", NO_PRICES, ids=lambda value: str(value)[:9])
def test_every_price_is_checked(field, value) -> None:
    with pytest.raises(InvalidInputError, match=r"Price\.free\(\)") as error:
        Price(1, 1, **{field: value})
    assert error.value.field == f"Price.{field}"


@pytest.mark.parametrize(
    "above", [None, 7, {0: PLAIN}, {-1: PLAIN}, {"a": PLAIN}, {9: 1.0}, {9: FULL}]
)
def test_tiers_are_checked(above) -> None:
    with pytest.raises(InvalidInputError, match="per number of tokens") as error:
        Price(1, 1, above=above)
    assert error.value.field == "Price.above"


@pytest.mark.parametrize(
    "tiers",
    [
        *(None, 7, {"": PLAIN}, {1: PLAIN}, {"flex": 1.0}, {"default": PLAIN}),
        {"flex": Price(1, 1, tiers={"batch": PLAIN})},
    ],
    ids=str,
)
def test_service_tiers_are_checked(tiers) -> None:
    with pytest.raises(InvalidInputError, match="per service tier") as error:
        Price(1, 1, tiers=tiers)
    assert error.value.field == "Price.tiers"


def test_a_service_tier_may_be_dearer_for_long_calls() -> None:
    price = Price(1, 1, tiers={"priority": Price(2, 2, above={10: Price(3, 3)})})
    assert price.by_token
    assert Price(0, 0, tiers={"priority": PLAIN}).by_token
    assert price.at("priority").cost(Usage(11)) == pytest.approx(33e-6)
    assert price.most(11, 1) == pytest.approx(36e-6)
    assert price.cost(Usage(11)) == pytest.approx(11e-6)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("smal", "did you mean 'small'?"),
        ("Small", "did you mean 'small'?"),
        ("another", "and 'small' has no price: name big, big-1, small"),
    ],
)
def test_a_price_for_no_model_is_an_error_where_a_model_has_none(key, hint) -> None:
    with pytest.raises(InvalidInputError) as error:
        members({"big": PLAIN, key: PLAIN}, official="big-1")
    assert (error.value.field, error.value.value) == ("prices", key)
    assert hint in str(error.value)
    # A table of prices may be shared.
    assert members({"big-1": PLAIN, "small": PLAIN, key: PLAIN}, official="big-1")


def test_a_misspelt_price_is_named_before_the_model_that_has_none() -> None:
    with pytest.raises(InvalidInputError, match=r"'smal': .*mean 'small'"):
        members({"big": PLAIN, "smal": PLAIN})


def test_a_price_is_a_value() -> None:
    again = (deepcopy(FULL), pickle.loads(pickle.dumps(FULL)))  # noqa: S301 - our own
    assert again == (FULL, FULL)
    assert len({FULL, *again, PLAIN}) == 2
    read = TypeAdapter(dict[str, Price])
    assert read.validate_python({"m": FULL}) == {"m": FULL}
    assert read.validate_json(read.dump_json({"m": FULL})) == {"m": FULL}


# -- the list ---------------------------------------------------------------------


@pytest.fixture
def listed(monkeypatch):
    """Put a price list of our own in place of the package's."""
    from genai_prices import data_snapshot
    from genai_prices.types import ClauseEquals, ModelInfo, Provider

    def put(**prices) -> None:
        models = [
            ModelInfo(id=name, match=ClauseEquals(equals=name), prices=price)
            for name, price in prices.items()
        ]
        pattern = "https://acme"
        acme = Provider(id="acme", name="A", api_pattern=pattern, models=models)
        snapshot = data_snapshot.DataSnapshot([acme], from_auto_update=False)
        monkeypatch.setattr(data_snapshot, "_custom_snapshot", snapshot)

    return put


def test_every_listed_kind_is_taken_over(listed) -> None:
    from genai_prices.types import ModelPrice, Tier, TieredPrices

    def tiers(base, *dearer):
        starts = zip((1000, 9000), dearer, strict=False)
        return TieredPrices(
            base=Decimal(base), tiers=[Tier(s, Decimal(p)) for s, p in starts]
        )

    listed(
        big=ModelPrice(
            input_mtok=tiers("1.25", "2.5"),
            output_mtok=tiers("10", "15", "20"),
            cache_read_mtok=Decimal("0.125"),
            cache_write_mtok=Decimal("1.5"),
            cache_write_1h_mtok=Decimal(3),
            output_reasoning_mtok=Decimal(12),
            web_searches_kcount=Decimal(10),
        ),
        sound=ModelPrice(
            input_mtok=Decimal(4),
            output_mtok=Decimal(16),
            cache_read_mtok=Decimal("0.4"),
            input_audio_mtok=Decimal(32),
            output_audio_mtok=Decimal(64),
            cache_audio_read_mtok=Decimal("0.5"),
        ),
    )
    shared = {"cache_read": 0.125, "cache_write": 1.5, "cache_write_1h": 3.0}
    shared["reasoning"] = 12.0
    above = {1000: Price(2.5, 15.0, **shared), 9000: Price(2.5, 20.0, **shared)}
    assert listed_price("big", "acme") == Price(1.25, 10.0, **shared, above=above)
    sound = Price(4, 16, cache_read=0.4, input_audio=32, output_audio=64)
    assert listed_price("sound", "acme") == sound


def test_what_cannot_be_said_for_sure_is_refused(listed) -> None:
    from datetime import time

    from genai_prices.types import (
        ConditionalPrice,
        ModelPrice,
        Tier,
        TieredPrices,
        TimeOfDateConstraint,
    )

    one = Decimal(1)
    plain = ModelPrice(input_mtok=one, output_mtok=one)
    night = TimeOfDateConstraint(start_time=time(1), end_time=time(2))
    listed(
        gratis=ModelPrice(),
        zero=ModelPrice(input_mtok=Decimal(0), output_mtok=Decimal(0)),
        half=ModelPrice(input_mtok=one),
        begun=ModelPrice(
            input_mtok=TieredPrices(base=Decimal(0), tiers=[Tier(1000, one)]),
            output_mtok=one,
        ),
        below=ModelPrice(input_mtok=Decimal(-1), output_mtok=one),
        counted=ModelPrice(input_mtok=one, output_mtok=one, requests_kcount=one),
        nightly=[
            ConditionalPrice(prices=plain),
            ConditionalPrice(night, prices=plain),
        ],
    )
    for name, problem in {
        "gratis": "without a price for all tokens",
        "zero": "without a price for all tokens",
        "half": "without a price for all tokens",
        "begun": "without a price for all tokens",
        "below": "a price that is none",
        "counted": "also billed by requests_kcount",
        "nightly": "changes with the time of day",
        "unheard-of": "no 'unheard-of' of 'acme'",
    }.items():
        with pytest.raises(UnlistedError, match=problem):
            listed_price(name, "acme")
    with pytest.raises(UnlistedError, match="of 'somebody'"):
        listed_price("zero", "somebody")


def test_the_packages_own_list_is_read_without_a_network(monkeypatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    dated = listed_price("gpt-4o-2024-08-06", "openai")
    assert replace(dated, tiers={}) == Price(2.5, 10.0, cache_read=1.25)
    priority = replace(dated.at("priority"), tiers={})
    assert priority == Price(4.25, 17.0, cache_read=2.125)
    assert dated.at("batch") == Price(
        1.25, 5.0, cache_read=dated.at("batch").cache_read
    )
    assert dated.most(100, 10) == dated.at("priority").most(100, 10)
    assert listed_price("gpt-4o", "openai") == dated
    with pytest.raises(UnlistedError):
        listed_price("gpt-4o-2031-01-01", "openai")
    sonnet = listed_price("claude-sonnet-4-5-20250929", "anthropic")
    assert sonnet.cost(Usage(200_000)) == pytest.approx(0.6)
    assert sonnet.cost(Usage(200_001)) == pytest.approx(1.200006)


def members(prices, **named):
    """Find two members by name and provider."""
    given_models = {"big": Named("big", 1, **named), "small": Named("small", 2)}
    return find_members("big", ["small"], prices, lambda _, name: given_models[name])


def test_the_users_price_comes_first_then_the_list_then_an_error(listed) -> None:
    from genai_prices.types import ModelPrice

    listed(**{"big-1": ModelPrice(input_mtok=Decimal(2), output_mtok=Decimal(8))})
    known = {"official": "big-1", "provider": "acme"}
    small = {"small": Price.free()}
    assert members(small, **known)[0].price == Price(2, 8)
    assert members({"big": PLAIN, **small}, **known)[0].price == PLAIN
    assert members({"big-1": PLAIN, **small}, **known)[0].price == PLAIN
    for named, problem in [
        ({"official": "big-2", "provider": "acme"}, "no 'big-2' of 'acme': add prices"),
        ({"official": "big-1"}, "no price is known: add prices"),
        ({}, "no price is known: add prices"),
    ]:
        with pytest.raises(InvalidInputError, match=problem) as error:
            members(small, **named)
        assert error.value.field == "prices"
        assert "{'big': Price(input=…, output=…)}" in str(error.value)
        assert "Price.free()" in str(error.value)


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    with pytest.raises(MissingExtraError, match=r"smart-llm\[prices\]"):
        listed_price("gpt-4o", "openai")
    known = {"official": "gpt-4o", "provider": "openai"}
    with pytest.raises(InvalidInputError, match=r"smart-llm\[prices\]") as error:
        members({"small": PLAIN}, **known)
    assert "add prices={'big'" in str(error.value)
    assert members({"big": PLAIN, "small": PLAIN}, **known)[0].price == PLAIN


@given(
    st.text(max_size=20) | st.sampled_from(["gpt-4o", "GPT-5", "a/b"]),
    st.sampled_from(["openai", "litellm", "ollama", "azure"]) | st.text(max_size=9),
)
def test_any_name_is_listed_or_refused(model, provider) -> None:
    with suppress(UnlistedError):
        assert listed_price(model, provider).input > 0
