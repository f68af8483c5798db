"""Calls real models on the project's own inputs and records their answers.

Any server that speaks OpenAI's protocol works:

    python examples/record_answers.py tickets \
        --model big=http://127.0.0.1:8403/v1 --model small=http://127.0.0.1:8402/v1

Each row is appended to `data/tickets.jsonl` as soon as all models have answered, so an
interrupted run continues where it stopped. When all items are there, they are packed
into `tickets.jsonl.gz` and the loose file is deleted. `tickets.models.json` is written
by hand: the models, which is the reference, and their prices.

The temperature is zero, yet a second recording may differ in a few answers. A server
that caches the common part of the prompts, or works on several items at once, adds the
same numbers in another order; where two answers are almost equally likely, the last
digits decide.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableParallel
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from recorded_tasks import DATA, TASKS, Task

from langchain_smart.logprobs import confidence_of
from smart_engine.offline.traces import Row


def main() -> None:
    """Record one task, or its missing rows, and pack it."""
    arguments = _arguments()
    task = TASKS[arguments.task]
    named = (given.partition("=") for given in arguments.model)
    models = RunnableParallel({name: _model(task, name, url) for name, _, url in named})
    path = arguments.into / f"{task.name}.jsonl"
    path.touch()
    known = {row.item_id for row in _rows(path)}
    wanted = [row for row in _unanswered(task) if row.item_id not in known]
    asked = models.batch_as_completed(
        [{"text": row.input} for row in wanted],
        {"max_concurrency": arguments.at_once},
    )
    for position, messages in asked:
        row = _answered(wanted[position], messages)
        with path.open("a", encoding="utf-8") as lines:
            lines.write(row.model_dump_json(exclude_none=True) + "\n")
        print(row.item_id, *row.answers.values(), sep="  ", flush=True)
    _pack(path)


def _arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--model", action="append", required=True, metavar="NAME=URL")
    parser.add_argument("--at-once", type=int, default=4, help="items in flight")
    parser.add_argument("--into", type=Path, default=DATA)
    return parser.parse_args()


def _model(task: Task, name: str, url: str) -> Runnable[Any, AIMessage]:
    """Return the task's prompt piped into a server's model."""
    model = ChatOpenAI(
        model=name,
        base_url=url,
        api_key=SecretStr("none"),
        temperature=0,
        max_completion_tokens=task.max_tokens,
        timeout=300,
    )
    return task.prompt | model.bind(logprobs=True)


def _unanswered(task: Task) -> list[Row]:
    """Return the task's items without answers."""
    return [
        Row(
            item_id=f"{task.name}-{number:03d}",
            input=text,
            gold=gold,
            answers={},
            tokens={},
        )
        for number, (gold, text) in enumerate(task.inputs(), start=1)
    ]


def _answered(row: Row, messages: dict[str, AIMessage]) -> Row:
    """Return the row with the models' answers."""
    for name, message in messages.items():
        used = message.usage_metadata
        if used is None:
            sys.exit(f"{name} does not report its usage")
        row.answers[name] = message.text
        row.tokens[name] = (used["input_tokens"], used["output_tokens"])
        confidence = confidence_of(message)
        row.confidence[name] = None if confidence is None else round(confidence, 4)
    return row


def _rows(path: Path) -> list[Row]:
    """Return the recorded rows, in the order of the items."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return sorted(map(Row.model_validate_json, lines), key=lambda row: row.item_id)


def _pack(path: Path) -> None:
    """Write all rows into one compressed file and delete the loose one."""
    lines = [row.model_dump_json(exclude_none=True) + "\n" for row in _rows(path)]
    packed = gzip.compress("".join(lines).encode(), mtime=0)
    path.with_suffix(".jsonl.gz").write_bytes(packed)
    path.unlink()


if __name__ == "__main__":
    main()
