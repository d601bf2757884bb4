"""Reading replies, which may hold anything, for all adapters: texts, calls, usage, and cost.

Costs are by the list prices that the package genai-prices contains; nothing is downloaded.
"""

import asyncio
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot

from app.json_values import is_deeper, parse_json, replace_unstorable
from app.providers.chat_stream import is_stream, join_stream
from app.providers.error_replies import describe_body, find_error, to_error
from app.providers.errors import RequestTooLongError, without_key
from app.providers.http import parse_reply
from app.providers.llm import Completion, TokenUsage, ToolCall, UnusableReplyError
from app.providers.thoughts import remove_thoughts_in

MAX_CALLS = 1_000
MAX_ARGUMENT_BYTES = 1 << 20
MAX_ARGUMENT_DEPTH = 64

_MAX_NAME = 200
_MAX_TOKENS = 100_000_000
"""Maximum plausible token count of one reply."""

_FEW_TOKENS = 64
"""Maximum tokens of an answer that had no room: a model that thinks too long writes more."""

_NAMELESS = "unnamed"
_TEXT_BLOCKS = {"text", "output_text", "refusal"}

_LARGE_BYTES = 1 << 16
_PRICE_LISTS = ("anthropic", "openai")
_DATE = re.compile(r"-(?:\d{8}|\d{4}-\d\d-\d\d)$")

_OPEN_MODELS = "gpt-oss"
"""OpenAI's models with open weights: anyone may serve them, at a price of their own."""

_CUT = re.compile(
    r"length|(?<!rate)(?<!rate_)limit|max.{0,20}(token|output)|(token|output).{0,20}(max|budget)"
    r"|out_of_tokens|context_?window|truncat|incomplete",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"filter|safety|recitation|block_?list|blocked|prohibited|refus|spii|guardrail|sensitive"
    r"|moderation",
    re.IGNORECASE,
)
_FAILED = re.compile(
    r"error|malformed|network|abort|cancel|insufficient|time_?out|unexpected_tool|fail|overload",
    re.IGNORECASE,
)

_NOT_A_REPLY = (ValueError, TypeError, KeyError, IndexError, AttributeError)

# Takes half a second: adapters, and with them this module, are imported in a thread.
get_snapshot()


class FailedReplyError(Exception):
    """The reply states that the answer has failed; the message is the provider's."""


class ReplyReader:
    """Reads the replies of one API: `read` reads all of a reply, `usage` only its usage.

    `read` may raise KeyError and the like for an unexpected reply; `usage` never raises.
    """

    def __init__(
        self,
        name: str,
        api: str,
        read: Callable[[dict[str, Any]], Completion],
        usage: Callable[[dict[str, Any], str], TokenUsage],
        key: str | None,
    ) -> None:
        self._name = name
        self._api = api
        self._read = read
        self._usage = usage
        self._key = key

    async def read(self, body: bytes) -> Completion:
        """Return a reply as a completion; raises UnusableReplyError, and the errors of `read`."""
        if len(body) > _LARGE_BYTES:
            return await asyncio.to_thread(self._completion, body)
        return self._completion(body)

    def _completion(self, body: bytes) -> Completion:
        answer: Any = {}
        try:
            answer = parse_reply(join_stream(body) if is_stream(body) else body)
            if error := find_error(answer):
                raise to_error(self._name, error, self._key)
            completion = self._read(answer)
            if _has_no_room(completion, answer):
                raise RequestTooLongError(
                    f"{self._name} has no room for an answer: the input fills its context"
                )
            if len(completion.calls) > MAX_CALLS:
                raise ValueError(f"the reply calls more than {MAX_CALLS:,} tools")
        except FailedReplyError as error:
            unusable = self._unusable(answer)
            words = without_key(str(error), self._key)
            raise UnusableReplyError(f"{self._name} fails: {words}", unusable) from error
        except _NOT_A_REPLY as error:
            reason = str(error) if isinstance(error, ValueError) else "it lacks what a reply has"
            words = without_key(describe_body(body), self._key)
            raise UnusableReplyError(
                f"{self._name} answered with something else than a completion ({reason}); "
                f"check that the base URL is that of a server that speaks {self._api}; "
                f"the reply begins: {words or '(nothing)'}",
                self._unusable(answer if isinstance(answer, dict) else {}),
            ) from error
        return completion

    def _unusable(self, answer: dict[str, Any]) -> Completion:
        model = read_model(answer, self._name.partition(":")[2])
        return Completion("", (), "unusable", self._usage(answer, model), model)


def _has_no_room(completion: Completion, answer: Mapping[str, Any]) -> bool:
    """Return whether an answer was cut off before its beginning, because the input is too long."""
    usage = completion.usage
    if completion.finish_reason != "length" or completion.calls or completion.text.strip():
        return False
    if "context_window" in str(answer.get("stop_reason")):
        return True
    if usage.input_tokens == 0:  # unknown
        return usage.output_tokens == 0 and _is_silent(answer)
    return usage.output_tokens <= _FEW_TOKENS < usage.input_tokens


def _is_silent(answer: Mapping[str, Any]) -> bool:
    """Return whether a reply has nothing in it, not even thoughts."""
    choice = (answer.get("choices") or [{}])[0]
    message = object_at(choice, "message")
    parts = [value for name, value in message.items() if name != "role"]
    return not any([answer.get("content"), answer.get("output"), choice.get("text"), *parts])


