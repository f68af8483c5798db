"""Upper bounds of a call's tokens, from its settings and texts: for budgets.

A token is at least one byte of text, and an answer ends at its limit. Content, tools
and settings pass only if they are known to keep that bound: what is not listed here,
such as a picture or a search by the provider, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from smart_engine.amounts import usd
from smart_engine.errors import InvalidInputError

__all__ = [
    "Content",
    "max_output_tokens",
    "overrun",
    "refuse_unbounded_settings",
    "setting_texts",
    "settings_of",
    "tool_types",
]

_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict")
_CHOICES = ("n", "candidate_count")
_BODY = "extra_body"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OWN_SETTINGS = (
    *(*_LIMITS, *_CHOICES, _BODY, "best_of", "plugins", "web_search_options"),
    *("search_parameters", "mcp_servers", "cached_content", "previous_response_id"),
    *("use_previous_response_id", "track_previous_responses", "built_in_tool"),
    *("built_in_tools", "temperature", "profile", "additional_kwargs", "model_kwargs"),
)
"""Names that frameworks and providers use for an answer's limit, the number of answers
of one call, settings that go straight into the request body, the temperature, and what
has no bound, as fields of a model; and for mappings of further settings."""

_GETATTR = vars(BaseModel).get("__getattr__")

_KINDS = _names(
    """
    text input_text output_text refusal thinking redacted_thinking reasoning
    reasoning_content tool_use tool_call tool_call_chunk invalid_tool_call tool_result
    function_call function_call_output custom_tool_call custom_tool_call_output
    input_json_delta search_result cache citable citation
    """
)
"""Types of content that is counted by its bytes."""

_CLIENT_TOOLS = frozenset({"function", "custom", "toolSpec", "function_declarations"})
"""Types of tools that the caller runs."""

_TOOLS = frozenset({"tools", "functions"})
_WRAPPERS = _names(
    """
    extra_body model_kwargs options generation_config generationConfig
    additional_model_request_fields inferenceConfig parameters
    """
)
"""Settings that hold tools, and those that hold settings."""

_BOUNDED = _names(
    """
    model model_name temperature top_p top_k top_a min_p typical_p tfs_z mirostat
    mirostat_eta mirostat_tau seed random_seed stop stop_sequences stop_words
    frequency_penalty presence_penalty repetition_penalty repeat_penalty repeat_last_n
    logit_bias logprobs top_logprobs response_logprobs echo suffix prefix min_tokens

    response_format format response_mime_type responseMimeType response_schema
    response_json_schema responseSchema json_schema text strict guided_json
    guided_choice guided_regex guided_grammar structured_outputs grammar
    chat_template_kwargs include_raw ls_structured_output_format output_version

    tool_choice tool_config tool_required function_call allow_parallel_tool_calls
    parallel_tool_calls disable_parallel_tool_use verbose verbosity

    reasoning reasoning_effort reasoning_format reasoning_summary include_reasoning
    effort output_config thinking thinking_budget thinking_config thinking_level
    thinkingConfig include_thoughts enable_thinking think

    system instructions system_instruction user metadata labels store service_tier
    stream streaming stream_options stream_usage usage include truncation betas
    cache_control prompt_cache_retention prompt_cache_options safe_prompt
    safety_settings safety_identifier use_responses_api

    keep_alive num_ctx num_batch num_gpu num_thread low_vram f16_kv use_mmap use_mlock
    vocab_only numa ignore_eos

    stop_token_ids bad_words allowed_token_ids skip_special_tokens length_penalty
    spaces_between_special_tokens include_stop_str_in_output add_special_tokens
    add_generation_prompt continue_final_message truncate_prompt_tokens priority
    cache_salt guided_decoding_backend guided_whitespace_pattern

    provider transforms user_security_context
    """
)
"""Settings that change neither what is read beyond the texts sent, nor the limit."""

_KNOWN = _BOUNDED.union(_LIMITS, _CHOICES)
_AS_TEXT = {"modalities": ["text"]}

_OF_THE_CLIENT = re.compile(
    "(key|secret|password|credentials?|_token|headers|extra_query|timeout|retries"
    "|callbacks?)$"
)
"""Names of settings that do not reach the model."""

_NO_BOUND = (
    "what this costs cannot be said before it is sent, so that no budget would hold; "
    "leave budget_usd out"
)

_RUN_HERE = f"{_NO_BOUND}, or run tools here"

_NO_LIMIT = (
    "give a whole number, one or more: providers take anything else for an error, or "
    "for no limit, so that no budget would hold"
)

_TOKENS_AROUND_PART = 16
"""Tokens that a provider may put around a message, a tool or a schema."""

_TOKENS_BEFORE_TOOLS = 1024
"""Tokens that it may put before tools and schemas; Anthropic documents up to 530."""


def max_output_tokens(places: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the most tokens that all answers of a call can have, None if unlimited.

    Args:
        places: Settings of the call, those that take precedence first.

    Example:
        ```python
        assert max_output_tokens([{"n": 3}, {"max_tokens": 100, "n": 2}]) == 300
        body = {"max_tokens": 50}
        assert max_output_tokens([{"max_tokens": 9, "extra_body": body}]) == 50
        assert max_output_tokens([{"n": 3}]) is None
        ```
    """
    longest = _largest(places, _LIMITS)
    return None if longest is None else longest * (_largest(places, _CHOICES) or 1)


