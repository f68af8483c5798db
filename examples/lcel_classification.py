"""LCEL: a batch of tickets through `prompt | model | parser`, with a certificate.

    python examples/lcel_classification.py
    smart verify tickets.json

No key is needed; `--live` calls OpenAI instead (OPENAI_API_KEY, costs money).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from offline import PRICES, command_line, openai
from recorded_tasks import TICKETS

from langchain_smart import Label, SmartChatModel

QUEUES = ("billing", "delivery", "returns", "account", "technical")
PROMPT = ChatPromptTemplate(
    [
        ("system", f"Sort the ticket. Answer in one word: {', '.join(QUEUES)}."),
        ("human", "{ticket}"),
    ]
)
WRITTEN = {text: queue for queue, text in TICKETS.inputs()}


def main() -> int:
    """Classify the tickets; show the cost and the guarantee."""
    parser = command_line(__doc__, items=420)
    parser.add_argument("--certificate", type=Path, default=Path("tickets.json"))
    arguments = parser.parse_args()
    inputs = [{"ticket": text} for text in list(WRITTEN)[: arguments.items]]
    with openai(live=arguments.live, otherwise=sort):
        smart = SmartChatModel(
            reference="openai:gpt-5",
            candidates=["openai:gpt-5-mini", "openai:gpt-5-nano"],
            prices=PRICES,
            equivalence=Label(list(QUEUES)),
            max_disagreement=0.05,
            confidence=0.95,
            task="tickets",
            promise="batch",  # one job alone
            progress=True,
        )
        chain = PROMPT | smart | StrOutputParser()
        answers = chain.batch(inputs)
    for asked, answer in zip(inputs[:3], answers, strict=False):
        print(f"{answer:>9}: {asked['ticket']}")
    print(", ".join(f"{n} {queue}" for queue, n in Counter(answers).most_common()))
    report = smart.report()
    certificate = report.certificates[0]
    print(f"\n{report}\n\n{certificate.claim}")
    arguments.certificate.write_text(certificate.model_dump_json(), encoding="utf-8")
    print(f"Verify it: smart verify {arguments.certificate}")
    return 0


def sort(messages: list[dict[str, Any]], slips: bool) -> str:
    """Classify a ticket as its writer did; a slip names another queue."""
    queue = WRITTEN[messages[-1]["content"]] or QUEUES[0]
    return QUEUES[QUEUES.index(queue) - 1] if slips else queue


if __name__ == "__main__":
    raise SystemExit(main())
