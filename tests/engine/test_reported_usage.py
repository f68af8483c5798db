"""A usage is booked at the larger of its readings: its parts, or its total."""

from __future__ import annotations

import math
from fractions import Fraction
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smart_engine import Price, Usage
from smart_engine.money.usage import reported_usage

OPENAI = {"prompt_tokens": 90, "completion_tokens": 25}
GEMINI = {
    "prompt_token_count": 90,
    "candidates_token_count": 5,
    "thoughts_token_count": 20,
}


def openai(total, reasoning=0, **more):
    """Return a usage in OpenAI's form."""
    details = {"reasoning_tokens": reasoning}
    table = {**OPENAI, "completion_tokens_details": details, **more}
    return table if total is None else {**table, "total_tokens": total}


@pytest.mark.parametrize(
    ("reported", "used"),
    [
        # xAI counts reasoning beside the completion, OpenAI within it.
        (openai(165, 50), Usage(90, 75, reasoning=50)),
        (openai(125, 10), Usage(90, 35, reasoning=10)),
        (openai(115, 10), Usage(90, 25, reasoning=10)),
        (openai(165), Usage(90, 75, reasoning=50)),
        (openai(100, 10), Usage(90, 25, reasoning=10)),
        (openai(0, 10), Usage(90, 25, reasoning=10)),
        (openai(math.nan), Usage(90, 25)),
        (openai("165"), Usage(90, 25)),
        (openai(True), Usage(90, 25)),
        # LangChain's form of the same.
        (
            {
                "input_tokens": 90,
                "output_tokens": 25,
                "total_tokens": 165,
                "output_token_details": {"reasoning": 50},
            },
            Usage(90, 75, reasoning=50),
        ),
        # What is cached beside the input is in a total that contains it, too.
        (
            {
                "input_tokens": 30,
                "output_tokens": 25,
                "cache_read_input_tokens": 40,
                "cache_creation_input_tokens": 20,
                "total_tokens": 115,
            },
            Usage(90, 25, cache_read=40, cache_write=20),
        ),
        # Gemini's total contains thoughts and what its tools read.
        ({**GEMINI, "total_token_count": 115}, Usage(90, 25, reasoning=20)),
        (
            {**GEMINI, "tool_use_prompt_token_count": 7, "total_token_count": 122},
            Usage(97, 25, reasoning=20),
        ),
        (
            {**GEMINI, "candidates_token_count": None, "total_token_count": 110},
            Usage(90, 20, reasoning=20),
        ),
        (
            SimpleNamespace(prompt_token_count=90, total_token_count=95),
            Usage(90, 5, reasoning=5),
        ),
        ({"prompt_token_count": 90}, None),
        ({"prompt_tokens": 90, "total_tokens": 0}, None),
        ({"total_tokens": 90}, None),
    ],
    ids=str,
)
def test_the_larger_reading_counts(reported, used) -> None:
    assert reported_usage(reported) == used


@pytest.mark.parametrize("total", [10**400, math.inf, 2**60])
def test_an_absurd_total_cannot_be_priced(total) -> None:
    usage = reported_usage(openai(total))
    assert usage.problem is not None
    assert usage.problem.startswith("output_tokens is")


COUNTS = st.one_of(
    st.integers(0, 300),
    st.floats(0, 300, width=32),  # the cost of less would be no float
    st.none(),
    st.sampled_from([10**400, -(10**400), -1, math.nan, math.inf, 1.5, True, "9"]),
    st.sampled_from([Fraction(1, 3)]),
)
NAMES = {
    "OpenAI": ("prompt_tokens", "completion_tokens", "total_tokens"),
    "LangChain": ("input_tokens", "output_tokens", "total_tokens"),
    "Gemini": ("prompt_token_count", "candidates_token_count", "total_token_count"),
}
BESIDE = {
    "Gemini": ("thoughts_token_count", "tool_use_prompt_token_count"),
    "LangChain": ("cache_read_input_tokens", "cache_creation_input_tokens"),
}
PRICE = Price(3, 15)


def number(value) -> float:
    """Return a count that can be read, else nothing."""
    plain = isinstance(value, int | float | Fraction) and not isinstance(value, bool)
    if not plain or value != value:
        return 0
    if abs(value) < 1e300:
        return value
    return math.inf if value > 0 else -math.inf


@given(
    st.sampled_from(list(NAMES)),
    st.tuples(COUNTS, COUNTS, COUNTS),
    st.tuples(COUNTS, COUNTS),
    st.integers(0, 300) | st.none(),
)
def test_no_usage_is_booked_below_any_of_its_readings(
    form, counts, more, reasoning
) -> None:
    table = dict(zip(NAMES[form], counts, strict=True))
    table |= dict(zip(BESIDE.get(form, ()), more, strict=False))
    table["output_token_details"] = {"reasoning": reasoning}
    usage = reported_usage(table)
    if usage is None or usage.problem is not None:
        return  # no cost: the call is reported as one without a usage
    sent, said, total = map(number, counts)
    parts = [max(0, number(table.get(name))) for name in BESIDE.get(form, ())]
    close = 1 - 1e-9  # sums of floats
    assert usage.input_tokens >= sent * close
    assert usage.output_tokens >= said * close
    assert usage.reasoning >= (reasoning or 0) or form == "Gemini"
    assert usage.total_tokens >= (sent + said + sum(parts)) * close
    assert usage.total_tokens >= total * close
    cost = PRICE.cost(usage) * 1e6
    # What the total has more than the prompt was generated.
    assert cost >= (3 * sent + 15 * said) * close
    beside = sum(parts)
    assert cost >= (3 * (sent + beside) + 15 * (total - sent - beside)) * close


@given(st.integers(1, 999), st.integers(0, 999), st.integers(0, 999))
def test_reasoning_beside_the_answer_is_billed_as_output(sent, said, thought) -> None:
    total = sent + said + thought
    table = {"prompt_tokens": sent, "completion_tokens": said, "total_tokens": total}
    table["completion_tokens_details"] = {"reasoning_tokens": thought}
    usage = reported_usage(table)
    assert usage == Usage(sent, said + thought, reasoning=thought)
    assert usage.problem is None
