"""A nightly job: extract fields from a pile of documents, with a certificate.

    python examples/llama_index_nightly_extraction.py --certificate night.json
    smart verify night.json

No key is needed: the models are scripted (see scripted_llm.py). `--live` asks real
OpenAI models instead; it needs OPENAI_API_KEY and costs money.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path

from llama_index.core import PromptTemplate
from scripted_llm import LIVE, PRICES, live, scripted

from llama_index_smart import SmartLLM
from smart_engine import Certificate, Json

VENDORS = ("Alder & Co", "Birch Ltd", "Cedar Works", "Elm Traders", "Hazel & Sons")
NOTHING = json.dumps({"vendor": None, "total": None, "due": None})
PROMPT = PromptTemplate(
    "Extract vendor, total and due date from the invoice. Answer with one JSON object "
    'and nothing else, such as {{"vendor": "A", "total": 1.5, "due": "2026-01-31"}}.'
    "\n\n{invoice}"
)


def main() -> int:
    """Run the job over all invoices, and show what it cost and what is promised."""
    arguments = _arguments()
    models = live() if arguments.live else scripted(extract, wrong=NOTHING)
    smart = SmartLLM(
        reference=models[0],
        candidates=models[1:],
        prices=LIVE if arguments.live else PRICES,
        equivalence=Json(),
        max_disagreement=arguments.max_disagreement,
        confidence=arguments.confidence,
        task="invoices",
        progress=True,
    )
    prompts = [PROMPT.format(invoice=text) for text in invoices(arguments.documents)]
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
        print(f"Recheck it by: smart verify {arguments.certificate}")
    return 0


def invoices(count: int, seed: int = 0) -> list[str]:
    """Return `count` invoices, made up on the spot."""
    rng = random.Random(seed)  # noqa: S311 - nothing secret is made here
    return [
        f"Invoice {number:05d}\n"
        f"From: {rng.choice(VENDORS)}\n"
        f"{rng.randint(1, 9)} lamps, {rng.randint(1, 9)} bulbs\n"
        f"Total: {rng.randint(1000, 99999) / 100:.2f} EUR\n"
        f"Please pay by {rng.randint(1, 28):02d}.{rng.randint(1, 12):02d}.2026."
        for number in range(count)
    ]


def extract(prompt: str) -> str:
    """Answer as a model does that reads the invoice in the prompt."""
    vendor, total, day, month, year = re.findall(
        r"From: (.+)\n.*\nTotal: ([\d.]+) EUR\nPlease pay by (\d+)\.(\d+)\.(\d+)\.",
        prompt,
    )[0]
    due = f"{year}-{month}-{day}"
    return json.dumps({"vendor": vendor, "total": float(total), "due": due})


def _arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--max-disagreement", type=float, default=0.05)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--certificate", type=Path, help="where to write it")
    parser.add_argument("--live", action="store_true", help="ask real OpenAI models")
    return parser.parse_args()


def _explain(certificate: Certificate) -> None:
    """Show what a certificate says."""
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
