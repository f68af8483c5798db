"""Pools of workers that are threads, and that a test can kill."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from smart_engine.runtime.blocks import Ended


def without_labels(certificate):
    """Return a certificate without what only answers show."""
    return certificate.model_copy(update={"labels": (), "compared": ()})


class KilledError(Exception):
    """The worker is gone, with what it had."""


class Threads:
    """A pool whose workers call `make(piece, stopped)`, which may raise `KilledError`.

    `make` returns columns, or columns and why no call may be made any more. `most` is
    the most that a call can cost.
    """

    most = None

    def __init__(self, make, workers=2):
        self.make, self.workers = make, workers
        self.pieces, self.lost = [], []
        self.stopped, self.left = threading.Event(), threading.Event()
        self._threads = ThreadPoolExecutor(workers, "worker")
        self._ended = SimpleQueue()
        self._flying = {}

    def submit(self, piece):
        self.pieces.append(piece)
        self._flying[piece.number] = piece
        self._threads.submit(self._run, piece)

    def _run(self, piece):
        try:
            made = self.make(piece, self.stopped)
        except KilledError as error:
            self.lost.append(piece)
            made = Ended(piece, None, lost=str(error))
        except Exception as error:  # noqa: BLE001 - of the pool itself
            made = error
        else:
            columns, error = made if isinstance(made, tuple) else (made, None)
            made = Ended(piece, columns, error=error)
        self._ended.put(made)

    def wait(self):
        while True:
            ended = self._ended.get()
            if isinstance(ended, BaseException):
                raise ended
            if self._flying.pop(ended.piece.number, None) is not None:
                return ended

    def worst_case(self, call):
        return self.most

    def stop(self):
        self.stopped.set()

    def close(self):
        """Let no worker outlive its driver."""
        self._threads.shutdown(cancel_futures=True)

    def leave(self):
        self.left.set()
        for piece in list(self._flying.values()):
            self._ended.put(Ended(piece, None, lost="left"))
