"""Batches in Anthropic's form: message batches, each with its requests in one body.

A batch keeps no name of ours, so each of its requests has it. The provider tells them
once the batch has ended; until then any batch may be one that is looked for, if it is
no older and has as many requests.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from smart_engine.errors import MissingExtraError
from smart_engine.runtime.lanes.carrier import (
    GoneError,
    Limits,
    NotYetKnownError,
    Row,
    State,
    UnansweredError,
    UncarriableError,
    account_of,
    without_user,
)
from smart_engine.runtime.lanes.exchange import Reply, Request
from smart_engine.serving.submissions import Submission

__all__ = ["AnthropicBatches"]

_BETA = "anthropic-beta"
_BETWEEN, _LONGEST = "_", 64
"""What is between a request's name and its batch's; most letters of both together."""

_SLACK = 60.0
"""Seconds by which the provider's clock may be behind ours."""

_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""Types of errors → the HTTP status that a live call would have had; else 500."""


class AnthropicBatches:
    """Carries requests in Anthropic's message batches.

    Args:
        client: An Anthropic client that makes each request once.
    """

    limits = Limits(rows=100_000, size=250_000_000)

    def __init__(self, client: Any) -> None:
        self._client = client

    @classmethod
    def at(cls, address: str) -> AnthropicBatches:
        """Return who carries requests at an address, with the environment's key.

        Raises:
            MissingExtraError: If Anthropic's client is not installed.
        """
        try:
            from anthropic import Anthropic
        except ModuleNotFoundError as error:
            raise MissingExtraError("anthropic", "looking at batches") from error
        return cls(Anthropic(base_url=address, max_retries=0))

    @property
    def address(self) -> str:
        """Where the provider is."""
        return without_user(self._client.base_url)

    @property
    def account(self) -> str:
        """What tells the key from others."""
        return account_of(self._client.auth_headers)

    def kind(self, request: Request) -> str:
        """Return the endpoint of a request, and the beta features that it asks for."""
        path = urlsplit(request.url).path
        if not path.endswith("/v1/messages"):
            raise UncarriableError(f"a batch takes messages only, not {path}")
        if json.loads(request.body).get("stream"):
            hint = "a batch streams nothing: give its model streaming=False"
            raise UncarriableError(hint)
        return f"/v1/messages {request.headers.get(_BETA, '')}"

    def encode(self, row: Row) -> bytes:
        """Return a request as an element of a batch's body."""
        params = json.loads(row.request.body)
        params.pop("stream", None)
        one = {"custom_id": row.name, "params": params}
        return json.dumps(one, ensure_ascii=False).encode()

    def submit(self, name: str, kind: str, rows: Sequence[bytes]) -> str:
        """Create a batch."""
        beta, requests = kind.partition(" ")[2], [json.loads(row) for row in rows]
        for request in requests:
            request["custom_id"] = _mark(request["custom_id"], name)
        batch = self._client.messages.batches.create(
            requests=requests,
            extra_headers={_BETA: beta} if beta else None,
        )
        return str(batch.id)

    def find(self, submission: Submission, others: Collection[str]) -> str | None:
        """Return the id of the batch that has its requests, if any has.

        Raises:
            NotYetKnownError: If that shows once a batch has ended.
        """
        under_way = []
        for batch in self._client.messages.batches.list(limit=100):
            if batch.created_at.timestamp() < submission.began - _SLACK:
                break  # the list begins with the newest
            requests = sum(_counts(batch).values())
            if requests != len(submission.rows) or batch.id in others:
                continue
            if batch.archived_at is not None:
                continue  # nothing tells whose it was, and its answers are gone
            if batch.processing_status != "ended":
                under_way.append(str(batch.id))
            elif self._has(batch.id, _mark(submission.rows[0], submission.name)):
                return str(batch.id)
        if under_way:
            hint = f"one of these may be it, which shows once it ends: {under_way}"
            raise NotYetKnownError(hint)
        return None

    def _has(self, batch: str, mark: str) -> bool:
        results = self._client.messages.batches.results(batch)
        return any(each.custom_id == mark for each in results)

    def look(self, batch: str) -> State:
        """Return where a batch is."""
        found = self._client.messages.batches.retrieve(batch)
        done = sum(n for kind, n in _counts(found).items() if kind != "processing")
        if found.archived_at is not None:
            raise GoneError(f"its answers were removed at {found.archived_at}")
        status = found.processing_status
        return State(status, status == "ended", done)

    def replies(self, batch: str) -> Iterator[tuple[str, Reply | UnansweredError]]:
        """Yield what the results of a batch say."""
        for each in self._client.messages.batches.results(batch):
            yield each.custom_id.partition(_BETWEEN)[0], _reply(each.result)

    def cancel(self, batch: str) -> None:
        """Let a batch end with what is answered so far."""
        self._client.messages.batches.cancel(batch)


def _mark(row: str, name: str) -> str:
    """Return what a request is called in the batch of that name: 64 letters at most."""
    return f"{row}{_BETWEEN}{name}"[:_LONGEST]


def _counts(batch: Any) -> dict[str, int]:
    return {kind: int(count) for kind, count in batch.request_counts}


def _reply(result: Any) -> Reply | UnansweredError:
    """Return what one result says: a message, an error, or nothing."""
    if result.type == "succeeded":
        return Reply(200, result.message.to_json(indent=None).encode())
    if result.type == "errored":
        status = _STATUS.get(result.error.error.type, 500)
        return Reply(status, result.error.to_json(indent=None).encode())
    return UnansweredError(f"the batch ended without an answer: {result.type}")
