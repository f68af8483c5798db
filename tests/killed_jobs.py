"""Jobs that are killed at any moment: a warm process forks one for each line it reads.

Run with a server's URL and kinds of jobs. Each line names a kind of job, the store, the
seed and a file; the answer is the job's process id, and later, in that file, a JSON
record of its result, if it lived. Forked from a process that has imported all it
needs and made no connection, a job begins within milliseconds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from langchain_anthropic import ChatAnthropic
from langchain_core.output_parsers import StrOutputParser
from langchain_openai import ChatOpenAI
from llama_index.llms.openai_like import OpenAILike

from langchain_smart import SmartChatModel, SmartRunnable
from llama_index_smart import Price, SmartLLM
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


def smart_model(url: str, kind: str, terms: dict[str, Any], clients: Any) -> Any:
    """Return a smart object for a kind of job."""
    if kind in ANTHROPIC:
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


def main(url: str, *kinds: str) -> None:
    """Fork a job for each line, once all that jobs import and build has been used."""
    members.PACE = Pace(first=0.001, longest=0.001)
    dispatcher.WORTH_A_BATCH = WORTH_A_BATCH
    with TemporaryDirectory() as folder:
        for kind in kinds:
            asyncio.run(answered(url, kind, f"{folder}/{kind}.db", 0))
    gc.collect()
    gc.freeze()  # else collecting in a job would copy all of it
    print("warm", flush=True)
    for line in sys.stdin:
        kind, store, seed, file = line.split()
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
