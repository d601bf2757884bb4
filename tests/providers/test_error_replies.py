"""Errors in the words of many servers: what kind each one is, and how many tokens to ask for."""

import json
from typing import Any

import pytest

from app.providers.capabilities import Capabilities, ServedModel
from app.providers.error_replies import find_error, read_error, to_error
from app.providers.errors import (
    BadRequestError,
    MisconfiguredError,
    ProviderError,
    RateLimitedError,
    RequestTooLongError,
    UnavailableError,
)
from app.providers.features import (
    MAX_TOKENS_NAME,
    RETURNED_REASONING,
    SYSTEM_ROLE,
    TOOL_CHOICE,
    TOOLS,
    Concessions,
    Feature,
)

LONG, REFUSED = RequestTooLongError, BadRequestError
WAIT, SETTINGS, DOWN = RateLimitedError, MisconfiguredError, UnavailableError


def error_for(status: int, body: Any) -> ProviderError:
    sent = body if isinstance(body, dict | list) else {"error": {"message": body}}
    found = find_error(sent) if status == 200 else None
    reply = found or read_error(json.dumps(sent).encode(), status, {})
    return to_error("openai:m", reply, "sk-0123456789abcdef")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        # llama.cpp and servers made of it
        (400, "cannot keep the first 5120 tokens: n_keep >= n_ctx, load it with more", LONG),
        (500, "input (700 tokens) is too large to process. increase the physical batch", LONG),
        (500, "input prompt is too big compared to KV size, please increase KV size", LONG),
        (500, "context shift is off and the prompt exceeds the context size", LONG),
        (500, "failed to find a memory slot for batch: KV cache is full", LONG),
        (400, "tools.0.function.parameters: minimum and maxLength are not supported", REFUSED),
        (400, "Invalid JSON schema: maxLength is not allowed", REFUSED),
        # vLLM, SGLang
        (400, "The prompt (total length 900) is too long to fit into the model", LONG),
        (400, "The decoder prompt (length 9) is longer than the maximum model length of 4", LONG),
        (400, "Input length (9000 tokens) exceeds the maximum allowed length (8000 tokens).", LONG),
        (400, "The input (9 tokens) is longer than the model's context length (8 tokens).", LONG),
        (400, {"object": "error", "message": "maximum context length is 9", "code": 40303}, LONG),
        # Text Generation Inference, Text Embeddings Inference, Together
        (422, "`inputs` must have less than 2048 tokens. Given: 2222", LONG),
        (413, "`inputs` must have less than 512 tokens. Given: 800", LONG),
        (
            422,
            "`inputs` tokens + `max_new_tokens` must be <= 512. Given: 500 `inputs` tokens",
            LONG,
        ),
        # hosted models
        (400, "Please reduce the length of the messages or completion.", LONG),
        (400, "prompt token count of 80000 exceeds the limit of 64000", LONG),
        (400, "too many tokens: total number of tokens cannot exceed 4081 tokens", LONG),
        (400, "Range of input length should be [1, 30720]", LONG),
        (400, "Your request exceeded model token limit: 8192", LONG),
        (400, "Malformed input request: expected maxLength: 2048, actual: 9999", LONG),
        (400, "Too many input tokens. Max input tokens: 8192, request input token count: 9", LONG),
        (400, "input length and `max_tokens` exceed context limit: 9 + 9 > 10", LONG),
        (400, "Prompt exceeds max length", LONG),
        (400, "Invalid 'messages[1].content': string too long. Expected 10, got 11.", LONG),
        (400, {"detail": [{"loc": ["body"], "msg": "the context window is too small"}]}, LONG),
        (400, {"message": 'Upstream: {"error": {"message": "prompt is too long: 9"}}'}, LONG),
        (200, {"base_resp": {"status_code": 2013, "status_msg": "context window exceeds"}}, LONG),
        (200, {"object": "error", "message": "Requested tokens per request limit exceeded"}, LONG),
        (429, "Request too large for m on tokens per minute: reduce it and try again", LONG),
        # none of these becomes better by shorter input
        (500, "Request took too long to process", DOWN),
        (503, "The model is taking too long to load", DOWN),
        (504, "Waited too long for a free slot", DOWN),
        (400, "Invalid 'tools[0].function.name': string too long. Expected 64, got 70.", REFUSED),
        (400, "Invalid 'messages[2].tool_calls[0].id': string too long. Expected 40.", REFUSED),
        (400, "prompt_cache_key: string is too long", REFUSED),
        (400, "max_tokens is too large: this model supports at most 4096 output tokens", REFUSED),
        (404, "No endpoint has a context length of 9000 tokens", SETTINGS),
        # waiting helps
        (429, "Requests have exceeded the token rate limit. Please retry after 6 seconds.", WAIT),
        (429, "Request rate limit exceeded", WAIT),
        (400, {"message": "Too many tokens, please wait before trying again."}, WAIT),
        (400, {"error": {"message": "slow down", "code": "ThrottlingException"}}, WAIT),
        (500, "Rate limit reached for requests per minute", WAIT),
        (400, {"error": {"message": "请求过于频繁, 请稍后再试", "code": "1302"}}, WAIT),
        (200, {"errors": [{"message": "busy", "code": 429}]}, WAIT),
        # only the operator helps
        (400, "API key not found. Please pass a valid one.", SETTINGS),
        (400, "Invalid model name passed in model=x", SETTINGS),
        (400, "The model `x` does not exist", SETTINGS),
        (500, "no models loaded", SETTINGS),
        (200, {"error": "Unexpected endpoint or method. (POST /v1/x)"}, SETTINGS),
        (200, {"detail": "Incorrect API key: sk-0123456789abcdef"}, SETTINGS),
        (429, {"error": {"message": "quota", "code": "insufficient_quota"}}, SETTINGS),
        # a fault of the server
        (200, {"msg": "the engine died", "success": False}, DOWN),
        (500, "CUDA out of memory", DOWN),
        (425, "too early", DOWN),
        (499, "client closed request", DOWN),
    ],
)
def test_the_kind_of_an_error_follows_from_its_status_its_codes_and_its_words(
    status: int, body: Any, kind: type[ProviderError]
) -> None:
    error = error_for(status, body)
    assert type(error) is kind, error
    assert "{" not in error.words, "the innermost words are shown"
    assert "0123456789" not in str(error)


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ("Rate limit reached. Please try again in 1m7.5s. Visit the page.", 67.5),
        ("Please retry after 6 seconds", 6),
        ("try again in 250ms", 0.25),
        ([{"error": {"message": "quota", "details": [{"retryDelay": "31s"}]}}], 31),
        ("slow down", None),
    ],
)
def test_a_wait_is_read_from_the_words_if_no_header_states_it(
    body: Any, seconds: float | None
) -> None:
    assert error_for(429, body).retry_after == seconds


