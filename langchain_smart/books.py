"""The books of a smart model: one ledger for it and for all its copies."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from smart_engine.certificate import Certificate, Spend
from smart_engine.report import Ledger, Report

__all__ = ["Books"]


class Books:
    """A ledger behind a lock.

    Args:
        models: Names of the models, reference first.
    """

    def __init__(self, models: list[str]) -> None:
        """Start with nothing spent."""
        self._ledger = Ledger(models)
        self._lock = threading.Lock()

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
