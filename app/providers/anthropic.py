"""Claude, or any server that speaks Anthropic's Messages API."""

from collections.abc import Sequence
from typing import Any

import anthropic
from anthropic.types import CacheControlEphemeralParam
from typing_extensions import override

from app.providers.capabilities import Capabilities
from app.providers.error_replies import read_error, to_error
from app.providers.errors import (
    ProviderError,
    UnavailableError,
    error_of_redirect,
    retry_after,
    without_key,
)
from app.providers.features import (
    CACHE_CONTROL,
    RETURNED_REASONING,
    SYSTEM_BLOCKS,
    TOOL_CHOICE,
    TOOLS,
    Concessions,
    Feature,
)
from app.providers.http import MAX_REPLY_BYTES, limit_time, provider_client, request_deadline
from app.providers.llm import Completion, Message, Request, TokenUsage, Verbatim
from app.providers.plain_request import with_tools_in_words
from app.providers.provider import Provider
from app.providers.replies import (
    FailedReplyError,
    ReplyReader,
    object_at,
    read_call,
    read_model,
    read_stop,
    read_text,
    sum_counts,
    token_usage,
)
from app.providers.served_llm import ServedLLM
from app.providers.thoughts import remove_thoughts

_LONGEST_WAIT = 120
"""Maximum seconds that the provider may postpone a retry, as in the `openai` package."""

_CONNECT_SECONDS = 5
_CACHED: CacheControlEphemeralParam = {"type": "ephemeral"}


_BLOCK = {"type", "text"}
"""Members of which a block has one."""


