"""Checks of models by `memoryd doctor`: the features that they refuse, and whether they answer."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from app.capability_repository import delete_all, find_all
from app.cli.check_result import Finding
from app.config import Settings
from app.conversations.recovered_calls import recover_calls
from app.db.database import ALL_ROOTS, Connection, Database
from app.errors import AppError, OperatorError
from app.indexing.passages import PassageIndex
from app.indexing.terms import Vocabulary
from app.providers.capabilities import Capabilities, Restriction
from app.providers.embedder import Embedder
from app.providers.errors import ProviderError
from app.providers.llm import LLMPool, Message, Request, Tool
from app.resources import open_resources

LONGEST_ANSWER_SECONDS = 60.0

_REPORT = Tool(
    "report",
    "Report whether tools work.",
    {
        "type": "object",
        "properties": {"works": {"type": "string", "description": "yes or no"}},
        "required": ["works"],
        "additionalProperties": False,
    },
)
_QUESTION = Request(
    "You test a connection.",
    (Message("user", 'Call the tool "report" with {"works": "yes"}.'),),
    tools=(_REPORT,),
    tool_choice="any",
    max_tokens=2_048,  # models that think need some before they call
)


async def list_restrictions(url: str) -> list[Finding]:
    """Return a line for each feature that a model refuses, and for each of its known limits."""
    async with _connection(url) as connection:
        found = await find_all(connection, Capabilities().oldest)
    return [Finding(True, "remembered", _describe(restriction)) for restriction in found]


async def forget_restrictions(url: str, model: str) -> Finding:
    """Forget what is remembered of a model, or of all; running servers follow within a minute."""
    names = None if model == "all" else [model, model.partition(":")[2]]
    async with _connection(url) as connection:
        count = await delete_all(connection, names)
        left = await find_all(connection, Capabilities().oldest)
    if count or names is None:
        return Finding(True, "forgotten", f"{count} of {model}; servers follow within a minute")
    known = ", ".join(sorted({restriction.model.name for restriction in left})) or "none"
    return Finding(False, "forgotten", f"0 of {model}; models with something to forget: {known}")


async def ask_models(settings: Settings) -> list[Finding]:
    """Send a small request to each configured model and to the embedder; a line for each."""
    chosen = settings.model_copy(update={"allow_superuser": True})
    findings = [await _ask("embedding", settings.embedding, lambda: _embed(chosen))]
    without = chosen.model_copy(update={"embedding": "none"})
    allowed = [name for name in settings.allowed_models or () if not name.endswith("*")]
    names = dict.fromkeys([*([settings.llm] if settings.llm else []), *allowed])
    async with open_resources(without, choose_index=_make_index, warm=False) as resources:
        asked = (
            _ask("LLM", name, lambda name=name: _call(resources.llms, name))  # type: ignore[misc]
            for name in names
        )
        return [*findings, *await asyncio.gather(*asked)]


async def _ask(subject: str, name: str, request: Callable[[], Awaitable[str]]) -> Finding:
    begin = time.monotonic()
    try:
        async with asyncio.timeout(LONGEST_ANSWER_SECONDS):
            answer = await request()
    except TimeoutError:
        return Finding(False, subject, f"{name} gave no answer in {LONGEST_ANSWER_SECONDS:g} s")
    except (AppError, OperatorError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, ProviderError) else error
        words = " ".join(str(cause).split())
        return Finding(False, subject, f"{name} failed after {_seconds(begin)}: {words}")
    return Finding(True, subject, f"{name} answered in {_seconds(begin)} {answer}".rstrip())


async def _embed(settings: Settings) -> str:
    async with open_resources(settings) as resources:
        [vector] = await resources.index.embed(["Does embedding work?"], kind="query")
    return "" if vector is None else f"with {len(vector)} dimensions"


async def _call(llms: LLMPool, name: str) -> str:
    reply = await llms.get(name).complete(_QUESTION)
    served = "" if reply.model == name.partition(":")[2] else f" (as {reply.model})"
    if reply.calls:
        return f"with a call{served}"
    if recover_calls(reply, _QUESTION.tools).calls:
        return f"with a call written as text, which is read{served}"
    cut = ", cut off" if reply.finish_reason == "length" else ""
    return f"without a call{cut}, so it may extract no memories{served}"


async def _make_index(
    _database: Database, embedder: Embedder | None, vocabulary: Vocabulary
) -> PassageIndex:
    """Return an index that is in no database, as nothing is stored or searched."""
    return PassageIndex(0, embedder, vocabulary)


@asynccontextmanager
async def _connection(url: str) -> AsyncIterator[Connection]:
    database = await Database.open(url, pool_size=1)
    try:
        async with database.transaction(ALL_ROOTS) as connection:
            yield connection
    finally:
        await database.close()


def _describe(found: Restriction) -> str:
    what = "refused" if found.limit is None else f"at most {found.limit:,}"
    words = f': "{found.reason}"' if found.reason else ""
    since = f"since {found.learned_at:%Y-%m-%d %H:%M} UTC"
    return f"{found.model.name} at {found.model.address}, {found.feature} {what} {since}{words}"


def _seconds(begin: float) -> str:
    return f"{time.monotonic() - begin:.1f} s"
