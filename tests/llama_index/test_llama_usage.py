"""What a call used, read from wherever an integration of LlamaIndex puts it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
)

from llama_index_smart.cost import usage_of
from smart_engine.money.pricing import Usage

COUNTED = {"prompt_tokens": 90, "completion_tokens": 5, "total_tokens": 95}
OPENAI = {
    "prompt_tokens": 90,
    "completion_tokens": 25,
    "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": None},
    "completion_tokens_details": {"reasoning_tokens": 20},
}
ANTHROPIC = {
    "input_tokens": 30,
    "output_tokens": 25,
    "cache_read_input_tokens": 40,
    "cache_creation_input_tokens": 20,
}
FOR_AN_HOUR = {
    **ANTHROPIC,
    "cache_creation": {
        "ephemeral_5m_input_tokens": 5,
        "ephemeral_1h_input_tokens": 15,
    },
}
LITELLM = {  # OpenAI's form, with Anthropic's names beside it
    **OPENAI,
    "cache_read_input_tokens": 40,
    "cache_creation_input_tokens": 20,
}
GEMINI = {
    "prompt_token_count": 90,
    "candidates_token_count": 5,
    "thoughts_token_count": 20,
    "cached_content_token_count": 40,
    "total_token_count": 115,
}
PLAIN_GEMINI = {**GEMINI, "thoughts_token_count": None} | {
    "cached_content_token_count": None,
    "total_token_count": 95,
}
XAI = {**OPENAI, "completion_tokens": 5, "total_tokens": 115}
CONVERSE = {"inputTokens": 90, "outputTokens": 5}


@pytest.mark.parametrize(
    ("raw", "counted", "used"),
    [
        (None, COUNTED, Usage(90, 5)),
        ({"usage": OPENAI}, {}, Usage(90, 25, cache_read=40, reasoning=20)),
        (
            SimpleNamespace(usage=SimpleNamespace(**OPENAI)),
            {},
            Usage(90, 25, cache_read=40, reasoning=20),
        ),
        (
            {"usage": SimpleNamespace(**ANTHROPIC)},
            {},
            Usage(90, 25, cache_read=40, cache_write=20),
        ),
        (
            {"usage": SimpleNamespace(**FOR_AN_HOUR)},
            {},
            Usage(90, 25, cache_read=40, cache_write=5, cache_write_1h=15),
        ),
        (
            {"usage": LITELLM},
            {},
            Usage(90, 25, cache_read=40, cache_write=20, reasoning=20),
        ),
        (
            {"usage_metadata": GEMINI},
            COUNTED,
            Usage(90, 25, cache_read=40, reasoning=20),
        ),
        ({"usage_metadata": PLAIN_GEMINI}, {}, Usage(90, 5)),
        ({"usage": CONVERSE}, COUNTED, Usage(90, 5)),
        ({"usage": XAI}, {}, Usage(90, 25, cache_read=40, reasoning=20)),
        (None, {**COUNTED, "total_tokens": 115}, Usage(90, 25, reasoning=20)),
        ({"usage": None}, {}, None),
        ({"usage": {"prompt_tokens": 90}}, {}, None),
        ("text", {}, None),
    ],
    ids=[
        *(
            "counted",
            "OpenAI",
            "OpenAI objects",
            "Anthropic",
            "for an hour",
            "LiteLLM",
            "Gemini that thinks",
        ),
        *("Gemini", "Converse", "xAI", "a larger total"),
        *("none", "half", "no usage"),
    ],
)
def test_the_usage_is_found(raw, counted, used):
    told = {"raw": raw, "additional_kwargs": counted}
    assert usage_of(ChatResponse(message=ChatMessage(), **told)) == used
    assert usage_of(CompletionResponse(text="", **told)) == used
