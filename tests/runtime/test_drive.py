"""A drive that an interrupt ends: every call made is booked, and no other is made."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextvars import copy_context
from functools import partial

import pytest

from smart_engine import BatchSession, Guarantee
from smart_engine.calls import Failure, Outcome
from smart_engine.runtime.drive import Caller, drive
from smart_engine.runtime.requester import Requester
from smart_engine.tiers import Tier

AT_ONCE = 4


class Interrupting(Caller, Requester):
    """Makes calls, and sends an interrupt while it makes a certain one."""

    def __init__(self, at):
        self.at, self.made, self.late = at, [], []
        self.ended = threading.Event()
        self.sent = threading.Event()

    def begin(self, item):
        return self, copy_context()

    abegin = None

    worst_case = joined = None

    def prepare(self, model, verb, *, shown):
        return partial(self.call, model)

    def result(self, model, answer):
        return Outcome(answer, cost=1.0)

    def call(self, model):
        (self.late if self.ended.is_set() else self.made).append(model)
        if len(self.made) == self.at and not self.sent.is_set():
            self.sent.set()
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.0005)
        return "yes"

    def retries(self, model):
        return 0

    def failed(self, model, pieces, error):
        return Failure(error)


def test_no_outcome_is_lost_whenever_the_interrupt_comes():
    for rounds in range(40):
        session = BatchSession(
            5000,
            [Tier("big", role="reference"), Tier("small")],
            Guarantee(0.05, 0.95),
            strategy="reference",
        )
        caller = Interrupting(at=20 + rounds)
        with pytest.raises(KeyboardInterrupt):
            drive(session, caller, AT_ONCE)
        caller.ended.set()
        spend = session.spend["big"]
        assert (spend.calls, spend.failures) == (len(caller.made), 0)
        assert not [t for t in threading.enumerate() if t.name.startswith("smart")]
        assert not caller.late
