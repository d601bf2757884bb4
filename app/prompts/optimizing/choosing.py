"""Which of several prompts the conversations give reason to change."""

from collections.abc import Sequence

from app.managers.memories import Ask
from app.prompts.optimizing.base import Prompt, Trajectory


async def choose(
    ask: Ask, prompts: Sequence[Prompt], trajectories: Sequence[Trajectory]
) -> tuple[list[str], str]:
    """Return the names of the prompts to improve, in the given order, and why those.

    A single prompt without `when_to_update` is chosen without asking. Raises what `ask` raises.
    """
    raise NotImplementedError(ask, prompts, trajectories)
