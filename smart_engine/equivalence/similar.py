"""The rule for free text: the same when embeddings point the same way, and billed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from smart_engine.calls import Outcome
from smart_engine.equivalence.rule import Rule, function_name
from smart_engine.equivalence.texts import Normalized
from smart_engine.equivalence.verdicts import verdict_of
from smart_engine.errors import InvalidInputError, SmartError, UnparseableAnswerError
from smart_engine.money.pricing import Price, Usage
from smart_engine.money.spending import make_rule_call

__all__ = ["EmbeddingError", "Similar"]

_CACHE_SIZE = 32_768
"""Number of embeddings, the oldest are dropped; 6 kB each at 1,536 dimensions."""


class EmbeddingError(SmartError):
    """An embedding function returned no vector, or one of another length."""


@dataclass(frozen=True, slots=True)
class Similar(Rule):
    """Texts are the same when the cosine of their embeddings reaches a threshold.

    Texts that `Normalized` calls the same are not embedded, and no text is embedded
    twice. What embedding costs is in certificates and reports, as `embedding: …`. The
    function is called while answers are compared, one comparison at a time.

    Args:
        embed: Returns the vector of a text, such as `embeddings.embed_query`.
        threshold: Least cosine that counts as the same, at most 1.
        many: Whether `embed` takes a list of texts and returns a list of vectors, such
            as `embeddings.embed_documents`: one call a comparison instead of two.
        price: What `embed` charges: `Price.per_call(usd)`; or `Price(0.02, 0)`, in USD
            per million tokens, with `tokens`; or `Price.free()` for a local model.
        tokens: Counts a text's tokens as the embedding model does: vectors report no
            usage.
        model: Name of the embedding model, for certificates. If left out, the `model`
            or `model_name` of the object that `embed` is a method of.

    Raises:
        InvalidInputError: If an argument cannot be used.

    Example:
        ```python
        def embed(text):
            return [text.count("a"), text.count("b")]


        rule = Similar(embed, threshold=0.9, price=Price.free(), model="letters 1")
        assert agree(rule, "aab", "aaaab")
        assert not agree(rule, "aab", "abb")
        ```
    """

    embed: Callable[[Any], Any] = field(repr=False)  # may show a key
    threshold: float = 0.85
    many: bool = False
    price: Price | None = None
    tokens: Callable[[str], int] | None = field(default=None, repr=False)
    model: str | None = None
    reads_text: ClassVar[bool] = True
    waits: ClassVar[bool] = True
    _cache: dict[str, Any] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Check the arguments."""
        if not callable(self.embed):
            hint = "give a function from a text to its vector"
            raise InvalidInputError("Similar.embed", self.embed, hint)
        cosine = self.threshold
        number = isinstance(cosine, int | float) and not isinstance(cosine, bool)
        if not (number and 0 < cosine <= 1):
            hint = "the least cosine that counts as the same, such as 0.85; at most 1"
            raise InvalidInputError("Similar.threshold", cosine, hint)
        if self.tokens is not None and not callable(self.tokens):
            hint = "give a function from a text to its number of tokens"
            raise InvalidInputError("Similar.tokens", self.tokens, hint)
        if not isinstance(self.price, Price):
            hint = (
                "say what embedding costs: Price.per_call(usd), or Price(input, 0) in "
                "USD per million tokens with tokens=, or Price.free() for a local model"
            )
            raise InvalidInputError("Similar.price", self.price, hint)
        if (self.price.input or self.price.above) and self.tokens is None:
            hint = (
                "a price per token needs tokens=, a function from a text to its number "
                "of tokens, for vectors report no usage; or give Price.per_call(usd)"
            )
            raise InvalidInputError("Similar.price", self.price, hint)
        object.__setattr__(self, "model", self.model or _model_of(self.embed))

    @property
    def costs(self) -> bool:
        """Whether embedding costs money."""
        return self.price != Price.free()

    @property
    def _settings(self) -> str:
        return f"{self.model}, threshold={self.threshold!r}"

    def parse(self, answer: Any) -> str:
        """Return the text."""
        text = str(answer).strip()
        if not text:
            raise UnparseableAnswerError("an empty text has no meaning to compare")
        return text

    def same(self, left: str, right: str) -> bool:
        """Whether the cosine of the texts' embeddings reaches the threshold."""
        normalize = Normalized().parse
        if left == right or normalize(left) == normalize(right):
            return True
        first, second = sorted((left, right))
        return verdict_of(self.name, first, second, lambda: self._near(first, second))

    def _near(self, left: str, right: str) -> bool:
        one, other = self._vectors_of(left, right)
        if one.shape != other.shape:
            problem = f"vectors of {one.size} and of {other.size} numbers"
            raise EmbeddingError(f"{self.name}: {problem}")
        return bool(one @ other >= self.threshold)

    def _vectors_of(self, *texts: str) -> list[Any]:
        """Return the texts' vectors, each of length 1."""
        known = {text: self._cache[text] for text in texts if text in self._cache}
        new = [text for text in texts if text not in known]
        if self.many:
            vectors = self._embed(new, new) if new else []
        else:
            vectors = [self._embed(text, [text]) for text in new]
        if len(vectors) != len(new):
            problem = f"{len(vectors)} vectors of {len(new)} texts; is many= right?"
            raise EmbeddingError(f"{self.name}: {problem}")
        for text, vector in zip(new, vectors, strict=True):
            known[text] = self._cache[text] = self._unit(vector)
        while len(self._cache) > _CACHE_SIZE:
            self._cache.pop(next(iter(self._cache)), None)
        return [known[text] for text in texts]

    def _embed(self, given: Any, texts: Sequence[str]) -> Any:
        """Call the function once, and report what that costs."""
        price, count = self.price, self.tokens
        assert price is not None  # noqa: S101 - checked above
        usage = Usage(sum(count(text) for text in texts) if count is not None else 0)

        def ask() -> Outcome:
            return Outcome(self.embed(given), price.cost(usage), usage)

        return make_rule_call(f"embedding: {self.model}", ask).answer

    def _unit(self, vector: Any) -> Any:
        try:
            array = np.asarray(vector, float)
            length = float(np.linalg.norm(array))
        except (TypeError, ValueError):
            array, length = np.empty(0), 0.0
        if array.ndim != 1 or not 0 < length < float("inf"):
            hint = "is no vector of finite numbers; is many= right?"
            raise EmbeddingError(f"{self.name}: {str(vector)[:60]} {hint}")
        return (array / length).astype(np.float32)


def _model_of(embed: Callable[..., Any]) -> str:
    owner = getattr(embed, "__self__", None)
    names = (getattr(owner, name, None) for name in ("model", "model_name"))
    return next((n for n in names if isinstance(n, str) and n), function_name(embed))
