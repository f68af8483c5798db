"""The tables of a store: what they hold, and how they come into a database.

Columns that may be empty may be missing in a table that an older version created. Each
row has a checksum of its other cells, unless an older version wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import sqlalchemy as sql

from smart_engine.money.pricing import Usage
from smart_engine.serving.profile import mark
from smart_engine.store.forks import connected

__all__ = [
    "BATCHES",
    "JOBS",
    "OUTCOMES",
    "STREAMS",
    "USAGE",
    "VERDICTS",
    "create_tables",
    "is_sound",
    "with_checksum",
]

_FORMAT = 1

USAGE = tuple(kind.name for kind in fields(Usage))
"""What is stored of a usage, each in a column of its own."""

JOBS = sql.Table(
    f"smart_jobs_{_FORMAT}",
    sql.MetaData(),
    sql.Column("job", sql.String(64), primary_key=True),
    sql.Column("seed", sql.String(40), nullable=False),
    sql.Column("checksum", sql.String(16)),
)
"""One row per job that draws by a seed of its own."""

OUTCOMES = sql.Table(
    f"smart_outcomes_{_FORMAT}",
    sql.MetaData(),
    sql.Column("job", sql.String(64), primary_key=True),
    sql.Column("item", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("tier", sql.String(255), primary_key=True),
    sql.Column("answer", sql.Text, nullable=False),
    sql.Column("cost", sql.Double, nullable=False),
    sql.Column("confidence", sql.Double),
    sql.Column("cached", sql.Boolean, nullable=False),
    *(sql.Column(kind, sql.Double) for kind in USAGE if kind != "estimated"),
    sql.Column("estimated", sql.Boolean),
    sql.Column("checksum", sql.String(16)),
)
"""One row per answer."""

VERDICTS = sql.Table(
    f"smart_verdicts_{_FORMAT}",
    sql.MetaData(),
    sql.Column("job", sql.String(64), primary_key=True),
    sql.Column("about", sql.String(64), primary_key=True),
    sql.Column("same", sql.Boolean, nullable=False),
    sql.Column("calls", sql.Text, nullable=False),
    sql.Column("checksum", sql.String(16)),
)
"""One row per verdict; no texts."""

STREAMS = sql.Table(
    f"smart_streams_{_FORMAT}",
    sql.MetaData(),
    sql.Column("profile", sql.String(64), primary_key=True),
    sql.Column("task", sql.Text, nullable=False),
    sql.Column("mode", sql.String(16), nullable=False),
    sql.Column("parts", sql.Text, nullable=False),
    sql.Column("state", sql.Text, nullable=False),
    sql.Column("purse", sql.Text, nullable=False, key="budget"),
    sql.Column("checksum", sql.String(16)),
)
"""One row per stream: its profile, its state and what is left of its budget."""


BATCHES = sql.Table(
    f"smart_batches_{_FORMAT}",
    sql.MetaData(),
    sql.Column("name", sql.String(64), primary_key=True),
    sql.Column("job", sql.String(64), nullable=False, index=True),
    sql.Column("model", sql.Text, nullable=False),
    sql.Column("address", sql.Text, nullable=False),
    sql.Column("kind", sql.Text, nullable=False),
    sql.Column("rows", sql.Text, nullable=False),
    sql.Column("began", sql.Double, nullable=False),
    sql.Column("batch", sql.Text),
    sql.Column("account", sql.String(16)),
    sql.Column("checksum", sql.String(16)),
)
"""One row per batch that was submitted to a provider, or was about to be."""


def with_checksum(table: sql.Table, cells: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's cells with their checksum; empty ones count as missing."""
    typed = {
        column.key: column.type.python_type(cells[column.key])
        for column in table.columns
        if column.key != "checksum" and cells.get(column.key) is not None
    }
    return {**cells, "checksum": mark(json.dumps(typed))}


def is_sound(table: sql.Table, row: sql.Row[Any]) -> bool:
    """Whether a whole row is as it was written, as far as that can be told."""
    cells = dict(zip(table.columns.keys(), row, strict=True))
    if cells["checksum"] is None:
        return True
    try:
        return bool(cells["checksum"] == with_checksum(table, cells)["checksum"])
    except (TypeError, ValueError):
        return False


def create_tables(engine: sql.Engine) -> None:
    """Create what is missing, tables and columns; another process may be faster."""

    def columns(table: sql.Table) -> set[str]:
        with connected(engine) as connection:
            return {c["name"] for c in sql.inspect(connection).get_columns(table.name)}

    for table in (JOBS, OUTCOMES, VERDICTS, STREAMS, BATCHES):
        try:
            with connected(engine) as connection:
                table.create(connection, checkfirst=True)
        except sql.exc.DBAPIError:
            with connected(engine) as connection:
                if not sql.inspect(connection).has_table(table.name):
                    raise
        may_be_missing = {column.name for column in table.columns if column.nullable}
        for name in sorted(may_be_missing - columns(table)):
            kind = engine.dialect.type_compiler_instance.process(table.c[name].type)
            change = f"ALTER TABLE {table.name} ADD {name} {kind}"
            try:
                with connected(engine) as connection:
                    connection.exec_driver_sql(change)
            except sql.exc.DBAPIError:
                if name not in columns(table):
                    raise
