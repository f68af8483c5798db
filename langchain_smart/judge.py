"""Chat models as judges of whether two answers mean the same."""

from __future__ import annotations

from functools import partial

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_core.prompt_values import ChatPromptValue

from langchain_smart.chat.call import ChatRequester
from langchain_smart.chat.members import ChatMember, read_model
from langchain_smart.chat.request import Request
from smart_engine.calls import Failure, Result
from smart_engine.equivalence import Judge
from smart_engine.equivalence.judge import INSTRUCTIONS
from smart_engine.money.pricing import Price
from smart_engine.runtime.clients import once
from smart_engine.runtime.requester import Attempts
from smart_engine.serving.members import find_member

__all__ = ["ChatJudge"]


class ChatJudge(Judge):
    """Answers are the same when a chat model says so twice, once in each order.

    See `Judge`. It is called while answers are compared, one comparison at a time, and
    off the event loop. With one candidate it judges only items that the reference
    answered; several candidates are compared with each other, too.

    Args:
        model: A chat model, or a string such as `"openai:gpt-5-mini"`.
        price: What it charges; looked up if left out, as for members.
        instructions: See `Judge`.
        estimate_usage: See `SmartChatModel`.

    Raises:
        InvalidInputError: If it is no chat model, or its price is not known.

    Example:
        ```python
        from langchain_core.language_models import FakeListChatModel

        from langchain_smart.judge import ChatJudge

        model = FakeListChatModel(name="judge", responses=["different"])
        rule = ChatJudge(model, price=Price.free())
        assert rule.name == "ChatJudge('judge', instructions #5413ed85)"
        assert not rule.same("It is 5.", "It is 6.")
        ```
    """

    __slots__ = ()

    def __init__(
        self,
        model: BaseChatModel | str,
        *,
        price: Price | None = None,
        instructions: str = INSTRUCTIONS,
        estimate_usage: bool = False,
    ) -> None:
        named = read_model("ChatJudge.model", model)
        prices = {} if price is None else {named.name: price}
        member = once(find_member(named, prices, "price=Price(input=…, output=…)"))
        ask = partial(_ask, member, estimate_usage)
        super().__init__(ask, member.name, instructions, member.price != Price.free())


def _ask(member: ChatMember, estimate_usage: bool, text: str) -> Result:
    """Ask a chat model, without the caller's callbacks."""
    members = {member.name: member}
    sent = ChatPromptValue(messages=[HumanMessage(text)])
    requester = ChatRequester(
        members, Request({}), sent, None, estimate_usage, lambda _: None
    )
    result = requester.context().run(Attempts(requester, member.name).run)
    if isinstance(result, Failure):
        return result
    return result._replace(answer=str(result.answer.text))
