"""What a model makes of prompts, in the words of neither LangMem nor memoryd."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from tests.langmem.decisions import JSON

Kind: TypeAlias = Literal["gradient", "metaprompt", "prompt_memory"]
Feedback: TypeAlias = str | JSON | None
Trajectory: TypeAlias = tuple[Sequence[Any], Feedback]

KINDS: tuple[Kind, ...] = ("gradient", "metaprompt", "prompt_memory")
REASON = "The answers were too long."
"""What a model gives as its reason for everything."""


@dataclass(frozen=True)
class Prompt:
    name: str
    text: str
    update_instructions: str | None = None
    when_to_update: str | None = None


@dataclass(frozen=True)
class Verdict:
    """A model thinks several times, and then writes another text; None: this one is good."""

    text: str | None
    thoughts: int = 0


class Mind:
    """A model that has made up its mind: about every prompt, and about which to change."""

    def __init__(
        self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict], chosen: Sequence[str]
    ) -> None:
        self.chosen = list(chosen)
        self._prompts = prompts
        self._verdicts = verdicts
        self._thoughts = {name: verdict.thoughts for name, verdict in verdicts.items()}

    def about(self, request: str) -> Prompt:
        """Return the one prompt that a request is about."""
        (prompt,) = (prompt for prompt in self._prompts if prompt.text in request)
        return prompt

    def verdict(self, prompt: Prompt) -> Verdict:
        return self._verdicts[prompt.name]

    def thinks(self, prompt: Prompt) -> bool:
        """Tell whether the model thinks once more before it decides."""
        self._thoughts[prompt.name] -= 1
        return self._thoughts[prompt.name] >= 0

    def resulting(self) -> dict[str, str]:
        """Return the texts that are to come of it, by the prompts' names."""
        changed = {name: self._verdicts[name].text for name in self.chosen}
        return {prompt.name: changed.get(prompt.name) or prompt.text for prompt in self._prompts}
