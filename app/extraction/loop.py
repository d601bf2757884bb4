"""The extraction loop: a model proposes edits, which are checked, repaired, and merged."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from app.conversations.dialogue import Ask, Dialogue
from app.conversations.memories import LLMTask, Memory, Proposal, Rejection
from app.conversations.prompt_text import render_date, render_memories, render_turns
from app.extraction.prompt import IDLE, TEMPLATES, build_system_text, build_tools
from app.extraction.tool_calls import BadCallError, Draft, ToolCallExecutor
from app.json_values import replace_unstorable
from app.providers.llm import Completion, Tool, ToolCall, ToolResult

MAX_CALLS = 100
"""Maximum calls executed of one reply; later ones are rejected unread."""

_MAX_TOOL_CHARACTERS = 100
_MAX_REASON_CHARACTERS = 3_000
_MAX_QUOTED = 200


async def propose(ask: Ask, task: LLMTask) -> Proposal:
    """Ask a model to edit the memories, until it is done or out of steps.

    The purpose is "extract", "tidy" if there is no conversation, and "repair" if some calls of a
    reply could not be executed. Raises the errors of `ask`.
    """
    nothing_new = len(task.turns) <= task.context_turns if task.turns else not task.existing
    return Proposal() if nothing_new else await ExtractionLoop(ask, task).run()


async def propose_in_phases(
    ask: Ask, tasks: Iterable[LLMTask], existing: Sequence[Memory]
) -> Proposal:
    """Return the edits of several tasks, each of which sees the memories that the last one left."""
    draft = Draft(existing)
    rejected: list[Rejection] = []
    steps = 0
    for task in tasks:
        if not task.turns and not draft.memories:
            continue  # nothing to tidy up
        proposal = await propose(ask, replace(task, existing=draft.memories))
        for edit in proposal.edits:
            is_new = edit.action == "insert"
            draft.apply(replace(edit, memory_id=draft.new_id()) if is_new else edit)
        rejected += proposal.rejected
        steps += proposal.steps
    return Proposal(draft.edits(), tuple(rejected), steps)


@dataclass(slots=True)
class _ReplyOutcome:
    """Results of the calls of one reply."""

    results: list[ToolResult] = field(default_factory=list)
    done: list[str] = field(default_factory=list)  # names of tools
    failed: list[Rejection] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        return not IDLE.isdisjoint(self.done)


class ExtractionLoop:
    """A model's work on one task: steps of tool calls, each with one repair."""

    def __init__(self, ask: Ask, task: LLMTask) -> None:
        self._task = task
        self._purpose = "extract" if task.turns else "tidy"
        self._draft = Draft(task.existing)
        self._executor = ToolCallExecutor(task, self._draft)
        self._dialogue = Dialogue(ask, build_system_text(task))
        self._rejected: list[Rejection] = []
        self._steps = 0

    async def run(self) -> Proposal:
        """Return the edits of all steps, and the rejected calls."""
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
        """Return the results for the model's next step; None if there is no next step."""
        reply = await self._first_reply()
        if not reply.calls:
            # After the first step, text means the same as the tool `done`.
            if self._steps == 1 or reply.finish_reason in {"refusal", "length"}:
                self._rejected.append(_reject("", _reason_without_calls(reply)))
            return None
        outcome = await self._execute(reply)
        if not outcome.failed:
            return None if outcome.idle else outcome.results
        repaired = await self._repair(outcome, cut=reply.finish_reason == "length")
        ended = outcome.idle or repaired.idle or not repaired.results
        return None if ended else repaired.results

    async def _first_reply(self) -> Completion:
        """Return the step's reply; in the first step, a reply without calls is sent back once."""
        reply = await self._ask(self._purpose)
        if reply.calls or reply.finish_reason == "refusal" or self._steps > 1:
            return reply
        self._dialogue.say(TEMPLATES.fill("cut" if reply.finish_reason == "length" else "text"))
        return await self._ask("repair")

    async def _repair(self, outcome: _ReplyOutcome, *, cut: bool) -> _ReplyOutcome:
        """Send the failed calls back once; those that fail again or are not repeated are rejected.

        All valid calls of the reply are executed. Only the model knows which of them replaces
        which failed call; the tool's name decides which failed calls are listed as rejected.
        """
        texts = [TEMPLATES.fill("repair"), *([TEMPLATES.fill("cut")] if cut else [])]
        self._dialogue.say("\n\n".join(texts), outcome.results)
        repaired = await self._execute(await self._ask("repair"), last=True)
        open_ = list(outcome.failed)
        for tool in [*repaired.done, *(call.tool for call in repaired.failed)]:
            if tool not in IDLE and open_:
                same = (at for at, call in enumerate(open_) if call.tool == tool)
                del open_[next(same, 0)]
        self._rejected += [*open_, *repaired.failed]
        return repaired

    async def _execute(self, reply: Completion, *, last: bool = False) -> _ReplyOutcome:
        outcome = _ReplyOutcome()
        offered = [tool.name for tool in self._tools()]
        # Even if its arguments can be read, because the texts in them may be cut short.
        cut = reply.calls[-1:] if reply.finish_reason == "length" else ()
        for call in reply.calls[:MAX_CALLS]:
            await asyncio.sleep(0)  # lets other tasks run, because each call may take a while
            try:
                result = self._executor.execute(call, offered, cut=call in cut, last=last)
            except BadCallError as error:
                failed = _reject(call.name, str(error), call.raw)
                outcome.failed.append(failed)
                outcome.results.append(_result_of(call, failed))
            else:
                outcome.done.append(call.name)
                outcome.results.append(ToolResult(call.id, result))
        for call in reply.calls[MAX_CALLS:]:
            reason = f"there are more than {MAX_CALLS} calls in one reply"
            too_many = _reject(call.name, reason, call.raw)
            self._rejected.append(too_many)
            outcome.results.append(_result_of(call, too_many))
        return outcome

    async def _ask(self, purpose: str) -> Completion:
        return await self._dialogue.answer(purpose, self._tools())

    def _tools(self) -> tuple[Tool, ...]:
        return build_tools(self._task, self._draft.memories, first_step=self._steps <= 1)

    def _may_change_something(self) -> bool:
        return any(tool.name not in IDLE for tool in self._tools())


def _reject(tool: str, reason: str, arguments: str | None = None) -> Rejection:
    return Rejection(
        _storable(tool, _MAX_TOOL_CHARACTERS),
        _storable(reason, _MAX_REASON_CHARACTERS),
        None if arguments is None else _storable(arguments, _MAX_REASON_CHARACTERS),
    )


def _storable(text: str, characters: int) -> str:
    return replace_unstorable(text)[:characters]


def _result_of(call: ToolCall, rejected: Rejection) -> ToolResult:
    return ToolResult(call.id, f"Not done: {rejected.reason}.", is_error=True)


def _reason_without_calls(reply: Completion) -> str:
    said = reply.text.strip()
    quoted = f": {said[:_MAX_QUOTED]}" if said else ""
    if reply.finish_reason == "refusal":
        return f"the model refused{quoted}"
    if reply.finish_reason == "length":
        return "the reply was cut off before any call of a tool"
    if said:
        return f"the model answered with text instead of calls of tools{quoted}"
    return "the model's reply was empty"
