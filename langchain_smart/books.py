"""The books of a smart model: ledger and streams, for it and for all its copies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping

from langchain_smart.streams import Stream
from smart_engine.certificate import Certificate, Spend
from smart_engine.report import Ledger, Report
from smart_engine.stream.session import StreamSession

__all__ = ["Books"]


class Books:
    """A ledger behind a lock."""

    def __init__(self) -> None:
        """Start with nothing spent."""
        self._ledger = Ledger([])
        self._streams: dict[Hashable, Stream] = {}
        self._shadows: dict[Hashable, Stream] = {}
        self._lock = threading.Lock()

    def admit(self, models: Iterable[str]) -> None:
        """Keep books on these models, too."""
        with self._lock:
            self._ledger.admit(models)

    def enter(self, spend: Mapping[str, Spend]) -> None:
        """Enter what was spent outside a finished batch."""
        with self._lock:
            self._ledger.add(spend)

    def enter_batch(self, certificate: Certificate) -> None:
        """Enter a finished batch."""
        with self._lock:
            self._ledger.add_batch(certificate)

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
                streams[key] = Stream(begin())
            return streams[key]

    def report(self) -> Report:
        """Return the totals so far."""
        with self._lock:
            streams = [stream.state() for stream in self._streams.values()]
            shadows = [shadow.state() for shadow in self._shadows.values()]
            return self._ledger.report(streams, shadows)
