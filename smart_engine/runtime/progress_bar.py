"""A bar that shows where a batch stands, in a terminal or a notebook, by tqdm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Protocol

from smart_engine.amounts import usd
from smart_engine.batch.progress import Progress
from smart_engine.errors import MissingExtraError
from smart_engine.report.words import plain

__all__ = ["progress_bar"]

_FORMAT = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
"""Without the time that remains: once it is decided who serves, much goes quickly."""

_PHASES = {"learning": "trying candidates", "serving": "serving", "done": "done"}

_EVERY = 0.1
"""Seconds between two looks at the session."""


class _Progressing(Protocol):
    def progress(self) -> Progress: ...


@contextmanager
def progress_bar(
    session: _Progressing, task: str | None, status: Callable[[], str] | None = None
) -> Iterator[Callable[[], None]]:
    """Show where a session stands for as long as the block lasts, however it ends.

    Args:
        session: The session.
        task: Name of the task, if it is to be named.
        status: Returns what is waited for, if anything is.

    Yields:
        A function to call whenever the session has recorded a result.

    Raises:
        MissingExtraError: If tqdm is not installed.

    Example:
        ```python
        from smart_engine import BatchSession, Outcome, Tier

        session = BatchSession(100, [Tier("big", role="reference"), Tier("small")])
        with progress_bar(session, None) as recorded:
            while calls := session.next_calls():
                for call in calls:
                    session.record(call, Outcome("yes", cost=0.01))
                    recorded()
        assert session.done
        ```
    """
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError as error:
        raise MissingExtraError("progress", "a progress bar") from error
    named = "" if task is None else f"{plain(task)}, "
    looked = monotonic()
    bar = tqdm(total=session.progress().items, bar_format=_FORMAT)

    def show() -> None:
        now = session.progress()
        bar.n = now.settled
        bar.set_description(named + _PHASES[now.phase], refresh=False)
        waits = status() if status is not None else ""
        parts = [_postfix(now), *([waits] if waits else [])]
        bar.set_postfix_str(", ".join(parts), refresh=False)

    def recorded() -> None:
        nonlocal looked
        if monotonic() - looked >= _EVERY:
            # A terminal that is gone ends no batch. `bar.refresh()` would keep the
            # lock of all bars where writing fails.
            with suppress(OSError), bar.get_lock():
                show()
                bar.display()
            looked = monotonic()

    try:
        yield recorded
    finally:
        with suppress(OSError):
            show()
            bar.close()


def _postfix(progress: Progress) -> str:
    """Return what stands behind the bar: calls, dollars and answers."""
    calls = f"{progress.calls:,} call{'' if progress.calls == 1 else 's'}"
    parts = [calls, f"spent {usd(progress.spent)} USD"]
    if progress.estimated:
        parts[1] += f" ({usd(progress.estimated)} estimated)"
    if progress.saved is not None and progress.phase != "learning":
        parts.append(f"saved {usd(progress.saved)} USD")
    if progress.may_differ is not None:
        parts.append(f"differ <= {progress.may_differ}/{progress.allowed}")
    return ", ".join(parts)
