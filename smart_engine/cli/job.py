"""The job of `smart estimate` and `smart run`, checked before anything is spent."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smart_engine.cli import options
from smart_engine.cli.tables import Table, read_table
from smart_engine.cli.terminal import check_results, dollars, say
from smart_engine.equivalence.shorthand import read_rule
from smart_engine.errors import InvalidInputError, MissingExtraError, choose
from smart_engine.money.pricing import Price
from smart_engine.serving.members import UnpricedError

if TYPE_CHECKING:
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.runnables import RunnableConfig

    from langchain_smart.chat_model import SmartChatModel

__all__ = ["Job", "read_price", "sources"]


_SLICE = "slice"
"""Key of a row's config that names its slice."""


@dataclass(frozen=True)
class Job:
    """The rows of a table, and the smart model that answers them.

    Attributes:
        table: The rows.
        inputs: Per row, what is sent.
        configs: Per row, the config with which it is sent: it names its slice.
        smart: The model that is asked.
    """

    table: Table
    inputs: list[LanguageModelInput]
    configs: list[RunnableConfig]
    smart: SmartChatModel

    @classmethod
    def read(
        cls,
        given: options.Inputs,
        promised: options.Promise,
        calls: options.Calls,
        store: str | None,
        task: str | None = None,
        **settings: Any,
    ) -> Job:
        """Read a job from its options; `settings` are more of a `SmartChatModel`'s.

        Raises:
            InvalidInputError: If an option cannot be used.
            MissingExtraError: If LangChain or the database is not installed.
        """
        *read, file = sources(given, store)
        check_results({"store": file}, read, force=True)
        table = read_table(given.source)
        system: list[tuple[str, str]] = []
        if given.system is not None:
            system = [("system", _read_text("system", given.system))]
        configs = _configs(table, promised.slices)
        prompts = _fill(_read_text("prompt", given.prompt), table)
        rule = read_rule(promised.equivalence)
        guarantee = options.guarantee_of(promised.max_disagreement, promised)
        prices = dict(map(read_price, promised.price or ()))
        try:
            import langchain  # noqa: F401 - makes models of their names
            import sqlalchemy  # noqa: F401 - the store

            from langchain_smart.chat.members import load_model
            from langchain_smart.chat_model import SmartChatModel
        except ModuleNotFoundError as error:
            raise MissingExtraError("run", "a command that asks models") from error
        served = {} if calls.base_url is None else {"base_url": calls.base_url}
        try:
            smart = SmartChatModel(
                reference=load_model("reference", given.reference, **served),
                candidates=[
                    load_model("candidate", name, **served) for name in given.candidate
                ],
                equivalence=rule,
                prices=prices,
                store=_place(given, store),
                task=task or given.source.stem,
                max_disagreement=guarantee.max_disagreement,
                confidence=guarantee.confidence,
                recall=guarantee.recall,
                precision=guarantee.precision,
                slices=None if promised.slices is None else _SLICE,
                strategy=promised.strategy,
                min_saving=promised.min_saving,
                max_tokens=calls.max_tokens,
                temperature=calls.temperature,
                estimate_usage=calls.estimate_usage,
                signals=choose("--signals", calls.signals, options.SIGNALS),
                dedupe=calls.dedupe,
                max_concurrency=calls.max_concurrency,
                seed=calls.seed,
                **settings,
            )
        except UnpricedError as error:
            hint = f"{error.reason}: add --price {options.PRICE_FORM}"
            raise InvalidInputError("price", error.value, hint) from error
        inputs: list[LanguageModelInput] = [
            [*system, ("human", text)] for text in prompts
        ]
        return cls(table, inputs, configs, smart)

    @property
    def store(self) -> str:
        """The store of the answers: a file, or a database's URL."""
        return str(self.smart.store).removeprefix("sqlite:///")

    @contextmanager
    def resumable(self) -> Iterator[None]:
        """Where the job is cut off, say where its answers are and how it goes on."""
        try:
            yield
        except BaseException:
            say(
                f"answers for {dollars(self.smart.report())} are kept in "
                f"{self.store}: the same command goes on from there"
            )
            raise


def sources(given: options.Inputs, store: str | None) -> list[Path | None]:
    """Return the files that a job needs: the store's comes last."""
    texts = (given.prompt, given.system or "")
    named = [Path(text[1:]) if text.startswith("@") else None for text in texts]
    kind, url, place = _place(given, store).rpartition(":///")
    if url:  # a driver's name for a file may say how it is opened
        place = place.removeprefix("file:").partition("?")[0]
    local = kind.startswith("sqlite") if url else "://" not in place
    return [given.source, *named, Path(place) if local else None]


def _place(given: options.Inputs, store: str | None) -> str:
    return store or f"{given.source}.answers.db"


def _configs(table: Table, column: str | None) -> list[RunnableConfig]:
    """Return per row the config that names its slice, if a column has them.

    Raises:
        InvalidInputError: If a row has no value there.
    """
    if column is None:
        return [{} for _ in table.rows]
    for place, row in enumerate(table.rows):
        if row.get(column) in (None, ""):
            columns = ", ".join(table.rows[0])
            hint = f"{table.where(place)} has no value in it; columns: {columns}"
            raise InvalidInputError("--slice", column, hint)
    return [{"metadata": {_SLICE: row[column]}} for row in table.rows]


def read_price(text: str) -> tuple[str, Price]:
    """Return a model and its price, from `gpt-5=1.25,10/0.6,5` or `llama=free`.

    Raises:
        InvalidInputError: If the text cannot be read.
    """
    name, _, price = text.rpartition("=")
    if name and price == "free":
        return name, Price.free()
    try:
        (sent, received), *by_batch = (
            map(float, each.split(",")) for each in price.split("/", 1)
        )
        batch = [(read, written) for read, written in by_batch]
    except ValueError as error:
        hint = f"write {options.PRICE_FORM}"
        raise InvalidInputError("price", text, hint) from error
    return name, Price(sent, received, batch=Price(*batch[0]) if batch else None)


def _read_text(field: str, given: str) -> str:
    """Return a text that was given as such, or as `@FILE`."""
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(field, given, str(error.strerror)) from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(field, given, "this is no UTF-8") from error


def _fill(template: str, table: Table) -> list[str]:
    """Return the prompt of every row: `{column}` is its value, `{{` a brace."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        hint = f"{error}; write {{{{ and }}}} for braces that stand for themselves"
        raise InvalidInputError("prompt", template, hint) from error
    columns = [column for _, column, _, _ in parts if column is not None]
    if not columns or any(form or conversion for _, _, form, conversion in parts):
        hint = "write {column} where a value belongs, and {{ }} for other braces"
        raise InvalidInputError("prompt", template, hint)
    prompts = []
    for index, row in enumerate(table.rows):
        for column in columns:
            if column not in row:
                hint = f"{table.where(index)} has only {', '.join(row) or 'nothing'}"
                raise InvalidInputError("prompt", f"{{{column}}}", hint)
        filled = (
            literal + ("" if column is None else _text(row[column]))
            for literal, column, _, _ in parts
        )
        prompts.append("".join(filled))
    return prompts


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