@pytest.mark.parametrize(
    ("words", "limit", "is_remembered"),
    [
        ("max_tokens must be at most 4000, was 8192", 4_000, True),
        ("`max_tokens` must be in the range [1, 6,144]", 6_144, True),
        ("max_completion_tokens is too large for this model", 4_096, True),
        (
            "The maximum tokens you requested exceeds the model limit of 2048. Try less.",
            2_048,
            True,
        ),
        ("Too many completion tokens requested", 4_096, True),
        ("max_tokens参数非法: 取值范围为1到2048", 2_048, True),
        ("'max_tokens' is too large: 8192 (8192 > 8192 - 900).", 7_292, False),
        ("'max_tokens' exceeds the context: 8192 > 8192 - 900", 7_292, False),
        (
            "maximum context length is 8192 tokens. However, you requested 9000 tokens "
            "(808 in the messages, 8192 in the completion).",
            7_384,
            False,
        ),
        (
            "`inputs` tokens + `max_new_tokens` must be <= 9000. Given: 4000 `inputs` tokens",
            5_000,
            False,
        ),
        (
            "input length and `max_tokens` exceed context limit: 195000 + 8192 > 200000",
            5_000,
            False,
        ),
        (
            "maximum context length of 40960 tokens: 33960 tokens from the input messages and 8192 "
            "tokens for the completion",
            7_000,
            False,
        ),
        (
            "maximum context length is 2048 tokens. However, your request has 48 input tokens plus "
            "8192 'max_tokens'.",
            2_000,
            False,
        ),
        ("requires more credits, or fewer max_tokens; you can only afford 2000", 2_000, False),
        ("max_tokens and the prompt exceed the context", 4_096, False),
        ("maximum context length is 900: 800 in the messages, 8192 in the completion", None, False),
        ("maximum context length is 8192, however your messages have 9000 tokens", None, False),
    ],
)
def test_only_limits_of_the_model_itself_are_remembered(
    words: str, limit: int | None, *, is_remembered: bool
) -> None:
    known = Capabilities()
    concessions = Concessions(known, ServedModel("http://m", "m"))
    status = 402 if "afford" in words else 400
    is_repeated = concessions.concede(error_for(status, words), (), 8_192)
    assert is_repeated is (limit is not None)
    assert concessions.limit_output(8_192) == (limit or 8_192)
    concessions.settle()
    assert [found.limit for found in known.all()] == ([limit] if is_remembered else [])


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        (TOOLS, "`tool calling` is not supported with this model"),
        (TOOLS, "Function calling is not enabled for this model"),
        (TOOLS, "No endpoints found that support tool use. Try another model."),
        (TOOLS, "body.tools: Extra inputs are not permitted"),
        (TOOLS, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser'),
        (TOOL_CHOICE, "Failed to initialize samplers: failed to parse grammar"),
        (SYSTEM_ROLE, "Unexpected message role: system"),
        (SYSTEM_ROLE, "Jinja Exception: Conversation must start with a user message"),
        (MAX_TOKENS_NAME, "body.max_tokens: Extra inputs are not permitted"),
    ],
)
def test_a_refused_feature_is_found_in_the_words_of_many_servers(
    feature: Feature, words: str
) -> None:
    every = (TOOL_CHOICE, TOOLS, SYSTEM_ROLE, MAX_TOKENS_NAME)
    found = (one.name for one in every if one.refusal.search(words))
    assert next(found) == feature.name


@pytest.mark.parametrize(
    ("words", "is_found"),
    [
        ("messages.1: property 'reasoning_content' is unsupported", True),
        ("messages.1.content.0.thinking: extra input", True),
        ("Invalid `signature` in `thinking` block", True),
        ("Missing thought_signature in the function call", True),
        ("the function's signature is wrong", False),
        ("we thought that this request was larger", False),
    ],
)
def test_reasoning_is_blamed_if_its_member_is_named(words: str, *, is_found: bool) -> None:
    assert bool(RETURNED_REASONING.refusal.search(words)) is is_found
