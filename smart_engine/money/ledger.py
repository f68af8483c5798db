"""The ledger: a row for every call, and sums that stay exact when rows are dropped.

A call is entered once, when its outcome is recorded, and nowhere else: reports and
ledgers are read from what is here.
"""

from __future__ import annotations

import csv
import io
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from smart_engine.calls import Failure, Result
from smart_engine.errors import MissingExtraError, check_whole, choose
from smart_engine.money.pricing import Usage
from smart_engine.money.spending import RuleCalls, Spend

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ROWS", "Entry", "Key", "Ledger", "LedgerEntries", "LedgerScope"]

ROWS = 100_000
"""Rows kept, the newest ones; some 400 bytes each."""

_INSIDE = "inside"


class Entry(NamedTuple):
    """One call: who was asked about what, and what that brought and cost.

    Attributes:
        number: Number of the row, counted from 0 in the order in which outcomes came;
            dropped rows are counted, too.
        at: When the call was made, in seconds since 1970, UTC; None where unknown, as
            for what was restored, and for a call that ended before it was made.
        task: Name of the task.
        batch: Number of the batch, counted from 1 in the order in which they began;
            None for a single item.
        certificate: The batch's certificate; None unless it has ended.
        item: Index of the item in its batch, or its number among the task's single
            items, counted from 0.
        model: Who was asked, as reports have it: judges as `judge: …`.
        role: What for. `reference`, `candidate`, `judge`, `embedding`; `inside`: asked
            within the call of a chain, in whose row its cost is contained already.
        outcome: `answered`; `unreadable`: answered, but not so that the equivalence
            can read it; `failed`; `cancelled`: broken off from outside, as by an
            interrupt; `cached`: from a cache, for nothing; `restored`: from a store,
            where it was paid for in an earlier run.
        error: Type of the error, where the call brought no answer that can be used.
            Its message is not kept, for it may hold a secret.
        input_tokens: Tokens that were billed, as are all that follow; see `Usage`.
        output_tokens: As there.
        cache_read: As there.
        cache_write: As there.
        cache_write_1h: As there.
        input_audio: As there.
        output_audio: As there.
        reasoning: As there.
        cost: USD.
        estimated: Whether tokens and cost rest on an estimate: no usage was reported.
        seconds: How long the call took; None where unknown.
    """

    number: int
    at: float | None
    task: str
    batch: int | None
    certificate: str | None
    item: int
    model: str
    role: Literal["reference", "candidate", "judge", "embedding", "inside"]
    outcome: Literal[
        "answered", "unreadable", "failed", "cancelled", "cached", "restored"
    ]
    error: str | None
    input_tokens: float
    output_tokens: float
    cache_read: float
    cache_write: float
    cache_write_1h: float
    input_audio: float
    output_audio: float
    reasoning: float
    cost: float
    estimated: bool
    seconds: float | None


class Key(NamedTuple):
    """What sums are kept by.

    Attributes:
        model: Who was asked.
        role: What for.
        task: Name of the task.
        outcome: How it ended.
    """

    model: str
    role: str
    task: str
    outcome: str


_BY = {name: Key._fields.index(name) for name in Key._fields} | {_INSIDE: 0}
"""What sums can be asked for by → its place in a key."""

_SUMMED = ("calls", "failures", "cost", "input_tokens", "output_tokens", "estimated")
"""What is summed, as `Spend` calls it."""

_NO_TOKENS = Usage()


class Ledger:
    """Every call so far, one by one and in sums: a snapshot.

    Args:
        rows: The rows that are kept.
        certificates: Number of a batch that has ended → its certificate.
        accounts: What was spent, by model, role, task and outcome.
        dropped: Number of rows that are not kept.

    Attributes:
        dropped: Number of older rows that are no longer kept. They are in all sums.

    Example:
        ```python
        from smart_engine.calls import Outcome

        journal = LedgerEntries()
        scope = LedgerScope(journal.enter, "big", "a task")
        scope.record_call(0, "big", Outcome("yes", cost=0.5))
        scope.record_call(0, "small", Outcome("yes", cost=0.25))
        ledger = journal.ledger()
        assert [entry.model for entry in ledger.entries] == ["big", "small"]
        assert ledger.sums("role")["candidate"].cost == 0.25
        assert ledger.to_csv().startswith('"number","at","task","batch",')
        ```
    """

    def __init__(
        self,
        rows: Sequence[tuple[Any, ...]],
        certificates: Mapping[int, str],
        accounts: Mapping[Key, Spend],
        dropped: int,
    ) -> None:
        """Keep what is given."""
        self._rows, self._certificates = rows, certificates
        self._accounts = accounts
        self.dropped = dropped

    def __repr__(self) -> str:
        """Say how much there is."""
        return f"<Ledger of {len(self._rows)} rows, {self.dropped} dropped>"

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """The newest rows, in the order in which outcomes came."""
        ids = self._certificates
        place, batch = Entry._fields.index("certificate"), Entry._fields.index("batch")
        return tuple(
            Entry._make((*row[:place], ids.get(row[batch]), *row[place + 1 :]))
            for row in self._rows
        )

    def sums(self, by: str = "model") -> dict[str, Spend]:
        """Return what was asked and spent, by name; dropped rows are included.

        Args:
            by: `"model"`, `"role"`, `"task"` or `"outcome"`; or `"inside"`: by model,
                what was asked within the calls of chains, which the others contain.

        Raises:
            InvalidInputError: If it is none of these.
        """
        place = choose("by", by, _BY)
        table: dict[str, Spend] = {}
        for key, spend in self._accounts.items():
            if (key.role == _INSIDE) == (by == _INSIDE):
                table[key[place]] = table.get(key[place], Spend()) + spend
        return table

    def to_jsonl(self) -> str:
        """Return the rows as text, one JSON object a line."""
        return "".join(
            json.dumps(entry._asdict(), default=float) + "\n" for entry in self.entries
        )

    def to_csv(self) -> str:
        """Return the rows as comma-separated values, below the fields' names."""
        text = io.StringIO(newline="")
        # Else a name that holds a carriage return would be written as two lines.
        writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow(Entry._fields)
        for entry in self.entries:
            # What stands unquoted is read as a number: a mark is 1 or 0.
            writer.writerow(int(c) if isinstance(c, bool) else c for c in entry)
        return text.getvalue()

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a pandas DataFrame; `at` becomes a moment in UTC.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise MissingExtraError("frames", "a ledger as a DataFrame") from error
        frame = pd.DataFrame(self.entries, columns=list(Entry._fields))
        frame["at"] = pd.to_datetime(frame["at"].astype(float), unit="s", utc=True)
        return frame.astype({"batch": "Int64", "seconds": float})


