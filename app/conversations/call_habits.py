"""How many calls the replies of each model have: some servers hand on only the first one."""

from enum import StrEnum

from cachetools import LRUCache

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
    """The habits of the models that a process has asked."""

    def __init__(self) -> None:
        self._habits: LRUCache[str, CallHabit] = LRUCache(_MAX_MODELS)
        self._enough: LRUCache[str, int] = LRUCache(_MAX_MODELS)

    def get(self, model: str) -> CallHabit:
        """Return the habit of a model."""
        return self._habits.get(model, CallHabit.UNKNOWN)

    def learn(self, model: str, habit: CallHabit) -> None:
        """Remember what some replies reveal; those with several calls decide."""
        if habit is CallHabit.ENOUGH:
            self._enough[model] = self._enough.get(model, 0) + 1
            is_sure = self._enough[model] >= ENOUGH_TIMES and self.get(model) is CallHabit.UNKNOWN
            habit = CallHabit.SEVERAL if is_sure else CallHabit.UNKNOWN
        if habit is not CallHabit.UNKNOWN and self.get(model) is not CallHabit.SEVERAL:
            self._habits[model] = habit
