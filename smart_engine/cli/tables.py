"""Tables on disk: rows in, the same rows and more out. CSV, TSV or JSONL, by name."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smart_engine.errors import InvalidInputError

__all__ = ["SEPARATORS", "Row", "Table", "as_bytes", "inert", "read_table"]

Row = dict[str, Any]
"""Column → value."""

SEPARATORS = {".csv": ",", ".tsv": "\t"}
"""End of a spreadsheet's name → what separates its cells."""

_LINES = ".jsonl"
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""What a spreadsheet's formula may begin with (OWASP: CSV injection)."""


@dataclass(frozen=True)
class Table:
    """The rows of a file.

    Attributes:
        path: The file.
        rows: The rows.
        lines: Per row, the number of the line on which it begins.
    """

    path: Path
    rows: Sequence[Row]
    lines: Sequence[int]

    def where(self, row: int) -> str:
        """Return the file and line of a row, for messages."""
        return f"{self.path}, line {self.lines[row]}"


def read_table(path: Path) -> Table:
    """Read a table.

    Raises:
        InvalidInputError: If the file cannot be read or has no rows, or a row does not
            fit; the error names its line.
    """
    if path.suffix not in {*SEPARATORS, _LINES}:
        hint = "the name of a table ends in .csv, .tsv or .jsonl"
        raise InvalidInputError("IN", str(path), hint)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InvalidInputError("IN", str(path), str(error.strerror)) from error
    except UnicodeDecodeError as error:
        hint = f"this is no UTF-8, from byte {error.start} on"
        raise InvalidInputError("IN", str(path), hint) from error
    read = _read_objects if path.suffix == _LINES else _read_cells
    numbered = list(read(path, text))
    if not numbered:
        raise InvalidInputError("IN", str(path), "there are no rows in it")
    lines, rows = zip(*numbered, strict=True)
    return Table(path, rows, lines)


def as_bytes(suffix: str, rows: Sequence[Row]) -> bytes:
    """Return rows as the content of a file whose name ends so."""
    text = io.StringIO(newline="")
    if suffix == _LINES:
        text.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        returns = any("\r" in str(cell) for row in rows for cell in row.values())
        writer = csv.DictWriter(
            text,
            list(rows[0]),
            delimiter=SEPARATORS[suffix],
            lineterminator="\n",
            quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL,  # else unquoted
        )
        writer.writeheader()
        writer.writerows(rows)
    # What cannot be UTF-8, such as half a pair, is escaped: in JSON that is the same.
    return text.getvalue().encode("utf-8", "backslashreplace")


def inert(cell: Any) -> Any:
    """Return a cell that no spreadsheet runs as a formula: with ' before such a text.

    Example:
        ```python
        assert [inert("=1+1"), inert("ham"), inert(-1)] == ["'=1+1", "ham", -1]
        ```
    """
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _read_objects(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    """Yield each object with its line; blank lines are skipped."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _bad_line(path, number, f"this is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise _bad_line(path, number, "a row is an object, {…}")
        yield number, row


def _read_cells(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    """Yield each row below the header with its line; blank lines are skipped."""
    csv.field_size_limit(2**31 - 1)
    separator = SEPARATORS[path.suffix]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    columns: list[str] = []
    number = 1
    try:
        for cells in reader:
            if cells and not columns:
                columns = cells
                if len(set(columns)) < len(columns):
                    raise _bad_line(path, number, "two columns have the same name")
            elif cells:
                if len(cells) != len(columns):
                    problem = f"{len(cells)} cells under {len(columns)} columns"
                    raise _bad_line(path, number, problem)
                yield number, dict(zip(columns, cells, strict=True))
            number = reader.line_num + 1
    except csv.Error as error:
        raise _bad_line(path, number, str(error)) from error


def _bad_line(path: Path, line: int, problem: str) -> InvalidInputError:
    return InvalidInputError("IN", f"{path}, line {line}", problem)
