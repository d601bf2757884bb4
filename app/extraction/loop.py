"""The extraction loop: a model proposes edits, which are checked, repaired, and merged."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from app.conversations.call_habits import CallHabit
from app.conversations.dialogue import Ask, Dialogue, NoAnswerError, RefusalError
from app.conversations.memories import LLMTask, Proposal, Rejection
from app.conversations.messages import has_several_sentences
from app.conversations.prompt_text import render_date, render_memories, render_turns
from app.extraction.prompt import IDLE, TEMPLATES, build_system_text, build_tools
from app.extraction.tool_calls import BadCallError, Draft, ToolCallExecutor
from app.json_values import replace_unstorable
from app.providers.errors import ProviderError, RequestTooLongError
from app.providers.llm import Completion, Tool, ToolCall, ToolResult, UnusableReplyError

MAX_CALLS = 100
"""Maximum calls executed of one reply; later ones are rejected unread."""

MAX_CUT_REPLIES = 4
"""Maximum repairs that are cut off and go back once more."""

MAX_FURTHER_REPLIES = 25
"""Maximum replies with one call each that are asked for after the first."""

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
        self._dialogue = Dialogue(ask, build_system_text(task), divisible=True)
        self._rejected: list[Rejection] = []
        self._steps = 0
        self._habit = CallHabit.UNKNOWN
        self._asks_for_rest = False
        self._cut_replies = 0
        self._problem: ProviderError | None = None  # why the model could not be asked again

    async def run(self) -> Proposal:
        """Return the edits of all steps, and the rejected calls.

        Raises NoAnswerError if the model neither edits anything nor calls a tool to say that there
        is nothing to edit.
        """
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
        rejected = tuple(self._rejected)
        return Proposal(self._draft.edits(), rejected, self._steps, habit=self._habit)

    def _opening(self) -> str:
        conversation = render_turns(self._task.turns, self._task.context_turns)
        if self._task.context_turns:
            conversation += "\n\n" + TEMPLATES.fill_section("shown", "earlier")
        return TEMPLATES.fill(
            f"{self._purpose}_request",
            today=render_date(self._task.now),
            memories=self._describe_existing(),
            **({"conversation": conversation} if self._task.turns else {}),
        )

    def _describe_existing(self) -> str:
        shown = render_memories(self._task.existing)
        if not self._task.turns or (self._task.existing_are_all and not self._task.existing):
            return shown
        if not self._task.existing:
            return TEMPLATES.fill_section("shown", "none")
        is_all = self._task.existing_are_all
        return TEMPLATES.fill_section("shown", "all" if is_all else "some", memories=shown)

    async def _step(self) -> list[ToolResult] | None:
        """Return the results for the model's next step; None if there is no next step."""
        reply = await (self._first_reply() if self._steps == 1 else self._ask_again(self._purpose))
        if reply is None or not reply.calls:
            # After the first step, text means the same as the tool `done`.
            if reply is None or reply.finish_reason in {"refusal", "length"}:
                self._rejected.append(reject("", self._reason_without_calls(reply)))
            return None
        outcome = await self._carry_out(reply)
        if self._expects_rest(reply, outcome):
            outcome = await self._ask_for_rest(reply, outcome)
        return None if outcome.idle or not outcome.results else outcome.results

    async def _first_reply(self) -> Completion:
        """Return the first reply; one without calls is sent back once."""
        first = await self._ask(self._purpose)
        if first.finish_reason == "refusal":
            raise RefusalError(first.text, [first])
        if first.calls:
            return first
        self._dialogue.say(TEMPLATES.fill("cut" if first.finish_reason == "length" else "text"))
        second = await self._ask_again("repair")
        if second is None or second.finish_reason == "refusal" or not second.calls:
            self._fail(self._reason_without_calls(second), [first, *([second] if second else [])])
        return second

    async def _carry_out(self, reply: Completion) -> _ReplyOutcome:
        """Execute the calls of a reply, with a repair if some of them fail."""
        if len(reply.calls) > 1:
            self._habit = CallHabit.SEVERAL
        outcome = await self._execute(reply)
        return await self._repair(reply, outcome) if outcome.failed else outcome

    async def _repair(self, reply: Completion, outcome: _ReplyOutcome) -> _ReplyOutcome:
        """Send the failed calls back once; those that fail again or are not repeated are rejected.

        All valid calls of the reply are executed. If it is cut off as well, but gets further, the
        rest goes back in the same way.
        """
        is_cut = reply.finish_reason == "length"
        texts = [TEMPLATES.fill("repair"), *([TEMPLATES.fill("cut")] if is_cut else [])]
        self._dialogue.say("\n\n".join(texts), outcome.results)
        again = await self._ask_again("repair")
        repaired = await self._execute(again, last=True) if again else _ReplyOutcome()
        self._rejected += _find_abandoned(outcome, repaired)
        gets_further = bool(repaired.done) and self._cut_replies < MAX_CUT_REPLIES
        repaired.done += outcome.done
        if again and again.finish_reason == "length" and repaired.failed and gets_further:
            self._cut_replies += 1
            return await self._repair(again, repaired)
        self._rejected += repaired.failed
        if not repaired.done and not self._draft.edits():
            failed = (repaired.failed or outcome.failed)[0]
            reason = f"{failed.tool} failed, because {failed.reason}"[:_MAX_REASON_CHARACTERS]
            problem = f"; {self._reason_without_calls(None)}" if self._problem else ""
            self._fail(reason + problem, [reply, *([again] if again else [])])
        return repaired

    def _fail(self, reason: str, replies: Sequence[Completion]) -> NoReturn:
        """Raise the error for replies that have no valid call."""
        if replies[-1].finish_reason == "refusal":
            raise RefusalError(replies[-1].text, replies)
        if isinstance(self._problem, RequestTooLongError):
            raise self._problem  # a shorter conversation leaves room for a second request
        raise NoAnswerError(reason, replies) from self._problem

    def _expects_rest(self, reply: Completion, outcome: _ReplyOutcome) -> bool:
        """Return whether there are probably calls that the server has not handed on.

        A model that is not known yet is asked for them only if its one call leaves something: a
        conversation of several sentences, or memories to compare; and if no next step asks anyway.
        """
        is_single = len(reply.calls) == 1 and len(outcome.done) == 1 and not outcome.idle
        if not is_single or self._problem or self._task.habit is CallHabit.SEVERAL:
            return False
        if self._task.habit is CallHabit.ONE:
            return True
        if self._task.max_steps > 1:
            return False
        if not self._task.turns:
            return len(self._draft.memories) > 1
        return has_several_sentences(self._task.turns[self._task.context_turns :])

    async def _ask_for_rest(self, first: Completion, outcome: _ReplyOutcome) -> _ReplyOutcome:
        """Ask for further calls, one by one, until the model has none or repeats itself."""
        self._asks_for_rest = True
        made = [(call.name, call.arguments) for call in first.calls]
        for _ in range(MAX_FURTHER_REPLIES):
            before = self._draft.memories
            self._dialogue.say(TEMPLATES.fill("rest"), outcome.results)
            reply = await self._ask_again("rest")
            if reply is None:
                return _ReplyOutcome()
            calls = [(call.name, call.arguments) for call in reply.calls]
            if all(call in made or call[0] in IDLE for call in calls):
                is_first = self._habit is CallHabit.UNKNOWN
                self._habit = CallHabit.ENOUGH if is_first else self._habit
                return _ReplyOutcome()
            made += calls
            outcome = await self._carry_out(reply)
            if outcome.idle or self._draft.memories == before or len(calls) > 1:
                break
            self._habit = CallHabit.ONE
        return outcome

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
                failed = reject(call.name, str(error), call.raw)
                outcome.failed.append(failed)
                outcome.results.append(_result_of(call, failed))
            else:
                outcome.done.append(call.name)
                outcome.results.append(ToolResult(call.id, result))
        for call in reply.calls[MAX_CALLS:]:
            reason = f"there are more than {MAX_CALLS} calls in one reply"
            too_many = reject(call.name, reason, call.raw)
            self._rejected.append(too_many)
            outcome.results.append(_result_of(call, too_many))
        return outcome

    async def _ask(self, purpose: str) -> Completion:
        return await self._dialogue.answer(purpose, self._tools())

    async def _ask_again(self, purpose: str) -> Completion | None:
        """Return a further reply; None if there is none, and waiting would not help.

        Raises the error if another attempt at the job may get a reply.
        """
        try:
            return await self._ask(purpose)
        except ProviderError as error:
            is_away = error.retryable and not isinstance(error, UnusableReplyError)
            if is_away and self._task.may_be_retried:
                raise
            self._problem = error
            return None

    def _reason_without_calls(self, reply: Completion | None) -> str:
        if reply is None:
            return f"the model could not be asked again: {self._problem}"
        return _reason_without_calls(reply)

    def _tools(self) -> tuple[Tool, ...]:
        is_first = self._steps <= 1 and not self._asks_for_rest
        return build_tools(self._task, self._draft.memories, first_step=is_first)

    def _may_change_something(self) -> bool:
        return any(tool.name not in IDLE for tool in self._tools())


def _find_abandoned(outcome: _ReplyOutcome, repaired: _ReplyOutcome) -> list[Rejection]:
    """Return the failed calls that a repair does not repeat.

    Only the model knows which call replaces which; the tool's name decides about those listed.
    """
    abandoned = list(outcome.failed)
    for tool in [*repaired.done, *(call.tool for call in repaired.failed)]:
        if tool not in IDLE and abandoned:
            same = (at for at, call in enumerate(abandoned) if call.tool == tool)
            del abandoned[next(same, 0)]
    return abandoned


def reject(tool: str, reason: str, arguments: str | None = None) -> Rejection:
    """Return a rejection in words that can be stored."""
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
    said = " ".join(reply.text[: 10 * _MAX_QUOTED].split())
    quoted = f": {said[:_MAX_QUOTED]}" if said else ""
    if reply.finish_reason == "refusal":
        return f"the model refused{quoted}"
    if reply.finish_reason == "length":
        return "the reply was cut off before any call of a tool"
    if said:
        return f"the model answered with text instead of calls of tools{quoted}"
    return "the model's reply was empty"
