"""Models of OpenAI, or of any server that speaks its Chat Completions."""

from typing import Any, Literal

import openai
import orjson

from app.providers.errors import BadRequestError, UnavailableError
from app.providers.llm.base import Completion, Message, Request, Spent, Tool, ToolCall, Verbatim
from app.providers.llm.prices import cost
from app.providers.llm.wording import asking_for_calls, is_forced, json_object
from app.providers.openai_errors import translated

_CONNECT_SECONDS = 5
_STOPS: dict[str | None, Literal["length", "refusal"]] = {
    "length": "length",
    "content_filter": "refusal",
}


class OpenAILLM:
    """Asks `model` at `base_url`, or at OpenAI itself when there is none.

    `timeout` is how many seconds the server may be silent, at each of 1 + `max_retries` attempts.
    """

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: float = 120,
        max_retries: int = 2,
    ) -> None:
        self.name = f"openai:{model}"
        self._model = model
        self._api_key = api_key
        # OpenAI's newer models refuse `max_tokens`; Ollama and others ignore the name that
        # replaced it, and would write without a limit. See also `_concede`.
        self._limit_name = "max_tokens" if base_url else "max_completion_tokens"
        self._can_be_forced = True
        self._takes_temperature = True
        self._reasons_with_tools = True
        self._client = openai.AsyncOpenAI(
            # Servers of one's own often take no key, but the SDK insists on one.
            api_key=api_key or "none",
            base_url=base_url,
            timeout=openai.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
            max_retries=max_retries,
        )

    async def complete(self, request: Request) -> Completion:
        """Return the model's next turn; what the model turns out not to take is left out."""
        while True:
            arguments = self._arguments(request)
            try:
                return self._completion(await self._send(arguments))
            except BadRequestError as error:
                if not self._concede(str(error), arguments):
                    raise

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _arguments(self, request: Request) -> dict[str, Any]:
        wish = is_forced(request) and not self._can_be_forced
        system = asking_for_calls(request) if wish else request.system
        messages = [{"role": "system", "content": system}] if system else []
        arguments: dict[str, Any] = {
            "model": self._model,
            self._limit_name: request.max_tokens,
            "messages": messages + [said for m in request.messages for said in self._said(m)],
        }
        if request.temperature is not None and self._takes_temperature:
            arguments["temperature"] = request.temperature
        if request.tools:
            arguments["tools"] = [_tool(tool) for tool in request.tools]
            arguments["tool_choice"] = _choice("auto" if wish else request.tool_choice)
            if not self._reasons_with_tools:
                arguments["reasoning_effort"] = "none"
        return arguments

    def _said(self, message: Message) -> list[dict[str, Any]]:
        """Return the message in OpenAI's form, where each result is a message of its own."""
        if message.verbatim is not None and message.verbatim.llm == self.name:
            return [message.verbatim.content]
        said: list[dict[str, Any]] = [
            {
                "role": "tool",
                "tool_call_id": result.call_id,
                "content": f"Error: {result.content}" if result.is_error else result.content,
            }
            for result in message.results
        ]
        if message.calls:
            called = [_called(call) for call in message.calls]
            said.append({"role": "assistant", "content": message.text, "tool_calls": called})
        elif message.text:
            said.append({"role": message.role, "content": message.text})
        return said

    async def _send(self, arguments: dict[str, Any]) -> bytes:
        if self._client.is_closed():
            raise UnavailableError(f"{self.name} is closed; start the server again")
        try:
            response = await self._client.chat.completions.with_raw_response.create(**arguments)
        except openai.BadRequestError as error:
            if error.code == "content_filter":
                return _FILTERED
            raise translated(self.name, error, self._api_key) from None  # it may show the key
        except openai.OpenAIError as error:
            raise translated(self.name, error, self._api_key) from None
        return bytes(response.content)

    def _concede(self, refusal: str, arguments: dict[str, Any]) -> bool:
        """Give up the parameter that the model refuses, for good; False if none is at fault."""
        if "max_completion_tokens" in refusal and "max_tokens" in arguments:
            self._limit_name = "max_completion_tokens"
        elif "temperature" in refusal and "temperature" in arguments:
            self._takes_temperature = False
        elif "reasoning_effort" in refusal and self._reasons_with_tools and "tools" in arguments:
            self._reasons_with_tools = False
        elif "tool_choice" in refusal and arguments.get("tool_choice") not in _FREE:
            self._can_be_forced = False
        else:
            return False
        return True

    def _completion(self, body: bytes) -> Completion:
        try:
            answer = orjson.loads(body)
            choice = answer["choices"][0]
            message = choice["message"]
            calls = tuple(_call(call) for call in message.get("tool_calls") or ())
            refusal = message.get("refusal")
            stop = "refusal" if refusal else _STOPS.get(choice["finish_reason"])
            whole = all(call.arguments is not None for call in calls)
            kept = {name: value for name, value in message.items() if value or name == "content"}
            model = answer.get("model") or self._model
            return Completion(
                text=refusal or message.get("content") or "",
                calls=calls,
                stop=stop or ("tools" if calls else "end"),
                spent=_spent(model, answer.get("usage") or {}),
                model=model,
                verbatim=Verbatim(self.name, kept) if calls and whole else None,
            )
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise UnavailableError(
                f"{self.name} answered with something else than a completion; "
                "check that the base URL is that of an OpenAI-compatible server"
            ) from error


_FREE = (None, "auto", "none")
_FILTERED = orjson.dumps(
    {"choices": [{"finish_reason": "content_filter", "message": {"role": "assistant"}}]}
)
"""How a request that Azure's filter refuses with an error is read."""


def _tool(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    return {"type": "function", "function": function}


def _choice(choice: str) -> str | dict[str, Any]:
    if choice in {"auto", "none"}:
        return choice
    if choice == "any":
        return "required"
    return {"type": "function", "function": {"name": choice}}


def _called(call: ToolCall) -> dict[str, Any]:
    # Servers parse what they are sent back: what was no JSON the first time must not return.
    arguments = "{}" if call.arguments is None else call.raw
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _call(call: dict[str, Any]) -> ToolCall:
    raw = call["function"]["arguments"]
    return ToolCall(call["id"], call["function"]["name"], json_object(raw), raw)


def _spent(model: str, usage: dict[str, Any]) -> Spent:
    details = usage.get("prompt_tokens_details") or {}
    tokens = {
        "input_tokens": usage.get("prompt_tokens") or 0,
        "output_tokens": usage.get("completion_tokens") or 0,
        "cached_tokens": details.get("cached_tokens") or 0,
    }
    written = details.get("cache_write_tokens") or 0
    return Spent(**tokens, cost_usd=cost(model, **tokens, written_tokens=written))
