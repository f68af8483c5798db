"""Batches in OpenAI's form: `/v1/files` and `/v1/batches`, as many servers have them.

A file of JSONL names each request; a batch makes those of one endpoint and one model.
Answers come in one file, failures in another, in no order. A batch that expires or is
cancelled has the answers until then, which alone are billed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from smart_engine.errors import MissingExtraError
from smart_engine.runtime.failure import is_missing
from smart_engine.runtime.lanes.carrier import (
    Limits,
    Row,
    State,
    UnansweredError,
    UncarriableError,
    account_of,
    without_user,
)
from smart_engine.runtime.lanes.exchange import Reply, Request
from smart_engine.serving.submissions import Submission

__all__ = ["OpenAIBatches"]

_ENDED = {"completed", "failed", "expired", "cancelled"}
_FULL = {"token_limit_exceeded", "request_limit_exceeded"}
"""Why a batch fails where too much is waiting already."""

_NAME = "smart_batch"
"""Key of our name among a batch's metadata."""

_PAGE = 100
"""Batches in one page of the list."""


class OpenAIBatches:
    """Carries requests in batches of OpenAI's form.

    Args:
        client: An OpenAI client that makes each request once.
    """

    limits = Limits(rows=50_000, size=200_000_000)

    def __init__(self, client: Any) -> None:
        self._client = client
        self._uploaded: dict[str, str] = {}  # our name → the file, until it has a batch

    @classmethod
    def at(cls, address: str) -> OpenAIBatches:
        """Return who carries requests at an address, with the environment's key.

        Raises:
            MissingExtraError: If OpenAI's client is not installed.
        """
        try:
            from openai import OpenAI
        except ModuleNotFoundError as error:
            raise MissingExtraError("langchain", "looking at batches") from error
        return cls(OpenAI(base_url=address, max_retries=0))

    @property
    def address(self) -> str:
        """Where the provider is."""
        return without_user(self._client.base_url)

    @property
    def account(self) -> str:
        """What tells the key, its organization and project from others."""
        client = self._client
        return account_of(client.auth_headers, client.organization, client.project)

    def kind(self, request: Request) -> str:
        """Return the endpoint of a request, and its model."""
        body = json.loads(request.body)
        if body.get("stream"):
            hint = "a batch streams nothing: give its model streaming=False"
            raise UncarriableError(hint)
        path = urlsplit(request.url).path
        base = urlsplit(self.address).path.rstrip("/")
        own = path.removeprefix(base).rpartition("/v1/")[2].lstrip("/")
        return f"/v1/{own} {body.get('model', '')}"

    def encode(self, row: Row) -> bytes:
        """Return a line of JSONL."""
        endpoint, _, _ = self.kind(row.request).partition(" ")
        head = {"custom_id": row.name, "method": "POST", "url": endpoint}
        body = json.loads(row.request.body)
        return json.dumps({**head, "body": body}, ensure_ascii=False).encode() + b"\n"

    def submit(self, name: str, kind: str, rows: Sequence[bytes]) -> str:
        """Upload a file, unless it was uploaded before; create a batch of it."""
        endpoint, _, _ = kind.partition(" ")
        if name not in self._uploaded:
            file = (f"{name}.jsonl", b"".join(rows), "application/jsonl")
            uploaded = self._client.files.create(file=file, purpose="batch")
            self._uploaded[name] = uploaded.id
        batch = self._client.batches.create(
            input_file_id=self._uploaded[name],
            endpoint=endpoint,
            completion_window="24h",
            metadata={_NAME: name},
        )
        del self._uploaded[name]
        return str(batch.id)

    def find(self, submission: Submission, others: Collection[str]) -> str | None:
        """Return the id of the batch with its name among the metadata, if any."""
        del others
        for batch in self._client.batches.list(limit=_PAGE):
            if (batch.metadata or {}).get(_NAME) == submission.name:
                self._uploaded.pop(submission.name, None)
                return str(batch.id)
        return None

    def look(self, batch: str) -> State:
        """Return where a batch is."""
        found = self._client.batches.retrieve(batch)
        counts, problem, busy = found.request_counts, None, False
        if found.status == "failed":
            errors = (found.errors and found.errors.data) or []
            problem = "; ".join(str(each.message) for each in errors) or "no reason"
            busy = any(each.code in _FULL for each in errors)
        done = counts.completed + counts.failed if counts else 0
        return State(found.status, found.status in _ENDED, done, problem, busy)

    def replies(self, batch: str) -> Iterator[tuple[str, Reply | UnansweredError]]:
        """Yield what the files of answers and of failures say, if need be one alone."""
        found, deleted = self._client.batches.retrieve(batch), None
        for file in filter(None, (found.output_file_id, found.error_file_id)):
            try:
                content = self._client.files.content(file).content
            except Exception as error:
                if not is_missing(error):
                    raise
                deleted = error
                continue
            for line in content.split(b"\n"):
                try:
                    row = json.loads(line)
                    yield str(row["custom_id"]), _reply(row)
                except (LookupError, TypeError, ValueError):
                    continue  # an empty or broken line answers nothing
        if deleted is not None:
            raise deleted

    def cancel(self, batch: str) -> None:
        """Let a batch end with what is answered so far."""
        self._client.batches.cancel(batch)


def _reply(row: dict[str, Any]) -> Reply | UnansweredError:
    """Return what a line says."""
    response = row.get("response")
    if response:
        body = json.dumps(response["body"]).encode()
        return Reply(int(response["status_code"]), body)
    error = row.get("error") or {}
    reason = error.get("message") or error.get("code") or "no reason"
    return UnansweredError(f"the batch ended without an answer: {reason}")
