"""Any LLM as judge of whether two answers mean the same."""

from __future__ import annotations

from functools import partial
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms import LLM

from llama_index_smart.call import LLMRequester
from llama_index_smart.compare import text_of
from llama_index_smart.members import LLMMember, asked_once, read_model
from llama_index_smart.request import Ask
from smart_engine.calls import Failure, Result
from smart_engine.equivalence import Judge
from smart_engine.equivalence.judge import INSTRUCTIONS
from smart_engine.money.pricing import Price
from smart_engine.runtime.requester import Attempts
from smart_engine.serving.members import find_member

__all__ = ["ChatJudge"]


class ChatJudge(Judge):
    """Answers are the same when an LLM says so twice, once in each order.

    See `Judge`. It is asked while answers are compared, one comparison at a time; async
    code does not wait for it on the event loop. With one candidate only items that the
    reference answered are judged; several are compared with each other, too.

    Args:
        model: A LlamaIndex LLM, or a LangChain chat model.
        price: What it charges; looked up if left out, as for members.
        instructions: What it reads before the answers; it must ask for one word,
            `same` or `different`.
        estimate_usage: Where it reports no usage that can be priced, estimate it, and
            mark what rests on that; otherwise such a call has failed. See `SmartLLM`.

    Raises:
        InvalidInputError: If it is no LLM, or its price is not known.

    Example:
        ```python
        from llama_index.core.llms.mock import MockLLM

        from llama_index_smart.judge import ChatJudge

        rule = ChatJudge(MockLLM(), price=Price.free())
        assert rule.name == "ChatJudge('MockLLM', instructions #5413ed85)"
        assert not rule.same("It is 5.", "It is 6.")
        ```
    """

    __slots__ = ()

    def __init__(
        self,
        model: LLM | Any,
        *,
        price: Price | None = None,
        instructions: str = INSTRUCTIONS,
        estimate_usage: bool = False,
    ) -> None:
        named = read_model("ChatJudge.model", model)
        prices = {} if price is None else {named.name: price}
        way_out = "price=Price(input=…, output=…)"
        member = asked_once(find_member(named, prices, way_out))
        ask = partial(_ask, member, estimate_usage)
        super().__init__(ask, member.name, instructions, member.price != Price.free())


def _ask(member: LLMMember, estimate_usage: bool, text: str) -> Result:
    """Ask an LLM, out of sight of the callbacks that watch the answers."""
    ask = Ask.chat([ChatMessage(content=text)], {})
    members = {member.name: member}
    requester = LLMRequester(members, ask, estimate_usage, lambda _: None)
    result = Attempts(requester, member.name).run()
    if isinstance(result, Failure):
        return result
    return result._replace(answer=text_of(result.answer))
