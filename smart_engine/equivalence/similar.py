"""The rule for free text: the same when embeddings point the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from smart_engine.equivalence._base import Rule, called
from smart_engine.equivalence.texts import Normalized
from smart_engine.errors import InvalidInputError, SmartError, UnparseableAnswerError

__all__ = ["EmbeddingError", "Similar"]

_KEPT = 4096
"""Embeddings kept, the latest ones."""

Vectors = Sequence[Sequence[float]]


class EmbeddingError(SmartError):
    """What an embedding function returned is no vector, or none of the same length."""


@dataclass(frozen=True, slots=True)
class Similar(Rule):
    """Texts are the same when the cosine of their embeddings reaches a threshold.

    Texts that `Normalized` calls the same are not embedded; what was embedded is
    remembered. What embedding costs is not in the ledger. The function is called while
    answers are compared, one comparison at a time.

    Args:
        embed: Returns the vector of a text, such as `embeddings.embed_query`.
        threshold: Least cosine that counts as the same, at most 1.
        many: Whether `embed` takes a list of texts and returns a list of vectors, such
            as `embeddings.embed_documents`: one call a comparison instead of two.
        model: Name of the embedding model, for certificates.

    Raises:
        InvalidInputError: If an argument cannot be used.

    Example:
        ```python
        rule = Similar(lambda text: [text.count("a"), text.count("b")], threshold=0.9)
        assert agree(rule, "aab", "aaaab")
        assert not agree(rule, "aab", "abb")
        ```
    """

    embed: Callable[[Any], Any] = field(repr=False)  # may show a key
    threshold: float = 0.85
    many: bool = False
    model: str | None = None
    reads_text: ClassVar[bool] = True
    _known: dict[str, Any] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Check the arguments."""
        if not callable(self.embed):
            hint = "give a function from a text to its vector"
            raise InvalidInputError("Similar.embed", self.embed, hint)
        share = self.threshold
        number = isinstance(share, int | float) and not isinstance(share, bool)
        if not (number and 0 < share <= 1):
            hint = "the least cosine that counts as the same, such as 0.85; at most 1"
            raise InvalidInputError("Similar.threshold", share, hint)

    @property
    def _settings(self) -> str:
        return f"{self.model or called(self.embed)}, threshold={self.threshold!r}"

    def parse(self, answer: Any) -> str:
        """Return the text."""
        text = str(answer).strip()
        if not text:
            raise UnparseableAnswerError("an empty text has no meaning to compare")
        return text

    def same(self, left: str, right: str) -> bool:
        """Whether the texts' embeddings are near enough."""
        fold = Normalized().parse
        if left == right or fold(left) == fold(right):
            return True
        one, other = self._vectors(left, right)
        if one.shape != other.shape:
            problem = f"vectors of {one.size} and of {other.size} numbers"
            raise EmbeddingError(f"{self.name}: {problem}")
        return bool(one @ other >= self.threshold)

    def _vectors(self, *texts: str) -> list[Any]:
        """Return the texts' vectors, each of length 1."""
        known = {text: self._known[text] for text in texts if text in self._known}
        new = [text for text in texts if text not in known]
        found = self.embed(new) if self.many and new else [self.embed(t) for t in new]
        if len(found) != len(new):
            problem = f"{len(found)} vectors of {len(new)} texts; is many= right?"
            raise EmbeddingError(f"{self.name}: {problem}")
        for text, vector in zip(new, found, strict=True):
            known[text] = self._known[text] = self._unit(vector)
        while len(self._known) > _KEPT:
            self._known.pop(next(iter(self._known)), None)
        return [known[text] for text in texts]

    def _unit(self, vector: Any) -> Any:
        """Return a vector at length 1."""
        try:
            array = np.asarray(vector, float)
            length = float(np.linalg.norm(array))
        except (TypeError, ValueError):
            array, length = np.empty(0), 0.0
        if array.ndim != 1 or not 0 < length < float("inf"):
            hint = "is no vector of finite numbers; is many= right?"
            raise EmbeddingError(f"{self.name}: {str(vector)[:60]} {hint}")
        return array / length