def read_model(answer: Mapping[str, Any], default: str) -> str:
    """Return the model's name in a reply, or the default."""
    name = answer.get("model")
    return clean_text(name)[:_MAX_NAME] if isinstance(name, str) and name else default


def read_stop(*words: object) -> Literal["length", "refusal", "failed"] | None:
    """Return why an answer stopped early, by the words of any server; None if it is whole."""
    reason = " ".join(word for word in words if isinstance(word, str))
    reason = re.sub(r"[-\s]", "_", reason)
    if _CUT.search(reason):
        return "length"
    if _REFUSED.search(reason):
        return "refusal"
    return "failed" if _FAILED.search(reason) else None


def read_text(content: Any) -> str:
    """Return a turn's text, which may be a list of blocks, among them thoughts."""
    if isinstance(content, dict):
        content = [content]
    if isinstance(content, list):
        return "".join(map(_block_text, content))
    return "" if content is None else clean_text(content)


def _block_text(block: Any) -> str:
    if isinstance(block, str):
        return clean_text(block)
    is_text = isinstance(block, dict) and block.get("type", "text") in _TEXT_BLOCKS
    text = (block.get("text") or block.get("refusal")) if is_text else None
    if isinstance(text, dict):
        text = text.get("value")
    return clean_text(text) if isinstance(text, str) else ""


def clean_text(text: object) -> str:
    """Return a text in storable form; raises TypeError if it is not a text."""
    if not isinstance(text, str):
        raise TypeError("not a text")
    return replace_unstorable(text)


def read_call(name: object, call_id: object, given: object, number: int) -> ToolCall:
    """Return a call in any form that servers send it in; `number` is its place in the reply.

    They leave out ids, names, and empty arguments, and send arguments as text or as an object.
    A text in the arguments that is only a thought is left out, so that the call is invalid if it
    needs the text.
    """
    raw = arguments_text({} if given is None or given == "" else given)
    arguments = json_object(raw)
    if (cleaned := remove_thoughts_in(arguments)) != arguments:
        arguments, raw = cleaned, arguments_text(cleaned)
    chosen_id = call_id if isinstance(call_id, str) and call_id else f"call_{number}"
    chosen_name = name if isinstance(name, str) and name else _NAMELESS
    return ToolCall(
        clean_text(chosen_id)[:_MAX_NAME],
        clean_text(chosen_name)[:_MAX_NAME],
        arguments,
        raw,
    )


def arguments_text(given: object) -> str:
    """Return a call's arguments as JSON text; most servers send them in that form."""
    if isinstance(given, str):
        return given
    return json.dumps(given, ensure_ascii=False, separators=(",", ":"))


def json_object(raw: str) -> dict[str, Any] | None:
    """Return the JSON object in a call's arguments; None if invalid, too long, or too deep."""
    try:
        encoded = raw.encode()
        if len(encoded) > MAX_ARGUMENT_BYTES:
            return None
        value = parse_json(encoded)
    except ValueError:
        return None
    return value if isinstance(value, dict) and not is_deeper(value, MAX_ARGUMENT_DEPTH) else None


def object_at(answer: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """Return the object at a path in a reply; an empty one if there is none."""
    found: Any = answer
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def token_usage(
    model: str, *, input_tokens: object, output_tokens: object, cached: object, written: object
) -> TokenUsage:
    """Return a reply's usage by its own counts; an impossible count is treated as 0.

    The cost is unknown if a count is impossible, or that of the input or output is missing.
    `input_tokens` includes tokens read from and written to a cache.
    """
    counts = (input_tokens, output_tokens, cached, written)
    sent, received, read, kept = map(_tokens, counts)
    read = min(read, sent)
    kept = min(kept, sent - read)
    are_known = input_tokens is not None and output_tokens is not None
    are_right = are_known and all(
        count is None or str(_tokens(count)) == str(count) for count in counts
    )
    return TokenUsage(
        input_tokens=sent,
        output_tokens=received,
        cached_tokens=read,
        cost_usd=cost(
            model,
            input_tokens=sent,
            output_tokens=received,
            cached_tokens=read,
            written_tokens=kept,
        )
        if are_right
        else None,
    )


def sum_counts(*counts: object) -> int:
    """Return the sum of counts of tokens."""
    return sum(map(_tokens, counts))


def _tokens(count: object) -> int:
    """Return a count of tokens, which some servers send as text or with a fraction."""
    if isinstance(count, str) and count.isascii() and count.isdecimal() and len(count) < 10:
        count = int(count)
    if isinstance(count, float) and math.isfinite(count):
        count = int(count)
    if not isinstance(count, int) or isinstance(count, bool):
        return 0
    return count if 0 <= count <= _MAX_TOKENS else 0


def cost(
    model: str,
    *,
    input_tokens: int,
    output_tokens: int,
    cached_tokens: int = 0,
    written_tokens: int = 0,
) -> float | None:
    """Return US dollars; None for a model whose price is not listed, never that of a similar one.

    A model's name may end in a date. `input_tokens` include the cached and the written ones.
    """
    usage = Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=cached_tokens,
        cache_write_tokens=written_tokens,
    )
    if model.startswith(_OPEN_MODELS):
        return None
    for provider in _PRICE_LISTS:
        try:
            price = calc_price(usage, model, provider_id=provider)
        except LookupError:
            continue
        # The package also matches names that only begin with a listed name.
        is_listed = price.model.id in {model, _DATE.sub("", model)}
        return float(price.total_price) if is_listed else None
    return None
