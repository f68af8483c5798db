"""Recorded answers and certificates: the only file of the engine that reads files.

`NAME.jsonl` or `NAME.jsonl.gz` holds one `Row` per item, as JSON on a line of its own;
`NAME.models.json` holds the `Models` that answered.
"""

from __future__ import annotations

import gzip
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smart_engine.batch.certificate import Certificate
from smart_engine.calls import Failure, Outcome, Result
from smart_engine.errors import InvalidInputError, SmartError, choose
from smart_engine.money.pricing import Price, Usage

__all__ = [
    "Row",
    "Sample",
    "Simulation",
    "Trace",
    "is_trace",
    "read_certificate",
    "read_simulation",
]

File = TypeVar("File", bound=BaseModel)

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A finite number of zero or more."""


class Row(BaseModel):
    """One recorded item.

    Attributes:
        item_id: Name of the item.
        input: The text that was asked, None where it was not recorded.
        answers: Model → its answer.
        tokens: Model → (input tokens, output tokens) of that answer.
        gold: The true answer where known; never used to decide.
        confidence: Model → its own score of its answer, 0 to 1, where known.

    Further columns are kept, for slices.
    """

    model_config = ConfigDict(coerce_numbers_to_str=True, extra="allow")

    item_id: str = ""
    input: str | None = None
    answers: dict[str, Any]
    tokens: dict[str, tuple[Amount, Amount]]
    gold: Any = None
    confidence: dict[str, float | None] = {}


class _Price(BaseModel):
    input: Amount
    output: Amount


class Models(BaseModel):
    """Which models a trace holds, and at what price.

    Attributes:
        reference: Name of the reference.
        candidates: Names of the suggested candidates.
        prices_usd_per_million_tokens: Model → prices of input and output tokens.
    """

    reference: str | None = None
    candidates: list[str] = []
    prices_usd_per_million_tokens: dict[str, _Price] = {}


@dataclass(frozen=True)
class Trace:
    """Recorded answers of several models to the same items.

    Attributes:
        rows: The items.
        reference: Name of the reference.
        candidates: Names of the candidates.
        prices: Model → price.
        slice_by: Column that names the slice of each item, if slices are promised; of
            `item_id`, what stands before the last colon.

    Example:
        ```python
        rows = [Row(answers={"big": "1"}, tokens={"big": (1_000_000, 0)})]
        trace = Trace(rows, "big", ["small"], {"big": Price(2.0, 8.0)})
        assert trace.outcome(0, "big").cost == 2.0
        ```
    """

    rows: Sequence[Row]
    reference: str
    candidates: Sequence[str]
    prices: dict[str, Price] = field(default_factory=dict)
    slice_by: str | None = None

    @classmethod
    def read(
        cls,
        path: str | Path,
        models: str | Path | None = None,
        *,
        reference: str | None = None,
        candidates: Sequence[str] = (),
        slice_by: str | None = None,
    ) -> Trace:
        """Read a trace and the file that names its models.

        Args:
            path: The items, `.jsonl` or `.jsonl.gz`.
            models: The models file; its sibling `NAME.models.json` if not given.
            reference: Takes the place of the file's reference.
            candidates: Take the place of the file's candidates.
            slice_by: Column that names each item's slice.

        Raises:
            InvalidInputError: If a file is missing or cannot be read, or if a model
                has no price or no answers, or an item no slice.
        """
        path = Path(path)
        rows = _read_rows(path)
        models = models or _models_file(path)
        about = _read_json("models", Path(models), Models)
        chosen = reference or about.reference
        if not chosen:
            hint = "name one, here or in the models file"
            raise InvalidInputError("reference", chosen, hint)
        others = list(candidates) or [c for c in about.candidates if c != chosen]
        prices = {
            name: Price(price.input, price.output)
            for name, price in about.prices_usd_per_million_tokens.items()
        }
        answering = set[str]().union(*(row.answers for row in rows))
        for name in (chosen, *others):
            if name not in prices:
                known = ", ".join(sorted(prices)) or "none"
                hint = f"no price in the models file; priced models: {known}"
                raise InvalidInputError("model", name, hint)
            if rows and name not in answering:
                hint = f"no answers recorded; there are: {', '.join(sorted(answering))}"
                raise InvalidInputError("model", name, hint)
        trace = cls(rows, chosen, others, prices, slice_by)
        trace.slices(0)
        return trace

    @classmethod
    def example(cls) -> Trace:
        """Return a recorded job that the package brings: 5,250 comments, toxic or not.

        Nine models' labels ("1" or "0") and token counts at list prices, and the true
        labels, without the texts. From the TextClass Benchmark by B. González-
        Bustamante (CC BY 4.0); its models file says what was changed.

        Example:
            ```python
            trace = Trace.example()
            assert trace.reference == "gpt-4.5-preview-2025-02-27"
            assert len(trace.rows) == 5250
            ```
        """
        return cls.read(Path(__file__).with_name("data") / "toxicity.jsonl.gz")

    def outcome(self, item: int, model: str) -> Result:
        """Return the recorded result of asking a model about an item."""
        row = self.rows[item]
        if row.answers.get(model) is None or model not in row.tokens:
            message = f"no recorded answer of {model} to item {row.item_id or item}"
            return Failure(SmartError(message))
        usage = Usage(*row.tokens[model])
        return Outcome(
            row.answers[model],
            self.prices[model].cost(usage),
            usage,
            row.confidence.get(model),
        )

    def find(self, prompt: str) -> int | None:
        """Return the item whose recorded input a prompt is, or contains.

        The longest contained input wins. Where no input was recorded, the item's id
        takes its place; items that share an input are found as the first of them.
        """
        items, head, starting = self._inputs
        if prompt in items:
            return items[prompt]
        best = ""
        for start in range(len(prompt) - head + 1):
            for text in starting.get(prompt[start : start + head], ()):
                if len(text) <= len(best):
                    break
                if prompt.startswith(text, start):
                    best = text
                    break
        return items[best] if best else None

    @cached_property
    def _inputs(self) -> tuple[dict[str, int], int, dict[str, list[str]]]:
        """The item of each input, a length, and all inputs by so many first characters.

        A prompt is scanned once: only inputs that begin at a place are compared there,
        the longest first.
        """
        items: dict[str, int] = {}
        for item, row in enumerate(self.rows):
            items.setdefault(row.input or row.item_id, item)
        head = min([16, *(len(text) for text in items if text)])
        starting = defaultdict[str, list[str]](list)
        for text in sorted(items, key=len, reverse=True):
            starting[text[:head]].append(text)
        return items, head, starting

    def outcomes(self, seed: int) -> dict[str, list[Result]]:
        """Return model → its result on every item, the same for every seed."""
        del seed
        return self._outcomes

    def gold(self, seed: int) -> list[Any]:
        """Return the true answers, None where one is not known."""
        del seed
        return [row.gold for row in self.rows]

    def slices(self, seed: int) -> list[str] | None:
        """Return the slice of each item, None if there are none.

        Raises:
            InvalidInputError: If an item has none.
        """
        del seed
        return self._slices

    @cached_property
    def _slices(self) -> list[str] | None:
        return None if self.slice_by is None else [*map(self._slice, self.rows)]

    def _slice(self, row: Row) -> str:
        column = self.slice_by or ""
        found = row.item_id.rpartition(":")[0] if column == "item_id" else None
        found = found or row.model_dump(include={column}).get(column)
        if not isinstance(found, str | int | float) or found == "":
            hint = f"item {row.item_id or '?'} has no text or number in this column"
            raise InvalidInputError("--slice", column, hint)
        return str(found)

    @cached_property
    def _outcomes(self) -> dict[str, list[Result]]:
        return {
            model: [self.outcome(item, model) for item in range(len(self.rows))]
            for model in (self.reference, *self.candidates)
        }


@dataclass(frozen=True)
class Sample:
    """Items of a trace drawn at random, others for each seed: a smaller job like it.

    Attributes:
        trace: Where the items come from.
        items: Number of items; all, if there are fewer.

    Example:
        ```python
        sample = Sample(Trace.example(), items=100)
        (results, *_) = sample.outcomes(seed=1).values()
        assert len(results) == 100
        ```
    """

    trace: Trace
    items: int

    @property
    def reference(self) -> str:
        """Name of the reference."""
        return self.trace.reference

    @property
    def candidates(self) -> Sequence[str]:
        """Names of the candidates."""
        return self.trace.candidates

    def outcomes(self, seed: int) -> dict[str, list[Result]]:
        """Return model → its result on each item that is drawn."""
        drawn = self._drawn(seed)
        return {
            model: [results[item] for item in drawn]
            for model, results in self.trace.outcomes(seed).items()
        }

    def gold(self, seed: int) -> list[Any]:
        """Return the true answers to these items, None where one is not known."""
        known = self.trace.gold(seed)
        return [known[item] for item in self._drawn(seed)]

    def slices(self, seed: int) -> list[str] | None:
        """Return the slice of each of these items, None if there are none."""
        known = self.trace.slices(seed)
        return known and [known[item] for item in self._drawn(seed)]

    def _drawn(self, seed: int) -> list[int]:
        rng = np.random.default_rng([seed, self.items])
        return list(map(int, rng.permutation(len(self.trace.rows))[: self.items]))


@dataclass(frozen=True)
class Simulation:
    """Items whose candidates agree with the reference independently at random.

    Attributes:
        items: Number of items.
        reference: Name of the reference.
        agreement: Candidate → probability that its answer equals the reference's.
        costs: Model → USD per item.
        slice_count: Number of slices into which items fall at random; 0: none.
    """

    items: int
    reference: str
    agreement: dict[str, float]
    costs: dict[str, float]
    slice_count: int = 0

    @property
    def candidates(self) -> list[str]:
        """Names of the candidates."""
        return list(self.agreement)

    def outcomes(self, seed: int) -> dict[str, list[Result]]:
        """Return fresh answers: 0 or 1 at random; who errs gives the other one."""
        rng = np.random.default_rng([seed, self.items])
        for name in (self.reference, *self.agreement):
            if name not in self.costs:
                hint = "say what it costs on one item, in USD"
                raise InvalidInputError("costs", name, hint)
        right = rng.integers(0, 2, self.items)
        answers = {self.reference: right}
        for name, share in self.agreement.items():
            answers[name] = right ^ (rng.random(self.items) >= share)
        results: dict[str, list[Result]] = {}
        for name, given in answers.items():
            either = Outcome(0, self.costs[name]), Outcome(1, self.costs[name])
            results[name] = [either[answer] for answer in given.tolist()]
        return results

    def slices(self, seed: int) -> list[str] | None:
        """Return the slice of each item, None if there are none."""
        if not self.slice_count:
            return None
        rng = np.random.default_rng([seed, self.items, self.slice_count])
        return [*map(str, rng.integers(1, self.slice_count + 1, self.items).tolist())]


class _SimulatedModel(BaseModel):
    agreement: Annotated[float, Field(ge=0, le=1)]
    prompt_tokens: Amount
    completion_tokens: Amount


class _Dataset(BaseModel):
    items: Annotated[int, Field(ge=1)]
    models: dict[str, _SimulatedModel]


class _Rates(BaseModel):
    prompt: Amount
    completion: Amount


class _SimulationFile(BaseModel):
    usd_per_1k_tokens: dict[str, _Rates]
    datasets: dict[str, _Dataset]


def is_trace(path: Path) -> bool:
    """Whether a file has a models file beside it, as a trace has."""
    return _models_file(path).is_file()


def _models_file(path: Path) -> Path:
    name = path.name.removesuffix(".gz").removesuffix(".jsonl")
    return path.with_name(f"{name}.models.json")


def read_simulation(
    path: str | Path,
    dataset: str,
    *,
    reference: str | None = None,
    candidates: Sequence[str] = (),
    slice_count: int = 0,
) -> Simulation:
    """Read the inputs of a simulation.

    Args:
        path: A JSON file with `usd_per_1k_tokens` and `datasets`.
        dataset: Name of the data set.
        reference: The model whose agreement is 1, if not given.
        candidates: All other models, if not given.
        slice_count: Number of slices into which items fall at random; 0: none.

    Raises:
        InvalidInputError: If the file, the data set or a model is missing or wrong.
    """
    content = _read_json("file", Path(path), _SimulationFile)
    chosen = choose("dataset", dataset, content.datasets)
    certain = (name for name, m in chosen.models.items() if m.agreement == 1)
    reference = reference or next(certain, None)
    others = list(candidates) or [m for m in chosen.models if m != reference]
    for name in (reference, *others):
        if name not in chosen.models or name not in content.usd_per_1k_tokens:
            hint = f"choose among {', '.join(chosen.models)}"
            raise InvalidInputError("model", name, hint)
    costs = {}
    for name in (str(reference), *others):
        model, rate = chosen.models[name], content.usd_per_1k_tokens[name]
        per_1k = model.prompt_tokens * rate.prompt
        costs[name] = (per_1k + model.completion_tokens * rate.completion) / 1000
    return Simulation(
        chosen.items,
        str(reference),
        {name: chosen.models[name].agreement for name in others},
        costs,
        slice_count,
    )


def read_certificate(path: str | Path) -> Certificate:
    """Read a certificate from a file, as `model_dump_json` writes it.

    Raises:
        InvalidInputError: If the file is missing or is no certificate.
    """
    return _read_json("certificate", Path(path), Certificate)


def _read_json(field: str, path: Path, kind: type[File]) -> File:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidInputError(field, str(path), _why(error)) from error


def _read_rows(path: Path) -> list[Row]:
    """Read the items; blank lines are skipped, an error names the line."""
    rows: list[Row] = []
    number = 1
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as lines:
            for line in lines:
                content = line.removeprefix(b"\xef\xbb\xbf").strip()
                if content:
                    rows.append(Row.model_validate_json(content))
                number += 1
    except (OSError, EOFError, ValueError, zlib.error) as error:
        unopened = isinstance(error, OSError) and error.strerror
        where = str(path) if unopened else f"{path}, line {number}"
        raise InvalidInputError("items", where, _why(error)) from error
    return rows


def _why(error: Exception) -> str:
    """Return an error's first problem, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place}: {first['msg']}" if place else first["msg"]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
