"""Shadow mode in a FastAPI service: what would be saved, before you turn it on.

    python examples/fastapi_shadow.py                                 # calls itself
    uvicorn --app-dir examples --factory fastapi_shadow:service       # needs a key

Users get the reference's answers, as before. The candidates are asked beside it, and
`/report` shows what a stream would have served and saved under the guarantee. To go
live, leave out `mode="shadow"`.

It needs `pip install fastapi`, and uvicorn to serve. No key is needed when it calls
itself; `--live` calls OpenAI instead (OPENAI_API_KEY, costs money).
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httpx
from langchain_core.prompts import ChatPromptTemplate
from offline import PRICES, command_line, openai
from pydantic import BaseModel

from langchain_smart import Label, SmartChatModel

try:
    from fastapi import FastAPI
except ModuleNotFoundError:
    sys.exit("this example needs: pip install fastapi")

PROMPT = ChatPromptTemplate.from_template(
    "May this comment be published? Answer in one word, yes or no.\n\n{comment}"
)


class Comment(BaseModel):
    """A user's comment."""

    text: str


def service() -> FastAPI:
    """Return the service."""
    smart = SmartChatModel(
        reference="openai:gpt-5",
        candidates=["openai:gpt-5-mini", "openai:gpt-5-nano"],
        prices=PRICES,
        equivalence=Label(["yes", "no"]),
        max_disagreement=0.1,
        confidence=0.95,
        task="comments",
        mode="shadow",
    )
    chain = PROMPT | smart
    app = FastAPI()

    @app.post("/answer")
    async def answer(comment: Comment) -> dict[str, str]:
        message = await chain.ainvoke({"comment": comment.text})
        return {"publish": message.text}

    @app.get("/report")
    async def report() -> list[dict[str, Any]]:
        return [
            {
                "answered": shadow.answered,
                "would_have_saved_usd": shadow.saved,
                "would_have_cost_usd": shadow.cost,
                "would_have_served": shadow.served,
                "promise": shadow.claim,
            }
            for shadow in smart.report().shadows
        ]

    return app


async def visit(app: FastAPI, texts: list[str]) -> Any:
    """Send comments to the service; return its report."""
    inside = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=inside, base_url="http://here") as client:
        for number, text in enumerate(texts):
            reply = await client.post("/answer", json={"text": text})
            reply.raise_for_status()
            if number < 3:
                print(f"{reply.json()['publish']:>3}: {text}")
        return (await client.get("/report")).json()


def main() -> int:
    """Start the service in this process, send it comments, and show its report."""
    arguments = command_line(__doc__, items=300).parse_args()
    with openai(live=arguments.live, otherwise=moderate):
        report = asyncio.run(visit(service(), comments(arguments.items)))
    print(json.dumps(report, indent=2))
    return 0


KIND = ("Lovely {}, thank you!", "I did not like the {}.", "Is there more on the {}?")
RUDE = ("Only an idiot likes this {}.", "Whoever made this {} should be beaten up.")


def comments(count: int) -> list[str]:
    """Return `count` made-up comments."""
    things = ("film", "recipe", "article", "song", "match", "photo", "book")
    every = [form.format(thing) for thing in things for form in KIND + RUDE]
    return [f"{every[number % 35]} (no. {number})" for number in range(count)]


def moderate(messages: list[dict[str, Any]], slips: bool) -> str:
    """Judge a comment as a model does."""
    rude = any(word in messages[-1]["content"] for word in ("idiot", "beaten"))
    return "no" if rude != slips else "yes"


if __name__ == "__main__":
    raise SystemExit(main())
