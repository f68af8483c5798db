"""Objects whose fields have aliases, streamed from members that do not stream."""

from __future__ import annotations

import json
from typing import TypedDict

import pytest
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_openai import ChatOpenAI
from llama_index.core.prompts import PromptTemplate
from loopback import Calls, serve
from pydantic import BaseModel, Field

from langchain_smart import Price, SmartChatModel
from llama_index_smart import LangChainLLM, SmartLLM

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
FILLED = {"Kind": "spam", "theScore": 3}


class Mail(BaseModel):
    """What a mail is."""

    kind: str = Field(alias="Kind")
    score: int = Field(alias="theScore")


class MailDict(TypedDict):
    """What a mail is."""

    Kind: str
    theScore: int


SCHEMAS = {"class": Mail, "TypedDict": MailDict, "JSON": Mail.model_json_schema()}


class Unstreamed(ChatOpenAI):
    """A model whose class implements no streams."""

    _stream = BaseChatModel._stream
    _astream = BaseChatModel._astream


def script(model, text, attempt):
    if tools := text.body.get("tools"):
        return Calls([(tools[0]["function"]["name"], FILLED)])
    return json.dumps(FILLED)


def members(server, kind):
    settings = {"disable_streaming": True} if kind is ChatOpenAI else {}
    at = {"base_url": server.url, "api_key": "none", "max_retries": 0, **settings}
    return [kind(model=name, **at) for name in PRICES]


@pytest.mark.parametrize("kind", [Unstreamed, ChatOpenAI])
@pytest.mark.parametrize("include_raw", [False, True])
@pytest.mark.parametrize("schema", SCHEMAS)
async def test_they_are_those_of_the_member_itself(schema, include_raw, kind):
    asked = SCHEMAS[schema]
    with serve(script) as server:
        big, small = members(server, kind)
        smart = SmartChatModel(reference=big, candidates=[small], prices=PRICES)
        for method in ("json_schema", "function_calling", "json_mode"):
            how = {"method": method, "include_raw": include_raw}
            alone = big.with_structured_output(asked, **how).invoke("mail")
            ours = smart.with_structured_output(asked, **how)
            streams = [[*ours.stream("mail")], [p async for p in ours.astream("mail")]]
            for pieces in streams:
                if not include_raw:
                    assert pieces[-1] == alone
                    continue
                found = {}
                for piece in pieces:
                    found |= piece
                assert found["parsed"] == alone["parsed"]
                assert found["parsing_error"] is None


@pytest.mark.parametrize("kind", [Unstreamed, ChatOpenAI])
async def test_so_they_are_in_llama_index(kind):
    prompt = PromptTemplate("mail")
    with serve(script) as server:
        big, small = members(server, kind)
        smart = SmartLLM(reference=big, candidates=[small], prices=PRICES)
        for llm in (LangChainLLM(model=big), smart):
            objects = list(llm.stream_structured_predict(Mail, prompt))
            streamed = await llm.astream_structured_predict(Mail, prompt)
            objects += [each async for each in streamed]
            assert objects[0] == objects[-1] == Mail(**FILLED)
