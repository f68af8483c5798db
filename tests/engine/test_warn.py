"""Warnings name the line of the user's that led to them, not one of ours."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

from smart_engine.equivalence import Judged
from smart_engine.equivalence.rule import agree
from smart_engine.warn import warn


def broken(left, right):
    raise ZeroDivisionError


def test_a_warning_names_the_line_that_called_us():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        agree(Judged(broken), "yes", "no")
    (one,) = caught
    assert one.filename == __file__
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert "agree(" in lines[one.lineno - 1]


def test_in_a_thread_of_ours_a_warning_names_no_line_of_ours():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thread = threading.Thread(target=warn, args=("nothing limits it",))
        thread.start()
        thread.join()
    (one,) = caught
    assert one.filename.strip("<>") == "sys"
