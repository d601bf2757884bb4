"""All that a manager asks of its model about one conversation: the extraction, then its phases."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from app.conversations.types import Ask, LLMTask, Memory, Proposal, Rejection, Turn
from app.extraction.draft import Draft
from app.extraction.loop import propose
from app.extraction.plan import Config


async def propose_in_phases(
    ask: Ask,
    config: Config,
    turns: Sequence[Turn],
    existing: Sequence[Memory],
    *,
    context_messages: int,
    now: datetime,
) -> Proposal:
    """Return what the extraction and the phases, each seeing what those before left, come to."""
    draft = Draft(existing)
    rejected: list[Rejection] = []
    steps = 0
    for task in _tasks(config, turns, context_messages, now):
        if not task.turns and not draft.memories:
            continue  # nothing to tidy up
        proposed = await propose(ask, replace(task, existing=draft.memories))
        for edit in proposed.edits:
            is_new = edit.action == "insert"
            draft.apply(replace(edit, memory_id=draft.new_id()) if is_new else edit)
        rejected += proposed.rejected
        steps += proposed.steps
    return Proposal(draft.edits(), tuple(rejected), steps)


def _tasks(
    config: Config, turns: Sequence[Turn], context_messages: int, now: datetime
) -> list[LLMTask]:
    extraction = LLMTask(
        turns=turns,
        existing=(),
        kinds=config.kinds,
        rights=config.rights,
        instructions=config.instructions,
        max_steps=config.max_steps,
        now=now,
        context_turns=context_messages,
    )
    phases = (
        replace(
            extraction,
            turns=turns if phase.include_messages else (),
            rights=phase.rights,
            instructions=phase.instructions,
            context_turns=context_messages if phase.include_messages else 0,
        )
        for phase in config.phases
    )
    return [extraction, *phases]
