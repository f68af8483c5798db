"""An agent with tools whose model calls cost less: `SmartMiddleware`.

    python examples/agent.py

All steps of the agent, tool calls and answers alike, are one stream. At first the
reference takes them; it takes fewer and fewer as a candidate proves to call the same
tools with the same arguments and to give the same figure. A question takes two model
calls, one that calls the tool and one that answers, so 150 questions are 300 items.

No key is needed; `--live` calls OpenAI instead (OPENAI_API_KEY, costs money).
"""

from __future__ import annotations

import json
import re
from itertools import cycle, islice, product
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from offline import PRICES, ToolCall, command_line, openai

from langchain_smart import Number, SmartMiddleware

COLOURS = ("red", "green", "blue", "white", "black", "yellow", "grey", "brown")
THINGS = ("lamp", "chair", "desk", "shelf", "stool", "mirror", "carpet", "clock")
WAREHOUSE = {
    f"{colour} {thing}": (number * 7 % 23, 15 + number * 31 % 180)
    for number, (colour, thing) in enumerate(product(COLOURS, THINGS))
}
SYSTEM = "Answer questions about our warehouse with one figure, and nothing else."


@tool
def stock(article: str) -> int:
    """Return how many pieces of an article, such as "red lamp", are in stock."""
    return WAREHOUSE[article][0]


@tool
def price(article: str) -> int:
    """Return what an article, such as "red lamp", costs in euros."""
    return WAREHOUSE[article][1]


def main() -> int:
    """Ask the agent many questions; show the cost and the guarantee."""
    arguments = command_line(__doc__, items=150).parse_args()
    with openai(live=arguments.live, otherwise=reason):
        smart = SmartMiddleware(
            candidates=["openai:gpt-5-mini", "openai:gpt-5-nano"],
            prices=PRICES,
            equivalence=Number(),
            max_disagreement=0.1,
            confidence=0.95,
            task="warehouse",
        )
        agent = create_agent(
            "openai:gpt-5", [stock, price], system_prompt=SYSTEM, middleware=[smart]
        )
        for number, question in enumerate(questions(arguments.items)):
            state = agent.invoke({"messages": [HumanMessage(question)]})
            if number < 3:
                print(f"{question}\n  {state['messages'][-1].text}")
    report = smart.report()
    print(f"\n{report}\n")
    for stream in report.streams:
        print(stream.claim)
        print(f"Now {stream.policy} answers; {stream.audit_rate:.0%} is audited.")
    return 0


def questions(count: int) -> list[str]:
    """Return `count` questions; they repeat after 128."""
    forms = ("How many pieces of the {} are in stock?", "What does the {} cost?")
    every = [form.format(article) for article in WAREHOUSE for form in forms]
    return list(islice(cycle(every), count))


def reason(messages: list[dict[str, Any]], slips: bool) -> str | ToolCall:
    """Take an agent's next step, as a model with both tools does."""
    question = next(m["content"] for m in messages if m["role"] == "user")
    article = re.findall(r"the (\w+ \w+)", question)[0]
    asks_price = ("cost" in question) != slips
    if messages[-1]["role"] != "tool":
        return ToolCall("price" if asks_price else "stock", {"article": article})
    return str(json.loads(messages[-1]["content"]))


if __name__ == "__main__":
    raise SystemExit(main())
