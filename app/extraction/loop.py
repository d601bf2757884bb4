"""What a model makes of a conversation, or of memories alone: changes, checked and merged."""

import asyncio
from dataclasses import dataclass, field

from app.conversations.dialogue import Dialogue
from app.conversations.prompt_text import render_date, render_memories, render_turns
from app.conversations.types import Ask, LLMTask, Proposal, Rejection
from app.extraction.draft import Draft
from app.extraction.instructions import TEMPLATES, system_text
from app.extraction.tool_calls import BadCallError, Clerk
from app.extraction.tools import IDLE, offered_tools
from app.json_values import replace_unstorable
from app.providers.llm.base import Completion, Tool, ToolCall, ToolResult

MAX_CALLS = 100
"""In one reply; those after them are rejected unread."""

_MAX_TOOL_CHARACTERS = 100
_MAX_REASON_CHARACTERS = 3_000
_MAX_QUOTED = 200


async def propose(ask: Ask, task: LLMTask) -> Proposal:
    """Ask a model what to do with the memories, until it is done or out of steps.

    Asks for "extract", or for "tidy" where there is no conversation, and for "repair" when a
    reply could not be carried out as a whole. Raises what `ask` raises.
    """
    nothing_new = len(task.turns) <= task.context_turns if task.turns else not task.existing
    return Proposal() if nothing_new else await _Extraction(ask, task).run()


@dataclass(slots=True)
class _Outcome:
    """What came of the calls of one reply."""

    results: list[ToolResult] = field(default_factory=list)
    done: list[str] = field(default_factory=list)  # names of tools
    failed: list[Rejection] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        return not IDLE.isdisjoint(self.done)


class _Extraction:
    """One model at work on one task."""

    def __init__(self, ask: Ask, task: LLMTask) -> None:
        self._task = task
        self._purpose = "extract" if task.turns else "tidy"
        self._draft = Draft(task.existing)
        self._clerk = Clerk(task, self._draft)
        self._dialogue = Dialogue(ask, system_text(task))
        self._rejected: list[Rejection] = []
        self._steps = 0

    async def run(self) -> Proposal:
        """Go step by step until there is nothing more to do."""
        self._dialogue.say(self._opening())
        while self._steps < self._task.max_steps and self._may_change_something():
            self._steps += 1
            before = {memory.id: memory for memory in self._draft.memories}
            results = await self._step()
            now = {memory.id: memory for memory in self._draft.memories}
            if results is None or now == before:
                break
            touched = [memory for id_, memory in now.items() if before.get(id_) != memory]
            shown = render_memories(touched, none="(deleted)")
            self._dialogue.say(TEMPLATES.fill("next", memories=shown), results)
        return Proposal(self._draft.edits(), tuple(self._rejected), self._steps)

    def _opening(self) -> str:
        conversation = render_turns(self._task.turns, self._task.context_turns)
        return TEMPLATES.fill(
            f"{self._purpose}_request",
            today=render_date(self._task.now),
            memories=render_memories(self._task.existing),
            **({"conversation": conversation} if self._task.turns else {}),
        )

    async def _step(self) -> list[ToolResult] | None:
        """Return the results that the model has not seen; None when it has nothing more to do."""
        reply = await self._first_reply()
        if not reply.calls:
            # After the first step, text says what the tool `done` says.
            if self._steps == 1 or reply.finish_reason in {"refusal", "length"}:
                self._rejected.append(_rejected("", _why_nothing(reply)))
            return None
        outcome = await self._carry_out(reply)
        if not outcome.failed:
            return None if outcome.idle else outcome.results
        repaired = await self._repair(outcome, cut=reply.finish_reason == "length")
        ended = outcome.idle or repaired.idle or not repaired.results
        return None if ended else repaired.results

    async def _first_reply(self) -> Completion:
        """Return the step's reply; in the first step, one without calls gets a second chance."""
        reply = await self._ask(self._purpose)
        if reply.calls or reply.finish_reason == "refusal" or self._steps > 1:
            return reply
        self._dialogue.say(TEMPLATES.fill("cut" if reply.finish_reason == "length" else "text"))
        return await self._ask("repair")

    async def _repair(self, outcome: _Outcome, *, cut: bool) -> _Outcome:
        """Send the failed calls back, once; what fails then, or is not sent again, is rejected.

        All that is valid in the reply counts: which of its calls stands for which of the failed
        ones only the model knows. For the account the tool's name tells.
        """
        texts = [TEMPLATES.fill("repair"), *([TEMPLATES.fill("cut")] if cut else [])]
        self._dialogue.say("\n\n".join(texts), outcome.results)
        repaired = await self._carry_out(await self._ask("repair"), last=True)
        open_ = list(outcome.failed)
        for tool in [*repaired.done, *(call.tool for call in repaired.failed)]:
            if tool not in IDLE and open_:
                same = (at for at, call in enumerate(open_) if call.tool == tool)
                del open_[next(same, 0)]
        self._rejected += [*open_, *repaired.failed]
        return repaired

    async def _carry_out(self, reply: Completion, *, last: bool = False) -> _Outcome:
        outcome = _Outcome()
        offered = [tool.name for tool in self._tools()]
        # Even if its arguments can be read: the texts in them may be cut short.
        cut = reply.calls[-1:] if reply.finish_reason == "length" else ()
        for call in reply.calls[:MAX_CALLS]:
            await asyncio.sleep(0)  # lets other tasks run; each call may take a while
            try:
                result = self._clerk.carry_out(call, offered, cut=call in cut, last=last)
            except BadCallError as error:
                failed = _rejected(call.name, str(error), call.raw)
                outcome.failed.append(failed)
                outcome.results.append(_not_done(call, failed))
            else:
                outcome.done.append(call.name)
                outcome.results.append(ToolResult(call.id, result))
        for call in reply.calls[MAX_CALLS:]:
            reason = f"there are more than {MAX_CALLS} calls in one reply"
            too_many = _rejected(call.name, reason, call.raw)
            self._rejected.append(too_many)
            outcome.results.append(_not_done(call, too_many))
        return outcome

    async def _ask(self, purpose: str) -> Completion:
        return await self._dialogue.answer(purpose, self._tools())

    def _tools(self) -> tuple[Tool, ...]:
        return offered_tools(self._task, self._draft.memories, first_step=self._steps <= 1)

    def _may_change_something(self) -> bool:
        return any(tool.name not in IDLE for tool in self._tools())


def _rejected(tool: str, reason: str, wanted: str | None = None) -> Rejection:
    return Rejection(
        _storable(tool, _MAX_TOOL_CHARACTERS),
        _storable(reason, _MAX_REASON_CHARACTERS),
        None if wanted is None else _storable(wanted, _MAX_REASON_CHARACTERS),
    )


def _storable(text: str, characters: int) -> str:
    return replace_unstorable(text)[:characters]


def _not_done(call: ToolCall, rejected: Rejection) -> ToolResult:
    return ToolResult(call.id, f"Not done: {rejected.reason}.", is_error=True)


def _why_nothing(reply: Completion) -> str:
    said = reply.text.strip()
    quoted = f": {said[:_MAX_QUOTED]}" if said else ""
    if reply.finish_reason == "refusal":
        return f"the model refused{quoted}"
    if reply.finish_reason == "length":
        return "the reply was cut off before any call of a tool"
    if said:
        return f"the model answered with text instead of calls of tools{quoted}"
    return "the model's reply was empty"
