"""Jobs that are killed at any moment: a warm process forks one for each line it reads.

Run with a server's URL. A line that names a kind of job alone warms the process up: it
runs such a job itself, and answers "warm". Each other line names a kind of job, the
store, the seed and a file; the answer is the job's process id, and later, in that file,
a JSON record of its result, if it lived. Forked from a process that has imported all
it needs and made no connection, a job begins within milliseconds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Self

import httpx
from langchain_core.output_parsers import StrOutputParser
from langchain_openai import ChatOpenAI

from langchain_smart import Price, SmartChatModel, SmartRunnable
from smart_engine.runtime.lanes import dispatcher, members
from smart_engine.runtime.lanes.dispatcher import Pace

ITEMS = [f"item {number}" for number in range(30)]
AT_ONCE = 4
PRICES = {
    "big": Price(10, 30, batch=Price(5, 15)),
    "small": Price(0.1, 0.4, batch=Price(0.05, 0.2)),
}
VERBS = {
    "batch": "batch",
    "abatch": "abatch",
    "complete_batch": "complete_batch",
    "acomplete_batch": "acomplete_batch",
    "chain": "batch",
    "achain": "abatch",
}
"""Name of a kind of job → the verb that runs it."""

LANES = {"lane": "batch", "alane": "abatch"}
"""The same, by a provider's batches."""

AUTO = {"mixed": "batch", "amixed": "abatch"}
"""The same, by batches where many calls can be made at once, and live where few."""

ANTHROPIC = {"messages": "batch", "amessages": "abatch"}
"""The same, by batches in Anthropic's form."""

WORTH_A_BATCH = 10
"""Calls that are many here."""


@dataclass
class Nursery:
    """This script at work, seen from the test that kills what it forks."""

    orders: IO[str]
    replies: IO[str]
    kinds: set[str] = field(default_factory=set)

    @classmethod
    @contextmanager
    def of(cls, url: str) -> Iterator[Self]:
        """Start the script for jobs that ask a server."""
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(
            [sys.executable, __file__, url], text=True, **pipes
        ) as it:
            assert it.stdin
            assert it.stdout
            yield cls(it.stdin, it.stdout)
            it.stdin.close()
            it.wait(20)

    def _order(self, *words: Any) -> str:
        self.orders.write(" ".join(map(str, words)) + "\n")
        self.orders.flush()
        return self.replies.readline()

    def warm_up(self, kind: str) -> None:
        """Make it ready for a kind of job."""
        if kind not in self.kinds:
            assert self._order(kind) == "warm\n"
            self.kinds.add(kind)

    def begin(self, kind: str, store: str, seed: int, file: Path) -> int:
        """Begin a job; return its process id."""
        return int(self._order(kind, store, seed, file))

    def ended(self) -> int:
        """Wait for the end of the job; return its exit code."""
        return int(self.replies.readline())


def smart_model(url: str, kind: str, terms: dict[str, Any], clients: Any) -> Any:
    """Return a smart object for a kind of job, of a framework that loads when asked."""
    if kind in ANTHROPIC:
        from langchain_anthropic import ChatAnthropic

        # Clients are shared by their timeouts: a fork must make its own connections.
        at = {"base_url": url, "api_key": "none", "default_request_timeout": 20}
        at["default_request_timeout"] += terms["seed"]
        big, small = (ChatAnthropic(model=name, max_tokens=50, **at) for name in PRICES)
        return SmartChatModel(reference=big, candidates=[small], lane="batch", **terms)
    if not kind.endswith("complete_batch"):
        at = {"base_url": url, "api_key": "none", "http_client": clients[0]}
        at |= {"http_async_client": clients[1], "max_retries": 0}
        if kind in LANES | AUTO:
            terms |= {"lane": "batch" if kind in LANES else "auto"}
        big, small = (ChatOpenAI(model=name, **at) for name in PRICES)
        if kind.endswith("chain"):
            reference = {"big": big | StrOutputParser()}
            candidates = {"small": small | StrOutputParser()}
            terms |= {"reference": reference, "candidates": candidates, "version": "1"}
            return SmartRunnable(**terms)
        return SmartChatModel(reference=big, candidates=[small], **terms)
    from llama_index.llms.openai_like import OpenAILike

    from llama_index_smart import SmartLLM

    at = {"api_base": url, "api_key": "none", "http_client": clients[0]}
    at |= {"async_http_client": clients[1], "max_retries": 0, "is_chat_model": True}
    big, small = (OpenAILike(model=name, **at) for name in PRICES)
    return SmartLLM(reference=big, candidates=[small], **terms)


async def answered(url: str, kind: str, store: str, seed: int) -> dict[str, Any]:
    """Run a job to its end; return its record."""
    terms = {
        "prices": PRICES,
        "max_disagreement": 0.2,
        "confidence": 0.9,
        "max_concurrency": AT_ONCE,
        "seed": seed,
        "store": store,
    }
    with httpx.Client(verify=False) as sync:  # noqa: S501 - it speaks no TLS at all
        async with httpx.AsyncClient(verify=False) as client:  # noqa: S501
            smart = smart_model(url, kind, terms, (sync, client))
            ask = getattr(smart, (VERBS | LANES | AUTO | ANTHROPIC)[kind])
            answers = await ask(ITEMS) if kind.startswith("a") else ask(ITEMS)
    (certificate,) = smart.report().certificates
    return {
        "answers": [a if isinstance(a, str) else a.text for a in answers],
        "certificate": certificate.model_dump(mode="json"),
        "restored": smart.report().restored,
    }


def warm(url: str, kind: str) -> None:
    """Import and build all that a kind of job needs."""
    with TemporaryDirectory() as folder:
        asyncio.run(answered(url, kind, f"{folder}/{kind}.db", 0))
    gc.collect()
    gc.freeze()  # else collecting in a job would copy all of it
    print("warm", flush=True)


def main(url: str) -> None:
    """Do what each line says."""
    members.PACE = Pace(first=0.001, longest=0.001, unlisted=0.01)
    dispatcher.WORTH_A_BATCH = WORTH_A_BATCH
    for line in sys.stdin:
        kind, *job_named = line.split()
        if not job_named:
            warm(url, kind)
            continue
        store, seed, file = job_named
        job = os.fork()
        if not job:
            record = json.dumps(asyncio.run(answered(url, kind, store, int(seed))))
            Path(file).write_text(record)
            os._exit(0)
        print(job, flush=True)
        _, status = os.waitpid(job, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