def settings_of(arguments: Mapping[str, Any], *models: Any) -> list[Mapping[str, Any]]:
    """Return the settings of a call by their source, the one that wins first.

    Args:
        arguments: What the call is made with.
        *models: The model, and another one within it, if there is any.
    """
    places = [arguments]
    for model in models:
        kind: Any = type(model)
        own = {name: getattr(model, name, None) for name in _settable(kind)}
        known = (own.pop("profile", None) or {}).get("max_output_tokens")
        places += [
            own.pop("additional_kwargs", None) or {},
            own.pop("model_kwargs", None) or {},
            {name: value for name, value in own.items() if value is not None},
            {} if known is None else {"max_output_tokens": known},
        ]
    return places


@lru_cache
def _settable(kind: type[Any]) -> list[str]:
    """Return the own settings that models of a class can have."""
    dynamic = getattr(kind, "__getattr__", None) is not _GETATTR
    if dynamic or kind.model_config.get("extra") == "allow":
        return [*_OWN_SETTINGS]
    return [n for n in _OWN_SETTINGS if n in kind.model_fields or hasattr(kind, n)]


def setting_texts(places: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the settings that a model may read, as texts: all but numbers."""
    values = (value for place in places for value in place.values())
    texts = (value for value in values if not isinstance(value, int | float))
    return [str(value) for value in texts if value not in (None, "", [], {})]


@dataclass(frozen=True, slots=True)
class Content:
    """What a call sends, as far as it matters for its cost.

    Attributes:
        texts: Messages, tools, schemas and all other texts that are sent.
        kinds: Types of the parts of its messages.
        tools: Types of its tools; what the provider's own tools read is billed, too.
        with_tools: Whether tools or a schema are among the texts.
    """

    texts: Sequence[str]
    kinds: Sequence[str]
    tools: Sequence[str] = ()
    with_tools: bool = False

    @property
    def max_tokens(self) -> int:
        """The most tokens that it can have."""
        sizes = (len(text.encode("utf-8", "replace")) for text in self.texts)
        before = _TOKENS_BEFORE_TOOLS if self.with_tools else 0
        return before + sum(size + _TOKENS_AROUND_PART for size in sizes)

    def refuse_unbounded(self) -> None:
        """Raise if the tokens of a part cannot be bounded.

        Raises:
            InvalidInputError: It names the part.
        """
        for kind in self.kinds:
            if kind not in _KINDS:
                raise InvalidInputError("messages", kind, f"{_NO_BOUND}, or send text")
        for kind in self.tools:
            if kind not in _CLIENT_TOOLS:
                raise InvalidInputError("tools", kind, _RUN_HERE)


def tool_types(tools: object) -> Iterator[str]:
    """Yield the types of tools in a provider's form, or what stands in their place.

    Example:
        ```python
        tools = [{"type": "custom"}, {"name": "look", "input_schema": {}}]
        assert [*tool_types(tools)] == ["custom", "function"]
        assert [*tool_types([{"google_search": {}}])] == ["google_search"]
        ```
    """
    for tool in tools if isinstance(tools, list | tuple) else [tools]:
        if isinstance(tool, Mapping):
            if "type" in tool or "name" in tool:
                yield str(tool.get("type", "function"))
            else:
                yield from map(str, tool)


def refuse_unbounded_settings(places: Iterable[Mapping[str, Any]]) -> None:
    """Raise unless all settings of a call are known to keep its bound.

    Args:
        places: See `max_output_tokens`.

    Raises:
        InvalidInputError: It names the setting.

    Example:
        ```python
        refuse_unbounded_settings([{"temperature": 0, "web_search_options": None}])
        try:
            refuse_unbounded_settings([{"extra_body": {"plugins": [{"id": "web"}]}}])
        except InvalidInputError as error:
            assert error.field == "plugins"
        ```
    """
    places = list(places)
    bodies = [body for place in places if (body := place.get(_BODY))]
    for names in (_LIMITS, _CHOICES):
        given = [p for p in places if any(p.get(name) is not None for name in names)]
        for place in (*given[:1], *bodies[:1]):
            for name in names:
                value = place.get(name)
                if value is not None and (type(value) is not int or value <= 0):
                    raise InvalidInputError(name, value, _NO_LIMIT)
    for place in places:
        for name, value in place.items():
            _refuse_unbounded_setting(name, value)


def overrun(model: str, paid: float, reserved: float) -> str | None:
    """Return what to warn of where a call cost more than its worst case.

    Its model, or who serves it, ignores the limit of its answers.

    Args:
        model: Name of the model.
        paid: USD that the call cost, as it was reported.
        reserved: USD of its worst case.

    Example:
        ```python
        assert overrun("small", 0.1, 0.1) is None
        assert "budget_usd may not hold" in overrun("small", 0.3, 0.1)
        ```
    """
    if paid <= reserved * (1 + 1e-9):  # sums of floats
        return None
    return (
        f"{model} ignores max_tokens: a call cost {usd(paid)} USD, and {usd(reserved)} "
        "USD at most by its limit; budget_usd may not hold with this model"
    )


def _refuse_unbounded_setting(name: str, value: Any) -> None:
    if not isinstance(value, int | float | str | Mapping | list | tuple) or not value:
        return
    if name in _WRAPPERS and isinstance(value, Mapping):
        for inner, each in value.items():
            _refuse_unbounded_setting(inner, each)
    elif name in _TOOLS:
        for kind in tool_types(value):
            if kind not in _CLIENT_TOOLS and name == "tools":
                raise InvalidInputError(name, kind, _RUN_HERE)
    elif not (name in _KNOWN or value == _AS_TEXT.get(name)):
        if _OF_THE_CLIENT.search(name):
            return
        hint = f"{_NO_BOUND}, or leave this setting out"
        raise InvalidInputError(name, _outline(value), hint)


def _outline(value: Any) -> Any:
    """Return a value without what stands in its mappings: that may be a secret."""
    if isinstance(value, Mapping):
        return list(value)
    return [*map(_outline, value)] if isinstance(value, list | tuple) else value


def _largest(places: Sequence[Mapping[str, Any]], names: Sequence[str]) -> int | None:
    """Return the largest number of these names in the first place that has any.

    The first extra body is read besides: either may win.
    """
    bodies = (place.get(_BODY) for place in places)
    body: Mapping[str, Any] = next((each for each in bodies if each), {})
    found = (_positive_integers(place, names) for place in places)
    first = next((numbers for numbers in found if numbers), [])
    return max([*first, *_positive_integers(body, names)], default=None)


def _positive_integers(place: Mapping[str, Any], names: Sequence[str]) -> list[int]:
    return [n for name in names if type(n := place.get(name)) is int and n > 0]
