"""What a smart model and its copies share: ledger, streams, budgets, certificates."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Self

from smart_engine.batch.certificate import Certificate
from smart_engine.batch.self_agreement import SelfAgreement
from smart_engine.equivalence import Equivalence
from smart_engine.jobs.task import Task
from smart_engine.money.budget import Budget
from smart_engine.money.ledger import ROWS, Ledger, LedgerEntries, LedgerScope
from smart_engine.money.spending import Spend
from smart_engine.offline.estimate import Estimate
from smart_engine.report.report import EarlierBatches, Report
from smart_engine.row import StreamRow
from smart_engine.serving.shared import SharedStream, SharedTask
from smart_engine.stream.drift import Drift
from smart_engine.stream.session import StreamSession
from smart_engine.warn import warn

__all__ = ["Books"]

_AWAKE = 100
"""Number of streams at most that take all of their memory, if no item is open."""

_CERTIFICATES = 1000
"""Number of certificates that stay, the newest ones; there are sums of all."""

_UNNAMED = 20
"""Number of tasks without a name of the user's that are too many."""


class Books:
    """A ledger, streams and budgets that threads and tasks may use at once.

    A deep copy of a smart model shares them; a pickled one starts without any, for a
    stream's guarantee holds in two processes only through a store.

    Args:
        lock: Makes a lock, such as `threading.Lock`; one guards the ledger and one each
            stream.
        models: Names of the models, in the order of reports.
        rows: Calls that the ledger keeps one by one, the newest ones; it keeps sums of
            all.
        process: Number of the process that they are of, if that matters.

    Attributes:
        new_lock: Makes a lock, of the same kind.
    """

    def __init__(
        self,
        lock: Callable[[], AbstractContextManager[Any]],
        models: Iterable[str] = (),
        rows: int = ROWS,
        process: int | None = None,
    ) -> None:
        self.new_lock, self._kept, self._process = lock, rows, process
        self._lock = lock()
        self._entries = LedgerEntries(rows, self._lock, self.say_once)
        self._begin(models)

    def _begin(self, models: Iterable[str]) -> None:
        """Start with nothing spent."""
        self._entries.begin()
        self._served: dict[str, int] = dict.fromkeys(models, 0)
        self._certificates: deque[Certificate] = deque()
        self._earlier = EarlierBatches()
        self._arrived: Counter[str] = Counter()
        self._batches = 0
        self._streams: dict[Hashable, SharedStream] = {}
        self._shadows: dict[Hashable, SharedStream] = {}
        self._tasks: dict[Hashable, SharedTask] = {}
        self._budgets: dict[Hashable, Budget] = {}
        self._noise: dict[Hashable, SelfAgreement] = {}
        self._estimates: dict[str | None, Estimate] = {}
        self._warned: set[str] = set()
        self._unnamed: set[str] = set()
        self._labels: dict[str, str] = {}
        self._awake: dict[SharedStream, None] = {}  # the last used one comes last

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: copies share it."""
        del memo
        return self

    def __reduce__(self) -> tuple[type[Books], tuple[Any, ...]]:
        """Return how to start without any entry."""
        with self._lock:
            told = (self.new_lock, list(self._served), self._kept, self._process)
            return Books, told

    def enter_process(self, process: int) -> bool:
        """Start anew if these are a copy in another process, and return whether so.

        A forked child would draw as its parent does, and might have a copy that was
        made in the middle of a step.
        """
        with self._lock:
            moved = self._process not in (None, process)
            if moved:
                self._begin(list(self._served))
            self._process = process
            return moved

    def admit(self, models: Iterable[str]) -> None:
        """Add models; reports list models in this order."""
        with self._lock:
            for name in models:
                self._served.setdefault(name, 0)

    def batch(self, reference: str, task: str) -> LedgerScope:
        """Return where the calls of a batch that begins now are entered.

        Args:
            reference: Name of the reference.
            task: Name of the task.
        """
        with self._lock:
            self._batches += 1
            return LedgerScope(self._entries, reference, task, self._batches)

    def item(self, reference: str, task: str) -> tuple[LedgerScope, int]:
        """Return where the calls of a single item are entered, and its number.

        Args:
            reference: Name of the reference.
            task: Name of the task.
        """
        with self._lock:
            number = self._arrived[task]
            self._arrived[task] += 1
        return LedgerScope(self._entries, reference, task), number

    def say_once(self, text: str) -> None:
        """Warn, unless the same was said before."""
        with self._lock:
            said = text in self._warned
            self._warned.add(text)
        if not said:
            warn(text)

    def end_batch(self, scope: LedgerScope, certificate: Certificate) -> None:
        """Enter how a batch has ended; its calls are entered already.

        Args:
            scope: Where they were entered.
            certificate: What follows.
        """
        with self._lock:
            for name, count in certificate.served.items():
                self._served[name] += count
            self._certificates.append(certificate)
            if len(self._certificates) > _CERTIFICATES:
                self._earlier = self._earlier.plus(self._certificates.popleft())
            if scope.batch is not None:
                self._entries.end_batch(scope.batch, certificate.id)

    def stream(
        self,
        key: Hashable,
        begin: Callable[[], StreamSession],
        *,
        shadow: bool,
        row: Callable[[], StreamRow] | None = None,
        on_drift: Callable[[Drift], None] | None = None,
    ) -> SharedStream:
        """Return the stream of a key.

        Args:
            key: All that a stream's promise rests on.
            begin: Makes its session, if there is none yet.
            shadow: Whether it is only tried.
            row: Returns where other processes share it, if they do.
            on_drift: Is told where its recent errors leave its past.
        """
        with self._lock:
            streams = self._shadows if shadow else self._streams
            if key not in streams:
                stored = None if row is None else row()
                lock = self.new_lock()
                streams[key] = SharedStream(begin, lock, stored, on_drift)
            stream = streams[key]
            self._awake.pop(stream, None)
            self._awake[stream] = None
            unused = next(iter(self._awake)) if len(self._awake) > _AWAKE else None
            if unused is not None:
                del self._awake[unused]
        if unused is not None and not unused.rest():
            with self._lock:
                self._awake.setdefault(unused)
        return stream

    def label(self, task: str, stream: str) -> str:
        """Return how reports name a stream: as its task, or as itself beside another.

        Args:
            task: Name of the task.
            stream: What tells its stream from others of that name.
        """
        with self._lock:
            first = self._labels.setdefault(task, stream)
        return task if first == stream else stream

    def task(
        self, key: Hashable, begin: Callable[[], Task], row: StreamRow | None
    ) -> SharedTask:
        """Return the task of a key, whose jobs share one promise.

        Args:
            key: All that its promise rests on.
            begin: Begins it, if there is none yet.
            row: Where other processes share it, if they do.
        """
        with self._lock:
            if key not in self._tasks:
                self._tasks[key] = SharedTask(begin, self.new_lock(), row)
            return self._tasks[key]

    def is_last_unnamed(self, task: str) -> bool:
        """Count a task that the user did not name; return whether it is one too many.

        That is returned once.
        """
        with self._lock:
            if len(self._unnamed) == _UNNAMED or task in self._unnamed:
                return False
            self._unnamed.add(task)
            return len(self._unnamed) == _UNNAMED

    def budget(
        self,
        key: Hashable,
        limit: float,
        row: Callable[[], StreamRow] | None = None,
    ) -> Budget:
        """Return the budget of a key; one is begun if there is none yet.

        Args:
            key: What the budget is for.
            limit: The budget in USD.
            row: Returns where other processes share it, if they do.
        """
        with self._lock:
            if key not in self._budgets:
                stored = None if row is None else row()
                self._budgets[key] = Budget(limit, self.new_lock(), stored)
            return self._budgets[key]

    def enter_noise(self, noise: SelfAgreement) -> None:
        """Keep how often the reference agrees with itself; the latest one counts."""
        with self._lock:
            self._noise[noise.task, noise.reference, noise.equivalence] = noise

    def enter_estimate(self, estimate: Estimate) -> None:
        """Enter what a job was estimated to cost; the last estimate of a task stays."""
        with self._lock:
            self._estimates[estimate.task] = estimate

    def noise(
        self, task: str | None, reference: str, rule: Equivalence
    ) -> SelfAgreement | None:
        """Return how often the reference agrees with itself, if that was measured."""
        if not self._noise:
            return None
        with self._lock:
            return self._noise.get((task, reference, rule.name))

    def report(self) -> Report:
        """Return the totals so far; streams in a store as all processes left them."""
        with self._lock:
            streams, shadows = [*self._streams.values()], [*self._shadows.values()]
        states = [stream.state() for stream in streams]  # which may take a while
        tried = [shadow.state() for shadow in shadows]
        with self._lock:
            served, certificates = dict(self._served), tuple(self._certificates)
            earlier = self._earlier
            ledger, noise = self._entries.ledger(), tuple(self._noise.values())
            estimates = tuple(self._estimates.values())
        for stream in states:
            for name, count in stream.served.items():
                served[name] += count
        restored = ledger.sums("outcome").get("restored", Spend())
        return Report(
            spend={name: Spend() for name in served} | ledger.sums("model"),
            served=served,
            certificates=certificates,
            streams=tuple(states),
            shadows=tuple(tried),
            restored=restored.cost,
            inside=ledger.sums("inside"),
            noise=noise,
            estimates=estimates,
            earlier=earlier,
        )

    def ledger(self) -> Ledger:
        """Return every call so far, one by one and in sums."""
        with self._lock:
            return self._entries.ledger()
