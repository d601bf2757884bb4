"""A chat model that uses its memory as an agent's should, whatever its tools are called."""

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from typing_extensions import override

from tests.agents.ways import Call

ASKED_TO_KEEP = "Remember: "


class RememberingModel(BaseChatModel):
    """Keeps what it is asked to; otherwise looks up what it is asked, and says what it found."""

    remember: Call
    look_up: Call

    @property
    @override
    def _llm_type(self) -> str:
        return "scripted"

    @override
    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[Any, AIMessage]:
        offered = {tool.name: tool.tool_call_schema for tool in tools}
        assert {self.remember.tool, self.look_up.tool} <= offered.keys()
        return self

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._reply(messages[-1]))])

    def _reply(self, last: BaseMessage) -> AIMessage:
        text = str(last.content)
        if isinstance(last, ToolMessage):
            return AIMessage(f"My memory says: {text}")
        if text.startswith(ASKED_TO_KEEP):
            return _calling(self.remember, text.removeprefix(ASKED_TO_KEEP))
        return _calling(self.look_up, text)


def _calling(call: Call, text: str) -> AIMessage:
    wanted = ToolCall(name=call.tool, args={call.argument: text}, id="call_1")
    return AIMessage("", tool_calls=[wanted])
