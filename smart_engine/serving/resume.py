"""A batch that goes on where it was cut off: what had been bought is not bought again.

A session's course depends on its seed and on its outcomes, not on their order. So a new
session that gets the outcomes of an earlier one, call by call as it asks for them,
comes to where that one was, and ends as that one would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from smart_engine.calls import Call, Failure, Outcome
from smart_engine.equivalence.verdicts import Verdict, verdict_memory
from smart_engine.errors import UnkeptAnswerError
from smart_engine.serving.session import AnySession, Session, SessionWrapper
from smart_engine.warn import warn

__all__ = ["AnswerStore", "Resumed", "ResumedSession"]


class AnswerStore(Protocol):
    """The outcomes of one job, and the verdicts bought for it."""

    def seed(self, fresh: int) -> int:
        """Return the seed of the job's draws: the stored one, or this one from now on.

        Raises:
            StoreError: If it can be neither read nor written.
        """
        ...

    def load_outcomes(self) -> dict[Call, Outcome]:
        """Return the job's outcomes."""
        ...

    def save_outcome(self, call: Call, outcome: Outcome) -> None:
        """Store an outcome, durably once this returns, from any thread.

        Raises:
            UnkeptAnswerError: If this answer cannot be stored.
            StoreError: If no answer can.
        """
        ...

    def load_verdicts(self) -> dict[str, Verdict]:
        """Return the job's verdicts, by their keys."""
        ...

    def save_verdict(self, key: str, verdict: Verdict) -> None:
        """Store a verdict, durably once this returns.

        Raises:
            StoreError: If that is not possible.
        """
        ...


class Resumed:
    """A session that buys nothing that is stored, and stores the rest.

    Answers are stored before the session learns of them: as soon as they arrive, if
    the caller says so with `keep`. Calls that failed are not stored: they are made
    again. Where the store fails, a warning is given once and the session goes on
    without it: what is bought is still handed out. Where one answer cannot be written,
    a warning is given, too, and all others are stored.

    Args:
        session: What asks for calls.
        stored: What was bought for its job before; an attribute, too.
        firsts: Per item, the first one with the same request, under which its answers
            are stored, if requests are made once; see `RepeatedSession`.
    """

    waits = True  # for the store

    def __init__(
        self,
        session: Session,
        stored: AnswerStore,
        firsts: Sequence[int] | None = None,
    ) -> None:
        self._steps, self.stored, self._firsts = session, stored, firsts
        outcomes = stored.load_outcomes().items()
        self._outcomes = {self._place(call): outcome for call, outcome in outcomes}
        self._saved: set[Call] = set()
        self._problem: Exception | None = None
        self._unsaved: Exception | None = None
        self._warned: set[str] = set()

    @property
    def kept_all(self) -> bool:
        """Whether every answer so far is stored."""
        return self._problem is None and self._unsaved is None

    def next_calls(self) -> list[Call]:
        """Return the calls that have to be made now."""
        while calls := self._steps.next_calls():
            fresh = []
            for call in calls:
                outcome = self._outcomes.pop(self._place(call), None)
                if outcome is None:
                    fresh.append(call)
                else:
                    self._steps.record(call, outcome._replace(restored=True))
            if fresh:
                return fresh
        return []

    def keep(self, call: Call, outcome: Outcome | Failure) -> None:
        """Store an outcome that has just arrived; `record` it later, in its turn.

        Any thread may do so at once. It raises nothing: a store that fails costs no
        answer.
        """
        place = self._place(call)
        known = self._problem is not None or place in self._saved
        if known or not isinstance(outcome, Outcome):
            return
        try:
            self.stored.save_outcome(place, outcome)
        except UnkeptAnswerError as error:
            self._unsaved = error
        except Exception as error:  # noqa: BLE001 - warned of when it is recorded
            self._problem = error
            return
        self._saved.add(place)

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record an outcome, and store it if that was not done yet."""
        self.keep(call, outcome)
        for what, problem in (
            ("cannot be resumed", self._problem),
            ("will buy some answers again if it is resumed", self._unsaved),
        ):
            if problem is not None and what not in self._warned:
                self._warned.add(what)
                warn(f"the batch goes on, but {what}: {problem}")
        return self._steps.record(call, outcome)

    def _place(self, call: Call) -> Call:
        """Return the call under which the outcome of this one is stored."""
        item, model = call
        return Call(item if self._firsts is None else self._firsts[item], model)


class ResumedSession(Resumed, SessionWrapper):
    """A batch session that buys nothing that is stored, and stores the rest.

    What its rule buys in order to compare answers is stored, too.

    Args:
        session: A fresh session of the job.
        stored: What was bought for the job before.
        firsts: See `Resumed`.

    Example:
        ```python
        class Memory(dict):
            def load_outcomes(self):
                return dict(self)

            def save_outcome(self, call, outcome):
                self[call] = outcome

            def load_verdicts(self):
                return {}  # no rule here costs money


        from smart_engine import BatchSession, Tier

        stored = Memory()
        for bought in (500, 0):  # the second time, everything is there
            tiers = [Tier("big", role="reference"), Tier("small")]
            session = ResumedSession(BatchSession(500, tiers), stored)
            calls_made = 0
            while calls := session.next_calls():
                for call in calls:
                    session.record(call, Outcome("yes", cost=0.01))
                    calls_made += 1
            assert session.done
            assert (calls_made > 0) == (bought > 0)
        ```
    """

    def __init__(
        self,
        session: AnySession,
        stored: AnswerStore,
        firsts: Sequence[int] | None = None,
    ) -> None:
        Resumed.__init__(self, session, stored, firsts)
        SessionWrapper.__init__(self, session)
        self._verdicts = stored.load_verdicts()

    def next_calls(self) -> list[Call]:
        """Return the calls that have to be made now."""
        with verdict_memory(self):
            return super().next_calls()

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record an outcome, and store it if that was not done yet."""
        with verdict_memory(self):
            return super().record(call, outcome)

    def recall(self, key: str) -> Verdict | None:
        """Return a verdict that was bought before; its calls, but once."""
        verdict = self._verdicts.get(key)
        if verdict is not None:
            self._verdicts[key] = verdict._replace(calls=())
        return verdict

    def remember(self, key: str, verdict: Verdict) -> None:
        """Store a verdict that was bought now; a store that fails costs no verdict."""
        self._verdicts[key] = verdict._replace(calls=())
        if self._problem is None:
            try:
                self.stored.save_verdict(key, verdict)
            except Exception as error:  # noqa: BLE001 - warned of at the next record
                self._problem = error
