"""What turns the retries of a client off: what it offers, whatever its class."""

from __future__ import annotations

from functools import cached_property
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, PrivateAttr

from smart_engine import InvalidInputError, Price
from smart_engine.runtime.clients import asked_once, once
from smart_engine.serving.members import Member


class Client:
    """A client as the SDKs of providers have it."""

    def __init__(self, max_retries: int = 2) -> None:
        self.max_retries = max_retries
        self.chat = Resource(self)

    def with_options(self, max_retries: int) -> Client:
        return Client(max_retries)


class Resource:
    """A part of a client that makes the requests."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self) -> str:
        return "answered"


class OfTenants(Client):
    """A client of the user's, which takes no copies."""

    def with_options(self, **options: Any) -> Client:
        raise TypeError("a tenant is needed")


class Model(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    name: str = "big"


class Holding(Model):
    """Like ChatOpenAI and ChatGroq."""

    max_retries: int | None = None
    client: Any = None
    callbacks: Any = None


class Lazy(Model):
    """Like ChatAnthropic."""

    max_retries: int = 3

    @cached_property
    def _client(self) -> Client:
        return Client(self.max_retries)


class Private(Model):
    """Like LlamaIndex's Anthropic."""

    max_retries: int = 4
    _client: Any = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        self._client = Client(self.max_retries)


class PerCall(Model):
    """Like ChatMistralAI and ChatGoogleGenerativeAI."""

    max_retries: int = 6


PerCall.__module__ = "langchain_google_genai.chat_models"


def botocore(**retries: Any) -> Any:
    config = SimpleNamespace(retries={"mode": "standard", **retries})
    return SimpleNamespace(meta=SimpleNamespace(config=config))


def test_a_client_is_replaced_and_the_users_own_stays_as_it_is() -> None:
    shared = ["a callback"]
    model = Holding(client=Client(5), callbacks=shared)
    found = asked_once(model)
    assert (found.retries, found.unseen) == (5, False)
    assert found.value.client.max_retries == 0
    assert found.value.callbacks is shared
    assert model.client.max_retries == 5
    assert found.value.max_retries is None  # a part of LangChain's keys for caches


def test_a_resource_is_made_anew_on_the_replaced_client() -> None:
    client = Client(2)
    found = asked_once(Holding(client=client.chat))
    assert found.value.client._client.max_retries == 0
    assert client.chat._client.max_retries == 2
    assert found.retries == 2


def test_a_client_that_is_made_later_repeats_nothing_either() -> None:
    model = Lazy()
    found = asked_once(model)
    assert found.value._client.max_retries == 0
    assert (found.retries, model._client.max_retries) == (3, 3)


def test_a_private_client_is_replaced() -> None:
    model = Private()
    found = asked_once(model)
    assert found.value._client.max_retries == 0
    assert (found.retries, model._client.max_retries) == (4, 4)


def test_a_setting_that_is_read_at_each_call_is_enough() -> None:
    model = PerCall()
    found = asked_once(model)
    assert (found.value.max_retries, model.max_retries) == (1, 6)
    assert (found.retries, found.unseen, found.way_out) == (5, False, "max_retries=1")
    assert asked_once(PerCall(max_retries=1)).retries == 0


@pytest.mark.parametrize(
    "model",
    [
        Model(),
        Holding(),
        Holding(max_retries=0),
        Holding(client=botocore(total_max_attempts=1)),
    ],
)
def test_a_model_that_repeats_nothing_is_asked_itself(model: Model) -> None:
    found = asked_once(model)
    assert found.value is model
    assert (found.retries, found.unseen) == (0, False)


@pytest.mark.parametrize(
    ("model", "way_out"),
    [
        (Holding(max_retries=2), "give it max_retries=0$"),
        (Holding(max_retries=2, client=object()), "give it max_retries=0$"),
        (Holding(client=OfTenants()), "give it max_retries=0$"),
        (Holding(client=botocore()), r"Config\(retries={'total_max_attempts': 1}"),
        (Holding(client=botocore(total_max_attempts=3)), r"Config\(retries="),
    ],
)
def test_where_nothing_turns_them_off_a_budget_is_refused(
    model: Model, way_out: str
) -> None:
    limited = [{"max_tokens": 5}]
    member = once(Member("big", model, Price(1, 1)))
    member.output_limit(limited)  # without a budget nothing is refused
    with pytest.raises(
        InvalidInputError, match=rf"^budget_usd=2: .*Holding.*{way_out}"
    ):
        member.check_budget(2, limited)
    free = once(Member("big", model, Price.free()))
    free.check_budget(2, limited)
    assert member.retries == 0  # the client makes them


def test_what_the_user_put_into_a_client_is_kept() -> None:
    traced, tenants = Client(), OfTenants()
    traced.chat.create = lambda: "traced"
    for client in (traced, tenants):
        model = Holding(client=client)
        found = asked_once(model)
        assert found.value is model
        assert (found.retries, found.unseen) == (2, True)


def test_one_client_that_repeats_makes_the_others_repeat_as_well() -> None:
    traced = Client()
    traced.chat.create = lambda: "traced"
    model = Holding(client=traced, callbacks=Client())
    assert asked_once(model).value.callbacks.max_retries == 2
