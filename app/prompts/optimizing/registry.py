"""Which optimiser has which name."""

from app.managers.memories import Ask
from app.prompts.optimizing.base import Kind, Optimizer
from app.prompts.optimizing.config import OptimizerConfig


def optimizer(kind: Kind, config: OptimizerConfig, ask: Ask) -> Optimizer:
    """Return the optimiser of a kind."""
    raise NotImplementedError(kind, config, ask)