class LedgerEntries:
    """Collects calls as they come. Not thread-safe: hold a lock around it.

    Args:
        rows: Rows kept, the newest ones; sums are kept of all.

    Attributes:
        certificates: Number of a batch → its certificate, once it has ended.
    """

    def __init__(self, rows: int = ROWS) -> None:
        """Nothing was asked yet."""
        check_whole("rows", rows, 0)
        # Plain tuples of plain values, which the garbage collector need not visit.
        self._rows: deque[tuple[Any, ...]] = deque(maxlen=rows)
        self._accounts: dict[Key, list[float]] = {}
        self._entered = 0
        self.certificates: dict[int, str] = {}

    def enter(
        self,
        key: Key,
        batch: int | None,
        item: int,
        error: str | None,
        brought: Result,
    ) -> None:
        """Enter a call.

        Args:
            key: What its sums are kept by.
            batch: Number of its batch, if it is of one.
            item: Its item.
            error: Type of the error, if it brought no answer that can be used.
            brought: What it brought.
        """
        usage, cost = brought.usage or _NO_TOKENS, float(brought.paid)
        at, seconds = brought.timing or (None, None)
        sent, said = usage.input_tokens, usage.output_tokens
        model, role, task, outcome = key
        self._rows.append(
            (
                *(self._entered, at, task, batch, None),
                *(item, model, role, outcome, error, sent, said),
                *(usage.cache_read, usage.cache_write, usage.cache_write_1h),
                *(usage.input_audio, usage.output_audio, usage.reasoning),
                *(cost, usage.estimated, seconds),
            )
        )
        self._entered += 1
        sums = self._accounts.setdefault(key, [0] * len(_SUMMED))
        parts = (1, error is not None, cost, sent, said, brought.estimated)
        for place, part in enumerate(parts):
            sums[place] += part

    def ledger(self) -> Ledger:
        """Return all that was entered so far."""
        accounts = {
            key: Spend(**dict(zip(_SUMMED, sums, strict=True)))
            for key, sums in self._accounts.items()
        }
        dropped = self._entered - len(self._rows)
        return Ledger(list(self._rows), dict(self.certificates), accounts, dropped)


class LedgerScope:
    """Where the calls of one batch, or of one single item, are entered.

    Args:
        enter: Enters a call; see `LedgerEntries.enter`.
        reference: Name of the reference.
        task: Name of the task.
        batch: Number of the batch, if it is one.

    Attributes:
        batch: The same.
    """

    __slots__ = ("_enter", "_reference", "_task", "batch")

    def __init__(
        self,
        enter: Callable[[Key, int | None, int, str | None, Result], None],
        reference: str,
        task: str,
        batch: int | None = None,
    ) -> None:
        """Nothing is entered yet."""
        self._enter, self._reference, self._task = enter, reference, task
        self.batch = batch

    def record_call(
        self,
        item: int,
        model: str,
        brought: Result,
        unread: BaseException | None = None,
    ) -> None:
        """Enter what a member brought for an item.

        Args:
            item: The item.
            model: Name of the member.
            brought: What its call brought.
            unread: Why its answer cannot be read, if so.
        """
        role = "reference" if model == self._reference else "candidate"
        self._write(item, model, role, brought, unread)

    def record_inner_call(self, item: int, model: str, brought: Result) -> None:
        """Enter what a model brought that was asked within the call of a chain."""
        self._write(item, model, _INSIDE, brought)

    def record_judge_calls(self, item: int, bought: RuleCalls) -> None:
        """Enter the calls that a rule made in order to compare an item's answers."""
        for name, brought in bought:
            self._write(item, name, name.partition(":")[0], brought)

    def _write(
        self,
        item: int,
        model: str,
        role: str,
        brought: Result,
        unread: BaseException | None = None,
    ) -> None:
        """Enter a call, and how it ended."""
        outcome, error = "answered", unread
        if isinstance(brought, Failure):
            error = brought.error
            outcome = "failed" if isinstance(error, Exception) else "cancelled"
        elif brought.restored:
            outcome = "restored"
        elif unread is not None:
            outcome = "unreadable"
        elif brought.cached:
            outcome = "cached"
        name = None if error is None else type(error).__name__
        key = Key(model, role, self._task, outcome)
        self._enter(key, self.batch, item, name, brought)
