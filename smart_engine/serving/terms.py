"""The terms of serving: who answers, what is promised, and how it is kept.

Every session and every decider of an adapter is begun here.
"""

from __future__ import annotations

from dataclasses import dataclass

from smart_engine.equivalence import Equivalence
from smart_engine.errors import InvalidInputError, check_whole
from smart_engine.guarantee import Guarantee
from smart_engine.serving.books import Books
from smart_engine.serving.deciders import Decider, NamedModel, Shadow
from smart_engine.session import BatchSession
from smart_engine.stream.session import StreamSession
from smart_engine.tiers import Tier

__all__ = ["Terms"]

_MODES = ("serve", "shadow")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a smart model was told by its user, whatever the framework.

    Attributes:
        models: Names of the models, reference first.
        guarantee: What is promised.
        rule: When two answers mean the same, as the user said it.
        strategy: How batches are served; see `BatchSession`.
        looks: For the paper's strategies.
        mode: `"serve"`; or `"shadow"`: everybody is asked, the reference answers.
        seed: Seed of all randomness.
        max_concurrency: Most calls of a batch in flight at once.

    Example:
        ```python
        terms = Terms(("big", "small"), Guarantee(0.05, 0.95), Exact())
        terms.check()
        assert terms.session(100, Exact(), "a task").next_calls()
        ```
    """

    models: tuple[str, ...]
    guarantee: Guarantee
    rule: Equivalence
    strategy: str = "audit"
    looks: str = "corrected"
    mode: str = "serve"
    seed: int = 0
    max_concurrency: int = 32

    def check(self) -> None:
        """Raise unless all of it can be used.

        Raises:
            InvalidInputError: It names the field.
        """
        if self.mode not in _MODES:
            raise InvalidInputError("mode", self.mode, "choose 'serve' or 'shadow'")
        check_whole("max_concurrency", self.max_concurrency, 1)
        self.session(0, self.rule, None)

    def session(
        self, n_items: int, rule: Equivalence, task: str | None
    ) -> BatchSession:
        """Return a fresh session over that many items.

        Args:
            n_items: Number of items.
            rule: How answers to this request are compared.
            task: Name of the task.
        """
        return BatchSession(
            n_items,
            self._tiers,
            self.guarantee,
            task=task,
            strategy=self.strategy,
            looks=self.looks,
            seed=self.seed,
            equivalence=rule,
            max_in_flight=self.max_concurrency,
        )

    def decider(
        self, books: Books, rule: Equivalence, task: str, model: str | None = None
    ) -> Decider:
        """Return who decides on one item; the only place that does.

        Args:
            books: Where the task's stream is kept.
            rule: How answers to this request are compared.
            task: Name of the task.
            model: The model that must answer, if the caller named one.

        Raises:
            InvalidInputError: If the caller named a model that is not there.
        """
        if model is not None:
            if model not in self.models:
                hint = f"name one of the members: {', '.join(self.models)}"
                raise InvalidInputError("model", model, hint)
            return NamedModel(model, "named")
        if self.strategy == "reference":
            return NamedModel(self.models[0], "reference")

        def begin() -> StreamSession:
            return StreamSession(
                self._tiers,
                self.guarantee,
                seed=self.seed,
                equivalence=rule,
                task=task,
            )

        key = (task, self.guarantee, self.seed, self.models, rule.name, id(self.rule))
        shadow = self.mode == "shadow"
        stream = books.stream(key, begin, shadow=shadow)
        return Shadow(stream, self.models) if shadow else stream

    @property
    def _tiers(self) -> list[Tier]:
        """The models as sessions know them."""
        reference, *candidates = self.models
        return [Tier(reference, role="reference"), *map(Tier, candidates)]
