"""A bar that shows where a batch stands, in a terminal or a notebook, by tqdm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic

from smart_engine.batch.progress import Progress
from smart_engine.calls import Call, Failure, Outcome
from smart_engine.errors import MissingExtraError
from smart_engine.serving.session import AnySession, Session

__all__ = ["progress_bar"]

_FORMAT = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
"""It tells no time that remains: once it is decided who serves, much goes quickly."""

_EVERY = 0.1
"""Seconds between two looks at the session."""


@contextmanager
def progress_bar(
    session: AnySession, task: str | None, *, shown: bool
) -> Iterator[Session]:
    """Show where a session stands for as long as the block lasts, however it ends.

    Args:
        session: The session.
        task: Name of the task, if it is to be named.
        shown: Whether there is a bar at all.

    Yields:
        What is to be driven in place of the session.

    Raises:
        MissingExtraError: If tqdm is not installed.

    Example:
        ```python
        from smart_engine import BatchSession, Outcome, Tier

        session = BatchSession(100, [Tier("big", role="reference"), Tier("small")])
        with progress_bar(session, None, shown=True) as driven:
            while calls := driven.next_calls():
                for call in calls:
                    driven.record(call, Outcome("yes", cost=0.01))
        assert session.done
        ```
    """
    if not shown:
        yield session
        return
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError as error:
        raise MissingExtraError("progress", "a progress bar") from error
    named = "" if task is None else f"{task}, "
    looked = monotonic()
    bar = tqdm(total=session.progress().items, bar_format=_FORMAT)

    def show() -> None:
        now = session.progress()
        bar.n = now.settled
        bar.set_description(named + now.phase, refresh=False)
        bar.set_postfix_str(_told(now), refresh=False)

    def told() -> None:
        nonlocal looked
        if monotonic() - looked >= _EVERY:
            # Who cannot be shown it still gets the answers. `bar.refresh()` would keep
            # the lock of all bars where writing fails.
            with suppress(OSError), bar.get_lock():
                show()
                bar.display()
            looked = monotonic()

    try:
        yield _Watched(session, told)
    finally:
        with suppress(OSError):
            show()
            bar.close()


class _Watched:
    """A session, and who is told whenever it has recorded something.

    Args:
        session: The session.
        told: Called after each record.
    """

    def __init__(self, session: AnySession, told: Callable[[], None]) -> None:
        """Stand in for the session."""
        self._session, self._told = session, told

    @property
    def waits(self) -> bool:
        """Whether its steps may wait."""
        return self._session.waits

    def next_calls(self) -> list[Call]:
        """Return the calls that may start now."""
        return self._session.next_calls()

    def keep(self, call: Call, outcome: Outcome | Failure) -> None:
        """Keep what a call has just brought, if anything is kept."""
        self._session.keep(call, outcome)

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record what a call brought."""
        error = self._session.record(call, outcome)
        self._told()
        return error


def _told(progress: Progress) -> str:
    """Return what stands behind the bar, in dollars and answers."""
    parts = [f"spent ${progress.spent:.4f}"]
    if progress.estimated:
        parts[0] += f" (${progress.estimated:.4f} estimated)"
    if progress.saved is not None:
        sign = "-" if progress.saved < 0 else ""
        parts.append(f"saved {sign}${abs(progress.saved):.4f}")
    if progress.may_differ is not None:
        parts.append(f"differ <= {progress.may_differ}/{progress.allowed}")
    return ", ".join(parts)
