"""The books of smart models: ledger and streams, for them and for all their copies."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Self

from smart_engine.certificate import Certificate, Spend
from smart_engine.report import Ledger, Report
from smart_engine.serving.deciders import Stream
from smart_engine.serving.purse import Purse
from smart_engine.stream.session import StreamSession

__all__ = ["Books"]


class Books:
    """A ledger and streams that threads and tasks may use at once.

    A deep copy of a smart model keeps these books; one that was pickled starts new
    ones, for a stream's promise cannot be kept in two places.

    Args:
        lock: Makes a lock, such as `threading.Lock`; one guards the books and one each
            stream.
        models: Names of the models to keep books on.
    """

    def __init__(
        self,
        lock: Callable[[], AbstractContextManager[Any]],
        models: Iterable[str] = (),
    ) -> None:
        """Start with nothing spent."""
        self._new_lock = lock
        self._ledger = Ledger(list(models))
        self._streams: dict[Hashable, Stream] = {}
        self._shadows: dict[Hashable, Stream] = {}
        self._purses: dict[Hashable, Purse] = {}
        self._lock = lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return these books: there is one of them."""
        del memo
        return self

    def __reduce__(self) -> tuple[type[Books], tuple[Any, list[str]]]:
        """Return how to start new books."""
        return Books, (self._new_lock, list(self.report().spend))

    def admit(self, models: Iterable[str]) -> None:
        """Keep books on these models, too."""
        with self._lock:
            self._ledger.admit(models)

    def enter(self, spend: Mapping[str, Spend], restored: float = 0.0) -> None:
        """Enter what was spent outside a finished batch; see `Ledger.add`."""
        with self._lock:
            self._ledger.add(spend, restored)

    def itemise(self, spend: Mapping[str, Spend]) -> None:
        """Tell what models were asked inside tiers; their money is entered by tier."""
        with self._lock:
            self._ledger.itemise(spend)

    def enter_batch(self, certificate: Certificate, restored: float = 0.0) -> None:
        """Enter a finished batch; see `Ledger.add_batch`."""
        with self._lock:
            self._ledger.add_batch(certificate, restored)

    def stream(
        self, key: Hashable, begin: Callable[[], StreamSession], *, shadow: bool
    ) -> Stream:
        """Return the stream of a key.

        Args:
            key: All that a stream's promise rests on.
            begin: Makes its session, if there is none yet.
            shadow: Whether it is only tried.
        """
        with self._lock:
            streams = self._shadows if shadow else self._streams
            if key not in streams:
                streams[key] = Stream(begin(), self._new_lock())
            return streams[key]

    def purse(self, key: Hashable, limit: float) -> Purse:
        """Return the budget of a key; one is begun if there is none yet.

        Args:
            key: What the budget is for.
            limit: The budget in USD.
        """
        with self._lock:
            if key not in self._purses:
                self._purses[key] = Purse(limit, self._new_lock())
            return self._purses[key]

    def report(self) -> Report:
        """Return the totals so far."""
        with self._lock:
            streams = [stream.state() for stream in self._streams.values()]
            shadows = [shadow.state() for shadow in self._shadows.values()]
            return self._ledger.report(streams, shadows)
