"""How an optimiser works, under LangMem's names and with its defaults."""

from dataclasses import dataclass

DEFAULT_MAX_REFLECTION_STEPS = 5
DEFAULT_MIN_REFLECTION_STEPS = 1


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """Settings of the kinds "gradient" and "metaprompt"; "prompt_memory" has none.

    The two texts replace our own requests to the model; None keeps those.
    """

    max_reflection_steps: int = DEFAULT_MAX_REFLECTION_STEPS
    min_reflection_steps: int = DEFAULT_MIN_REFLECTION_STEPS
    gradient_prompt: str | None = None
    metaprompt: str | None = None
