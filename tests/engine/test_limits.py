"""Within a budget passes only what is known to have a bound."""

from __future__ import annotations

import pytest

from smart_engine import InvalidInputError, Price
from smart_engine.money.limits import Content, overrun, refuse_unbounded_settings
from smart_engine.serving.members import Member

MEMBER = Member("m", None, Price(1, 2))
LIMIT = {"max_tokens": 8}


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"web_search_options": {"search_context_size": "low"}}, "web_search_options"),
        ({"extra_body": {"plugins": [{"id": "web"}]}}, "plugins"),
        ({"extra_body": {"web_search": True}}, "web_search"),
        ({"extra_body": {"extra_body": {"search": 1}}}, "search"),
        ({"extra_body": {"tools": [{"type": "web_search"}]}}, "tools"),
        ({"tools": [{"google_search": {}}]}, "tools"),
        ({"tools": [{"function_declarations": [], "google_search": {}}]}, "tools"),
        ({"tools": [{"type": "mcp", "server_url": "https://x"}]}, "tools"),
        ({"model_kwargs": {"best_of": 9}}, "best_of"),
        ({"enable_search": True}, "enable_search"),
        ({"search_keywords": ["x"]}, "search_keywords"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"models": ["a", "b"]}, "models"),
        ({"modalities": ["text", "audio"]}, "modalities"),
    ],
    ids=str,
)
def test_a_setting_that_is_not_known_to_be_bounded_is_refused(settings, field) -> None:
    content = Content(["a text"], ["text"])
    for refuse in (
        lambda: MEMBER.output_limit([{}, settings, LIMIT]),
        lambda: MEMBER.worst_case(content, [settings, LIMIT]),
    ):
        with pytest.raises(InvalidInputError, match="leave budget_usd out, or") as told:
            refuse()
        assert told.value.field == field
    free = Member("m", None, Price.free())
    assert free.worst_case(content, [settings]) == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0, "top_p": 0.5, "seed": 1, "stop": ["x"], "logprobs": True},
        {"extra_body": {"stop_token_ids": [1], "skip_special_tokens": True}},
        {"extra_body": {"provider": {"order": ["one"]}, "transforms": ["middle-out"]}},
        {"response_format": {"type": "json_object"}, "reasoning_effort": "low"},
        {
            "extra_body": {
                "top_k": 3,
                "chat_template_kwargs": {"enable_thinking": False},
            }
        },
        {"web_search_options": None, "plugins": [], "enable_search": False},
        {"tools": [{"type": "function", "function": {}}], "tool_choice": "auto"},
        {"tools": [{"name": "look", "input_schema": {}}, {"toolSpec": {}}]},
        {"extra_headers": {"x": "y"}, "api_key": "hush", "timeout": 3, "model": "m"},
        {"options": {"num_ctx": 2048}, "modalities": ["text"], "callbacks": ["x"]},
    ],
    ids=str,
)
def test_known_settings_pass(settings) -> None:
    refuse_unbounded_settings([settings, LIMIT])
    assert MEMBER.output_limit([settings, LIMIT]) == 8


def test_a_refusal_shows_no_values_of_mappings() -> None:
    with pytest.raises(InvalidInputError) as told:
        refuse_unbounded_settings([{"plugins": [{"id": "web", "auth": "hush"}]}])
    assert str(told.value).startswith("plugins=[['id', 'auth']]: what this costs")


@pytest.mark.parametrize("value", [0, -1, "100", 8.0, True], ids=repr)
@pytest.mark.parametrize("name", ["max_tokens", "num_predict", "n"])
def test_a_limit_that_is_none_is_refused(name, value) -> None:
    for places in ([{name: value}, LIMIT], [LIMIT, {"extra_body": {name: value}}]):
        with pytest.raises(InvalidInputError, match="one or more") as told:
            MEMBER.output_limit(places)
        assert (told.value.field, told.value.value) == (name, value)


def test_a_limit_that_another_one_replaces_does_not_matter() -> None:
    assert MEMBER.output_limit([LIMIT, {"max_tokens": -1}]) == 8


@pytest.mark.parametrize(
    "kind", ["container_upload", "image", "['image_url']", "", "server_tool_use"]
)
def test_a_part_that_is_not_known_to_be_counted_by_its_bytes_is_refused(kind) -> None:
    content = Content(["x"], ["text", kind])
    with pytest.raises(InvalidInputError, match="or send text") as told:
        MEMBER.worst_case(content, [LIMIT])
    assert (told.value.field, told.value.value) == ("messages", kind)


def test_a_call_that_cost_more_than_its_worst_case_is_noticed() -> None:
    worst = MEMBER.worst_case(Content(["x"], ["text"]), [LIMIT])
    assert overrun("small", worst, worst) is None
    assert overrun("small", 0.0, 0.0) is None
    said = overrun("small", 2 * worst, worst)
    assert said.startswith("small ignores max_tokens: a call cost")
