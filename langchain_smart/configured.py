"""A smart model with fields that a config may set: its batches stay whole.

LangChain's own configurable models answer a configured batch item by item.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_config_list, merge_configs
from langchain_core.runnables.configurable import RunnableConfigurableFields
from typing_extensions import override

__all__ = ["ConfiguredFields"]

Input = LanguageModelInput


class ConfiguredFields(RunnableConfigurableFields):  # type: ignore[type-arg]
    """Answers a batch in one call per choice of settings."""

    @override
    def batch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        results: list[Any] = [None] * len(inputs)
        for places, model, configs in self._groups(len(inputs), config):
            outputs = model.batch(
                [inputs[place] for place in places],
                configs,
                return_exceptions=return_exceptions,
                **kwargs,
            )
            for place, output in zip(places, outputs, strict=True):
                results[place] = output
        return results

    @override
    async def abatch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        results: list[Any] = [None] * len(inputs)
        for places, model, configs in self._groups(len(inputs), config):
            outputs = await model.abatch(
                [inputs[place] for place in places],
                configs,
                return_exceptions=return_exceptions,
                **kwargs,
            )
            for place, output in zip(places, outputs, strict=True):
                results[place] = output
        return results

    def _groups(
        self, items: int, config: RunnableConfig | list[RunnableConfig] | None
    ) -> Iterator[tuple[list[int], Runnable[Input, AIMessage], list[RunnableConfig]]]:
        """Yield per choice of settings the items, the model and their configs."""
        configs = get_config_list(config, items) if items else []
        merged = [merge_configs(self.config, its_config) for its_config in configs]
        choices: list[tuple[dict[str, Any], list[int]]] = []
        for place, its_config in enumerate(merged):
            chosen = self._chosen(its_config)
            for settings, places in choices:
                if settings == chosen:
                    places.append(place)
                    break
            else:
                choices.append((chosen, [place]))
        for _, places in choices:
            model, _ = self.prepare(merged[places[0]])
            yield places, model, [merged[place] for place in places]

    def _chosen(self, config: RunnableConfig) -> dict[str, Any]:
        """Return what a config sets of the fields that it may set."""
        ids = {field.id for field in self.fields.values()}
        given = config.get("configurable") or {}
        return {name: value for name, value in given.items() if name in ids}
