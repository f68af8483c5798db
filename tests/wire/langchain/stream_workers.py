"""Processes that work on one stream, each with a model of its own on one store.

Run with the server's URL, the store, a folder, the number of processes and of items.
All is imported once; then one process per worker is begun, whose id is printed. Each
writes a record of what it did into the folder: when each answer came, and whether it
was wrong. When all have ended, one more item is asked here, by who has come later.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from langchain_openai import ChatOpenAI

from langchain_smart import Price, SmartChatModel

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
EVERY = 29


def right(number: int) -> str:
    return f"yes {number % 3}"


def say(model: str, text: str, attempt: int) -> str:
    """What the server answers."""
    number = int(text.rsplit(maxsplit=1)[-1])
    wrong = model == "small" and number % EVERY == 0
    return "no" if wrong else right(number)


def work(url: str, store: str, record: Path, items: range) -> None:
    """Answer some items, one by one."""
    big, small = (
        ChatOpenAI(model=name, base_url=url, api_key="none", timeout=60)
        for name in PRICES
    )
    smart = SmartChatModel(
        reference=big,
        candidates=[small],
        prices=PRICES,
        max_disagreement=0.1,
        min_saving=0,
        task="stones",
        store=store,
    )
    told = []
    for number in items:
        said = smart.invoke(f"item {number}").content
        told.append((time.monotonic(), said != right(number)))
    report = smart.report()
    record.write_text(json.dumps({"told": told, **report.model_dump(mode="json")}))


def main(url: str, store: str, folder: str, workers: str, items: str) -> None:
    """Begin the workers, and wait for them."""
    pids = []
    for worker in range(int(workers)):
        pid = os.fork()
        if pid == 0:
            mine = range(worker, int(items), int(workers))
            work(url, store, Path(folder) / f"{worker}.json", mine)
            os._exit(0)
        pids.append(pid)
        print(pid, flush=True)
    ends = [os.waitpid(pid, 0)[1] for pid in pids]
    work(url, store, Path(folder) / "later.json", range(int(items), int(items) + 1))
    print(json.dumps(ends))


if __name__ == "__main__":
    main(*sys.argv[1:])
