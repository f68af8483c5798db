"""Recorded jobs through a provider of ours, live and by batch, over real HTTP.

`python tests/carried_jobs.py ANSWERS.jsonl.gz …` draws a job from each file of recorded
answers, runs it both ways, and says whether the answers are the same, and the ledger is
the provider's bill. A token is a letter here, as in `loopback`; prices are those of the
models file, and half of them by batch.
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from batch_loopback import BatchServer, serve_batches
from langchain_openai import ChatOpenAI

from langchain_smart import Exact, Price, SmartChatModel
from smart_engine import Trace
from smart_engine.offline.traces import Row
from smart_engine.runtime.lanes import members
from smart_engine.runtime.lanes.dispatcher import Pace

ROUNDS = 6


@dataclass(frozen=True)
class Carried:
    """What one job has shown.

    Attributes:
        items: Its size.
        live: What it cost live, in USD.
        batch: What it cost by batch.
        requests: Requests of the live job.
        batches: Batches of the other.
        same: Whether both gave the same answers, by the same models.
        billed: Whether both ledgers were the bill, to the token and the cent.
    """

    items: int
    live: float
    batch: float
    requests: int
    batches: int
    same: bool
    billed: bool


def carried(trace: Trace, rows: int, share: float, seed: int = 1) -> Carried:
    """Run a job of so many rows, drawn from a trace, live and by batch."""
    drawn = random.Random(seed).sample([*trace.rows], min(rows, len(trace.rows)))
    names = [trace.reference, *trace.candidates]
    with serve_batches(lambda model, text, _: _answer(drawn, model, text)) as server:
        made, asked = [], []
        for lane in ("live", "batch"):
            smart = _smart(server, trace, names, lane, share, seed)
            made.append(smart)
            answers = smart.batch([f"item {n}" for n in range(len(drawn))])
            asked.append([(a.content, a.response_metadata["smart"]) for a in answers])
        live, batch = asked
        told = ("model", "role")
        same = [(one, *(mark[key] for key in told)) for one, mark in live] == [
            (one, *(mark[key] for key in told)) for one, mark in batch
        ]
        reports = [smart.report() for smart in made]
        billed = all(
            _is_the_bill(report, provider, trace.prices, names, by_batch=by_batch)
            for report, provider, by_batch in zip(
                reports, (server, server.batched), (False, True), strict=True
            )
        )
        return Carried(
            len(drawn),
            *(report.cost for report in reports),
            server.requests.total(),
            len(server.api.batches),
            same,
            billed,
        )


def _answer(rows: list[Row], model: str, text: Any) -> str:
    return str(rows[int(text.split()[1])].answers[model])


def _halved(price: Price) -> Price:
    return replace(price, batch=Price(price.input / 2, price.output / 2))


def _smart(
    server: BatchServer,
    trace: Trace,
    names: list[str],
    lane: str,
    share: float,
    seed: int,
) -> SmartChatModel:
    where = {"base_url": server.url, "api_key": "none"}
    big, *others = (ChatOpenAI(model=name, **where) for name in names)
    return SmartChatModel(
        reference=big,
        candidates=others,
        prices={name: _halved(trace.prices[name]) for name in names},
        equivalence=Exact(),
        max_disagreement=share,
        max_rounds=ROUNDS,
        seed=seed,
        lane=lane,
        dedupe=False,
    )


def _is_the_bill(
    report: Any,
    provider: Any,
    prices: dict[str, Price],
    names: list[str],
    *,
    by_batch: bool,
) -> bool:
    """Whether a ledger has the tokens that a provider billed, at their price."""
    for name in names:
        price = _halved(prices[name])
        price = price.at("batch") if by_batch else price
        read, written = provider.input_tokens[name], provider.output_tokens[name]
        spend = report.spend.get(name)
        used = (spend.input_tokens, spend.output_tokens) if spend else (0, 0)
        cost = (read * price.input + written * price.output) / 1e6
        if used != (read, written) or not np.isclose(spend.cost if spend else 0, cost):
            return False
    return True


def main() -> int:
    """Run a job of each file and δ; the exit code says whether all is well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--max-disagreement", type=float, nargs="+", default=[0.05])
    chosen = parser.parse_args()
    members.PACE = Pace(first=0.01, longest=0.01, patience=60)
    well = True
    for file in chosen.files:
        trace = Trace.read(file)
        for share in chosen.max_disagreement:
            job = carried(trace, chosen.rows, share)
            well &= job.same and job.billed
            print(
                f"{file.name.partition('.')[0]}, {job.items} items, δ = {share}: "
                f"{job.requests:,} requests {job.live:.6f} USD, {job.batches} batches "
                f"{job.batch:.6f} USD; same answers: {job.same}; ledger = bill: "
                f"{job.billed}",
                flush=True,
            )
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
