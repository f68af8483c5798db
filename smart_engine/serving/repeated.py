"""Batches whose items repeat: a request is put to a model once, and all get its answer.

Every item still has a record of its own and counts in the guarantee as any other; only
the call is left out. What a shared answer would have cost is recorded with it, as for
one from a cache, so that no plan takes its model for free. A failure is shared with
nobody: others that wait for the same answer are asked then, the more at once the more
have failed, so that a model that always fails delays nothing for long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from smart_engine.calls import Call, Failure, Outcome
from smart_engine.money.pricing import Usage
from smart_engine.serving.session import AnySession, Session, SessionWrapper

__all__ = ["Repeated", "RepeatedSession", "always_alike", "first_places"]


def first_places(requests: Iterable[Hashable]) -> list[int] | None:
    """Return per item the first one with the same request; None if all differ.

    Example:
        ```python
        assert first_places(["a", "b", "a"]) == [0, 1, 0]
        assert first_places(["a", "b"]) is None
        ```
    """
    places: dict[Hashable, int] = {}
    firsts = [places.setdefault(each, place) for place, each in enumerate(requests)]
    return firsts if len(places) < len(firsts) else None


def always_alike(settings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a model is known to be asked at temperature 0.

    Args:
        settings: Where settings of a call stand, those that take precedence first.

    Example:
        ```python
        assert always_alike([{}, {"temperature": 0}, {"temperature": 0.7}])
        assert not always_alike([{"top_p": 1}])
        ```
    """
    stated = [t for place in settings if (t := place.get("temperature")) is not None]
    bodies = [place.get("extra_body") or {} for place in settings]
    return stated[:1] == [0] and not any(body.get("temperature") for body in bodies)


@dataclass(slots=True)
class _Asked:
    """What is known of one request to one model."""

    answer: Outcome | None = None
    in_flight: int = 0
    failures: int = 0
    waiting: deque[Call] = field(default_factory=deque)

    @property
    def free(self) -> bool:
        """Whether one more call may be made."""
        return self.in_flight < max(1, self.failures)


class Repeated:
    """A session that puts a request to a model once.

    Args:
        session: What asks for calls.
        firsts: Per item, the first one with the same request.
    """

    waits = True  # thousands of items may be recorded in one step

    def __init__(self, session: Session, firsts: Sequence[int]) -> None:
        self._steps, self._firsts = session, firsts
        self._asked: dict[Call, _Asked] = {}
        self._ready: list[Call] = []

    def next_calls(self) -> list[Call]:
        """Return the calls that have to be made now."""
        ready, self._ready = self._ready, []
        while not ready and (calls := self._steps.next_calls()):
            for call in calls:
                asked = self._of(call)
                if asked.answer is not None:
                    self._share(call, asked.answer)
                elif asked.free:
                    asked.in_flight += 1
                    ready.append(call)
                else:
                    asked.waiting.append(call)
        return ready

    def keep(self, call: Call, outcome: Outcome | Failure) -> None:
        """Store an outcome that has just arrived."""
        self._steps.keep(call, outcome)

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record an outcome, and an answer for all items that wait for it."""
        error = self._steps.record(call, outcome)
        asked = self._of(call)
        asked.in_flight -= 1
        if isinstance(outcome, Outcome):
            asked.answer = outcome
            while asked.waiting:
                self._share(asked.waiting.popleft(), outcome)
        else:
            asked.failures += 1
            while asked.waiting and asked.free:
                asked.in_flight += 1
                self._ready.append(asked.waiting.popleft())
        return error

    def _of(self, call: Call) -> _Asked:
        request = Call(self._firsts[call.item], call.tier)
        return self._asked.setdefault(request, _Asked())

    def _share(self, call: Call, outcome: Outcome) -> None:
        """Record an answer for another item with the same request."""
        shared = outcome._replace(
            answer=_copied(outcome.answer),
            usage=Usage(),
            cached=True,
            restored=False,
            timing=None,
            unknown=None,
            earlier=(),
        )
        self._steps.record(call, shared)


class RepeatedSession(Repeated, SessionWrapper):
    """A batch session that puts a request to a model once.

    Args:
        session: The session.
        firsts: Per item, the first one with the same request.

    Example:
        ```python
        from smart_engine import BatchSession, Tier

        firsts = first_places(["the same"] * 500)
        tiers = [Tier("big", role="reference"), Tier("small")]
        session = RepeatedSession(BatchSession(500, tiers, firsts=firsts), firsts)
        made = []
        while calls := session.next_calls():
            for call in calls:
                session.record(call, Outcome("yes", cost=0.01))
                made.append(call.tier)
        assert sorted(made) == ["big", "small"]
        assert len(session.answers) == 500
        ```
    """

    def __init__(self, session: AnySession, firsts: Sequence[int]) -> None:
        Repeated.__init__(self, session, firsts)
        SessionWrapper.__init__(self, session)

    def stop(
        self, unmade: Iterable[Call], why: BaseException, *, strict: bool = False
    ) -> None:
        """End the session here; items that wait for an answer get none."""
        waiting = [call for asked in self._asked.values() for call in asked.waiting]
        unmade = [*unmade, *self._ready, *waiting]
        self._session.stop(unmade, why, strict=strict)


def _copied(answer: Any) -> Any:
    """Return an answer that can be changed without changing another's, if possible."""
    try:
        return deepcopy(answer)
    except Exception:  # noqa: BLE001 - a user's class may raise anything
        return answer