class AnthropicLLM(ServedLLM):
    """Calls `model` of a provider that speaks Anthropic's API.

    `timeout` is how many seconds the server may be silent, at each of 1 + `max_retries` attempts.
    Setting it also lifts the SDK's rule that long answers must be streamed.
    """

    def __init__(
        self,
        model: str,
        provider: Provider,
        *,
        timeout: float = 120,
        max_retries: int = 2,
        capabilities: Capabilities | None = None,
    ) -> None:
        super().__init__(model, provider, capabilities)
        self._client = anthropic.AsyncAnthropic(
            api_key=provider.bearer,
            base_url=provider.url,
            default_headers=provider.own_headers,
            default_query=dict(provider.query),
            timeout=anthropic.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
            max_retries=max_retries,
            middleware=[_refuse_long_waits],
            http_client=provider_client(
                MAX_REPLY_BYTES, sends_bearer=provider.api_key_header is None
            ),
        )
        self._deadline = request_deadline(timeout, max_retries)
        self._reader = ReplyReader(
            self.name, "Anthropic's API", self._completion, _usage, self._api_key
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    @override
    def _arguments(self, request: Request, concessions: Concessions) -> dict[str, Any]:
        if request.tools and not concessions.allow(TOOLS):
            request = with_tools_in_words(request)
        elif request.is_forced and not concessions.allow(TOOL_CHOICE):
            request = request.with_choice_in_words()
        cached = {"cache_control": _CACHED} if concessions.allow(CACHE_CONTROL) else {}
        turns = (self._turn(message, concessions) for message in request.messages)
        arguments: dict[str, Any] = {
            "model": self._model,
            "max_tokens": concessions.limit_output(request.max_tokens),
            "messages": [turn for turn in turns if turn],
        }
        if request.system:
            blocks = [{"type": "text", "text": request.system, **cached}]
            arguments["system"] = blocks if concessions.allow(SYSTEM_BLOCKS) else request.system
        if request.tools:
            arguments["tools"] = [
                {"name": t.name, "description": t.description, "input_schema": t.parameters}
                for t in request.tools
            ]
            arguments["tools"][-1] |= cached
            arguments["tool_choice"] = _choice(request.tool_choice)
        return arguments

    @override
    def _features(self, request: Request, arguments: dict[str, Any]) -> Sequence[Feature]:
        system = arguments.get("system")
        blocks = system if isinstance(system, list) else []
        marked = [*blocks, *arguments.get("tools", ())]
        sent = {
            TOOL_CHOICE: arguments.get("tool_choice", {}).get("type") in {"any", "tool"},
            CACHE_CONTROL: any("cache_control" in part for part in marked),
            SYSTEM_BLOCKS: bool(blocks),
            RETURNED_REASONING: any(self._is_own(message) for message in request.messages),
            TOOLS: "tools" in arguments,
        }
        return [feature for feature, is_sent in sent.items() if is_sent]

    def _is_own(self, message: Message) -> bool:
        return message.verbatim is not None and message.verbatim.llm == self.name

    def _turn(self, message: Message, concessions: Concessions) -> dict[str, Any] | None:
        """Return the message in Anthropic's format; None for an empty one, which it refuses."""
        content: list[dict[str, Any]] = [
            {
                "type": "tool_result",
                "tool_use_id": result.call_id,
                "content": result.content,
                "is_error": result.is_error,
            }
            for result in message.results
        ]
        own = message.verbatim if self._is_own(message) else None
        if own is not None and concessions.allow(RETURNED_REASONING):
            content = own.content
        else:
            if message.text:
                content.append({"type": "text", "text": message.text})
            for call in message.calls:
                use = {"type": "tool_use", "id": call.id, "name": call.name}
                content.append({**use, "input": call.arguments or {}})
        return {"role": message.role, "content": content} if content else None

    @override
    async def _answer(self, arguments: dict[str, Any]) -> Completion:
        return await self._reader.read(await self._send(arguments))

    async def _send(self, arguments: dict[str, Any]) -> bytes:
        if self._client.is_closed():
            raise UnavailableError(f"{self.name} is closed; start the server again")
        try:
            async with limit_time(self._deadline, self.name):
                response = await self._client.messages.with_raw_response.create(**arguments)
                return bytes(await response.read())
        except anthropic.AnthropicError as error:
            raise self._translate(error) from None  # it may show the key

    def _translate(self, error: anthropic.AnthropicError) -> ProviderError:
        if isinstance(error, anthropic.APIStatusError):
            response = error.response
            if 300 <= error.status_code < 400:
                return error_of_redirect(self.name, error.status_code, response.headers)
            reply = read_error(response.content, error.status_code, response.headers)
            return to_error(self.name, reply, self._api_key)
        cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
        message = without_key(f"{error}{cause}", self._api_key)
        return UnavailableError(f"{self.name} cannot be reached: {message}")

    def _completion(self, answer: dict[str, Any]) -> Completion:
        model, stop = read_model(answer, self._model), read_stop(answer.get("stop_reason"))
        if stop == "failed":
            raise FailedReplyError(str(answer["stop_reason"]))
        sent = answer["content"]
        content = [sent] if isinstance(sent, str | dict) else sent
        if any(isinstance(block, dict) and not _BLOCK & block.keys() for block in content):
            raise ValueError("it has a block that is none")
        uses = [
            block
            for block in content
            if isinstance(block, dict) and block.get("type") == "tool_use"
        ]
        calls = tuple(
            read_call(use.get("name"), use.get("id"), use.get("input"), n)
            for n, use in enumerate(uses)
        )
        whole = all(
            isinstance(u.get("input"), dict) and u.get("id") and u.get("name") for u in uses
        )
        return Completion(
            text=remove_thoughts(read_text(content)),
            calls=calls,
            finish_reason=stop or ("tools" if calls else "end"),
            usage=_usage(answer, model),
            model=model,
            verbatim=Verbatim(self.name, content) if whole and content is sent else None,
        )


async def _refuse_long_waits(
    request: anthropic.APIRequest, call_next: anthropic.AsyncCallNext
) -> anthropic.AsyncAPIResponse[Any]:
    """Leave waits beyond two minutes to the caller: the SDK sleeps as long as the header says."""
    response = await call_next(request)
    if (retry_after(response.headers) or 0) > _LONGEST_WAIT:
        response.headers["x-should-retry"] = "false"
    return response


def _choice(choice: str) -> dict[str, str]:
    if choice in {"auto", "any", "none"}:
        return {"type": choice}
    return {"type": "tool", "name": choice}


def _usage(answer: dict[str, Any], model: str) -> TokenUsage:
    usage = object_at(answer, "usage")
    plain, cached = usage.get("input_tokens"), usage.get("cache_read_input_tokens")
    written = usage.get("cache_creation_input_tokens")
    return token_usage(
        model,
        input_tokens=None if plain is None else sum_counts(plain, cached, written),
        output_tokens=usage.get("output_tokens"),
        cached=cached,
        written=written,
    )
