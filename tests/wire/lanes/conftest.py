"""Batches are looked at again at once."""

from __future__ import annotations

import pytest

from smart_engine.runtime.lanes.dispatcher import Pace


@pytest.fixture(autouse=True)
def _looks_follow_each_other_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    short = {"first": 0.001, "longest": 0.001, "unlisted": 0.001}
    pace = Pace(**short, missing=0.05, patience=5)
    monkeypatch.setattr("smart_engine.runtime.lanes.members.PACE", pace)
