"""The books of a smart model: one ledger for it and for all its copies."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from smart_engine.certificate import Certificate, Spend
from smart_engine.report import Ledger, Report

__all__ = ["Books"]


class Books:
    """A ledger behind a lock."""

    def __init__(self) -> None:
        """Start with nothing spent."""
        self._ledger = Ledger([])
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

    def report(self) -> Report:
        """Return the totals so far."""
        with self._lock:
            return self._ledger.report()
