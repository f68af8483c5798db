"""Whatever a price is made of, it is a price or a clear error, never a wrong sum."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
from fuzzing import MANY, MINUTES, VALUES, fuzz
from hypothesis import strategies as st

from smart_engine import InvalidInputError, Price, Usage
from smart_engine.money.price_list import listed_price

pytestmark = [MANY, MINUTES]

KINDS = ("cache_read", "cache_write", "cache_write_1h", "input_audio", "output_audio")
NAMES = ("input", "output", *KINDS, "reasoning", "call")
FIELDS = st.sampled_from([*NAMES, "above"])
ABOVE = st.dictionaries(
    st.integers(-1, 10**6) | st.sampled_from([True, 0.5, "a", 10**400]),
    st.builds(Price, st.integers(0, 99), st.just(3)) | VALUES,
    max_size=3,
)
GOOD = st.floats(0, 1e6) | st.integers(0, 10**6)
FOREIGN = [10**400, Decimal(1), Fraction(1, 3), np.float32(1), np.int64(1), 1j, b"1"]
ANY = GOOD | VALUES | st.sampled_from(FOREIGN)
COUNTS = st.integers(0, 9) | ANY


def test_prices(inputs) -> None:
    def read(chosen) -> None:
        settings, counts = chosen
        price = Price(**{"input": 1, "output": 2, **settings})
        assert price.most(1000, 10) >= 0
        usage = Usage(*counts)
        if usage.problem is not None:
            raise InvalidInputError("usage", counts, usage.problem)
        assert price.cost(usage) >= 0

    given = st.dictionaries(st.sampled_from(NAMES), GOOD | ANY, max_size=3)
    above = st.builds(lambda told, table: {**told, "above": table}, given, ABOVE | ANY)
    fuzz(inputs, st.tuples(given | above, st.lists(COUNTS, max_size=8)), read)


def test_price_lists(inputs, monkeypatch) -> None:
    from genai_prices import data_snapshot
    from genai_prices.types import (
        ClauseEquals,
        ModelInfo,
        ModelPrice,
        Provider,
        Tier,
        TieredPrices,
    )

    numbers = st.decimals(allow_nan=True) | st.decimals(0, 100, places=3)
    tiers = st.builds(Tier, st.integers(-1, 10**6), numbers)
    tiered = st.builds(TieredPrices, numbers, st.lists(tiers, max_size=3))
    kinds = ["input_mtok", "output_mtok", "cache_read_mtok", "output_audio_mtok"]
    kinds += ["output_reasoning_mtok", "requests_kcount", "web_searches_kcount"]
    prices = st.dictionaries(st.sampled_from(kinds), numbers | tiered)
    whole = st.fixed_dictionaries(dict.fromkeys(kinds[:2], numbers | tiered))

    def read(chosen) -> None:
        match = ClauseEquals(equals="big")
        model = ModelInfo(id="big", match=match, prices=ModelPrice(**chosen))
        acme = Provider(id="acme", name="A", api_pattern="https://a", models=[model])
        snapshot = data_snapshot.DataSnapshot([acme], from_auto_update=False)
        monkeypatch.setattr(data_snapshot, "_custom_snapshot", snapshot)
        price = listed_price("big", "acme")
        for each in (price, *price.above.values()):
            assert 0 < each.input < math.inf
            assert 0 < each.output < math.inf

    fuzz(inputs, prices | whole, read)
