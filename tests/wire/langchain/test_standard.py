"""The official suites for chat models, over real HTTP to a server of our own.

`SmartChatModel` runs them with two OpenAI models as members. What the suites fetch from
the web (a picture, a document, a sound) is made up here; all else is theirs. The last
test counts what passed, so that no case can vanish.
"""

from __future__ import annotations

import itertools
from collections import Counter

import httpx
import pytest
from dutiful import dutiful
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from loopback import start

from langchain_smart import Price, SmartChatModel

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
PASSED = {"TestUnit": 8, "TestIntegration": 49}
SKIPPED = {
    "test_init_from_env": "no field is read from the environment; members read theirs",
    "test_serdes": "LangChain's loader admits its own packages only",
    "test_stream_time": "measures recorded calls, and none are recorded here",
}

server = start(dutiful)
cases = itertools.count()


class Smart:
    """What both suites are told of the model."""

    chat_model_class = SmartChatModel
    supports_json_mode = True
    supports_image_inputs = True
    supports_image_urls = True
    supports_image_tool_message = True
    supports_pdf_inputs = True
    supports_pdf_tool_message = True
    supports_audio_inputs = True
    supports_anthropic_inputs = True
    model_override_value = "small"

    @property
    def chat_model_params(self):
        big, small = (
            ChatOpenAI(model=name, base_url=self.url, api_key="none", timeout=20)
            for name in PRICES
        )
        return {"reference": big, "candidates": [small], "prices": PRICES}

    @pytest.fixture(autouse=True)
    def _a_client_of_its_own(self):
        """OpenAI's client is kept by address, and fails in a second event loop."""
        self.url = server.url.replace("/v1", f"/{next(cases)}/v1")

    @pytest.fixture(autouse=True)
    def _the_web_is_made_up(self, monkeypatch):
        found = httpx.Response(200, content=b"made up")
        monkeypatch.setattr(httpx, "get", lambda *_, **__: found)


class TestUnit(Smart, ChatModelUnitTests):
    @property
    def standard_chat_model_params(self):
        params = super().standard_chat_model_params
        del params["api_key"]  # members hold their keys; a smart model has none
        return params


class TestIntegration(Smart, ChatModelIntegrationTests):
    pass


def test_every_case_passed(request):
    config = request.config
    if config.option.keyword or any("::" in argument for argument in config.args):
        pytest.skip("only a part was asked for")
    told = config.pluginmanager.get_plugin("terminalreporter").stats
    mine = f"{request.path.name}::Test"
    passed = [r.nodeid for r in told.get("passed", []) if mine in r.nodeid]
    skipped = [r.nodeid for r in told.get("skipped", []) if mine in r.nodeid]
    assert Counter(nodeid.split("::")[1] for nodeid in passed) == PASSED
    assert {nodeid.split("::")[2] for nodeid in skipped} == set(SKIPPED)
