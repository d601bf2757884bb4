"""Which optimiser has which name."""

from typing import assert_never

from app.conversations.types import Ask
from app.prompts.optimizing.base import Kind, Optimizer
from app.prompts.optimizing.config import OptimizerConfig
from app.prompts.optimizing.gradient import GradientOptimizer
from app.prompts.optimizing.metaprompt import MetaPromptOptimizer
from app.prompts.optimizing.prompt_memory import PromptMemoryOptimizer


def optimizer(kind: Kind, config: OptimizerConfig, ask: Ask) -> Optimizer:
    """Return the optimiser of a kind."""
    match kind:
        case "gradient":
            return GradientOptimizer(config, ask)
        case "metaprompt":
            return MetaPromptOptimizer(config, ask)
        case "prompt_memory":
            return PromptMemoryOptimizer(ask)
        case _:
            assert_never(kind)
