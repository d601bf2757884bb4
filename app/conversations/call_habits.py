"""How many calls the replies of each model have: some servers hand on only the first one."""

from enum import StrEnum

from cachetools import LRUCache

_MAX_MODELS = 1_000


class CallHabit(StrEnum):
    """The number of calls in a model's replies."""

    UNKNOWN = "unknown"
    ONE = "one"
    SEVERAL = "several"


class CallHabits:
    """The habits of the models that a process has asked."""

    def __init__(self) -> None:
        self._habits: LRUCache[str, CallHabit] = LRUCache(_MAX_MODELS)

    def get(self, model: str) -> CallHabit:
        """Return the habit of a model."""
        return self._habits.get(model, CallHabit.UNKNOWN)

    def learn(self, model: str, habit: CallHabit) -> None:
        """Remember the habit that some replies reveal; those with several calls decide."""
        if habit is not CallHabit.UNKNOWN and self.get(model) is not CallHabit.SEVERAL:
            self._habits[model] = habit
