"""LlamaIndex: a nightly job that extracts fields from documents, with a certificate.

    python examples/llama_index_nightly_extraction.py --certificate night.json
    smart verify night.json

It needs `pip install llama-index-llms-openai`. No key is needed; `--live` calls OpenAI
instead (OPENAI_API_KEY, costs money).
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

from llama_index.core import PromptTemplate
from llama_index.llms.openai import OpenAI
from offline import PRICES, command_line, openai

from llama_index_smart import SmartLLM
from smart_engine import Certificate, Date, Json, Number

VENDORS = ("Alder & Co", "Birch Ltd", "Cedar Works", "Elm Traders", "Hazel & Sons")
PROMPT = PromptTemplate(
    "Extract vendor, total and due date from the invoice. Answer with one JSON object "
    'and nothing else, such as {{"vendor": "A", "total": 1.5, "due": "2026-01-31"}}.'
    "\n\n{invoice}"
)


def main() -> int:
    """Run the job over all invoices; show the cost and the guarantee."""
    parser = command_line(__doc__, items=500)
    parser.add_argument("--certificate", type=Path, help="where to write it")
    arguments = parser.parse_args()
    prompts = [PROMPT.format(invoice=text) for text in invoices(arguments.items)]
    with openai(live=arguments.live, otherwise=extract):
        smart = SmartLLM(
            reference=OpenAI(model="gpt-5"),
            candidates=[OpenAI(model="gpt-5-mini"), OpenAI(model="gpt-5-nano")],
            prices=PRICES,
            equivalence=Json(fields={"total": Number(absolute=0.01), "due": Date()}),
            max_disagreement=0.05,
            confidence=0.95,
            task="invoices",
            progress=True,
        )
        answers = smart.complete_batch(prompts)
    for answer in answers[:3]:
        print(answer.text)
    report = smart.report()
    print(f"\n{report}\n")
    certificate = report.certificates[0]
    _explain(certificate)
    if arguments.certificate:
        arguments.certificate.write_text(
            certificate.model_dump_json(indent=1), encoding="utf-8"
        )
        print(f"Verify it: smart verify {arguments.certificate}")
    return 0


def invoices(count: int, seed: int = 0) -> list[str]:
    """Return `count` made-up invoices."""
    rng = random.Random(seed)  # noqa: S311 - nothing secret is made here
    return [
        f"Invoice {number:05d}\n"
        f"From: {rng.choice(VENDORS)}\n"
        f"{rng.randint(1, 9)} lamps, {rng.randint(1, 9)} bulbs\n"
        f"Total: {rng.randint(1000, 99999) / 100:.2f} EUR\n"
        f"Please pay by {rng.randint(1, 28):02d}.{rng.randint(1, 12):02d}.2026."
        for number in range(count)
    ]


def extract(messages: list[dict[str, Any]], slips: bool) -> str:
    """Read the invoice as a model does; a slip leaves out its total."""
    vendor, total, day, month, year = re.findall(
        r"From: (.+)\n.*\nTotal: ([\d.]+) EUR\nPlease pay by (\d+)\.(\d+)\.(\d+)\.",
        messages[-1]["content"],
    )[0]
    due = f"{year}-{month}-{day}"
    amount = None if slips else float(total)
    return json.dumps({"vendor": vendor, "total": amount, "due": due})


def _explain(certificate: Certificate) -> None:
    print(f"Certificate {certificate.id} ({certificate.strategy})")
    print(certificate.claim)
    for seen in certificate.evidence:
        print(
            f"  {seen.model}: {seen.errors} of {seen.draws} drawn answers differed, "
            f"{seen.mean_cost:.6f} USD an item: {seen.verdict}"
        )
    print(
        f"  {certificate.profiled:,} of {certificate.items:,} documents were audited; "
        f"the reference alone would have cost about "
        f"{certificate.reference_only_cost or 0.0:.4f} USD, "
        f"all models together cost {certificate.cost:.4f} USD."
    )


if __name__ == "__main__":
    raise SystemExit(main())
