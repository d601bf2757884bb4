"""How many calls the replies of each model have: some servers hand on only the first one."""

from enum import StrEnum

from cachetools import LRUCache

from app.providers.capabilities import Capabilities, ServedModel
from app.providers.provider import Providers

FEATURE = "several_calls"
"""Name of the feature that servers lack which hand on one call of each reply."""

_MAX_MODELS = 1_000

ENOUGH_TIMES = 10
"""Times that a model has nothing to add to its one call, after which it is not asked any more."""


class CallHabit(StrEnum):
    """The number of calls in a model's replies; `ENOUGH` is one to which it had nothing to add."""

    UNKNOWN = "unknown"
    ONE = "one"
    SEVERAL = "several"
    ENOUGH = "enough"


class CallHabits:
    """The habits of the models that a process has asked, by their names.

    Models whose replies have one call are among the capabilities, which all processes share; these
    belong to the address of a model's provider, among `providers`.
    """

    def __init__(
        self, capabilities: Capabilities | None = None, providers: Providers | None = None
    ) -> None:
        self._capabilities = capabilities or Capabilities()
        self._providers = providers or {}
        self._habits: LRUCache[str, CallHabit] = LRUCache(_MAX_MODELS)
        self._enough: LRUCache[str, int] = LRUCache(_MAX_MODELS)

    def get(self, model: str) -> CallHabit:
        """Return the habit of a model."""
        if self._capabilities.refuses(self._served(model), FEATURE):
            return CallHabit.ONE
        return self._habits.get(model, CallHabit.UNKNOWN)

    def learn(self, model: str, habit: CallHabit) -> None:
        """Remember what some replies reveal; those with several calls decide."""
        if habit is CallHabit.ENOUGH:
            self._enough[model] = self._enough.get(model, 0) + 1
            is_sure = self._enough[model] >= ENOUGH_TIMES and self.get(model) is CallHabit.UNKNOWN
            habit = CallHabit.SEVERAL if is_sure else CallHabit.UNKNOWN
        known = self.get(model)
        if habit is CallHabit.ONE and known is CallHabit.UNKNOWN:
            reason = "its replies had one call each"
            self._capabilities.learn(self._served(model), FEATURE, reason=reason)
        elif habit is CallHabit.SEVERAL and known is not CallHabit.SEVERAL:
            if known is CallHabit.ONE:
                self._capabilities.forget(self._served(model), FEATURE)
            self._habits[model] = habit

    def _served(self, model: str) -> ServedModel:
        name, _, served = model.partition(":")
        provider = self._providers.get(name)
        return ServedModel(provider.address if provider else name, served)
