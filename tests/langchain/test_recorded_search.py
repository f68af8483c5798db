"""`RecordedChatModel` finds what a plain search over all inputs would find."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from langchain_smart import Price, RecordedChatModel
from smart_engine import SmartError, Trace
from smart_engine.offline.traces import Row

TEXT = st.text("ab ", min_size=1, max_size=24)


def recorded(inputs: list[str]) -> RecordedChatModel:
    rows = [Row(input=t, answers={"big": t}, tokens={"big": (1, 1)}) for t in inputs]
    trace = Trace(rows, "big", [], {"big": Price.free()})
    return RecordedChatModel(trace=trace, model="big")


@given(st.lists(TEXT, min_size=1, max_size=12), TEXT, TEXT, st.data())
def test_the_longest_contained_input_is_found(inputs, before, after, data):
    prompt = before + data.draw(st.sampled_from(inputs)) + after
    found = recorded(inputs).invoke(prompt).content
    assert found in prompt
    assert len(found) == max(len(text) for text in inputs if text in prompt)


@given(st.lists(TEXT, min_size=1, max_size=12), TEXT)
def test_what_contains_no_input_is_an_error(inputs, prompt):
    assume(not any(text in prompt for text in inputs))
    with pytest.raises(SmartError, match="no recorded input"):
        recorded(inputs).invoke(prompt)
