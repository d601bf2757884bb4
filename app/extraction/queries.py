"""What to search the memories for, given a conversation."""

from collections.abc import Sequence

from app.conversations.prompt_text import render_text, render_turns
from app.conversations.types import Ask, Turn
from app.extraction.prompt import TEMPLATES
from app.json_values import replace_unstorable
from app.providers.embeddings.base import split_by_characters
from app.providers.llm.base import Message, Request, Tool

MAX_QUERIES = 8
"""Of those that a model writes."""

_WINDOW_CHARACTERS = 1_000
"""About what the local embedding model reads."""

_RECENT_CHARACTERS = 400_000
_LAST_TURNS = 4

SEARCH = Tool(
    name="search_memories",
    description="Search the memories by meaning and by words.",
    parameters={
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "What a memory might say."},
        },
        "required": ["query"],
        "additionalProperties": False,
    },
)


def windows(turns: Sequence[Turn]) -> list[str]:
    """Return what is searched for where no model is asked.

    The last turns one by one and the last of each speaker, because each may be about something
    else; and the whole text in windows, because a turn alone may say too little, and whatever
    the conversation changes must be seen.
    """
    said = [turn for turn in turns if turn.role != "system" and turn.text.strip()]
    of_speakers = {turn.speaker: turn for turn in said if turn.role != "tool"}
    texts = [turn.text for turn in (*said[-_LAST_TURNS:], *of_speakers.values())]
    recent = "\n".join(render_text(turn) for turn in said)[-_RECENT_CHARACTERS:]
    queries = [text[-_WINDOW_CHARACTERS:].strip() for text in texts]
    return list(dict.fromkeys([*queries, *split_by_characters(recent, _WINDOW_CHARACTERS)]))


async def written_by_model(ask: Ask, turns: Sequence[Turn], context_turns: int) -> list[str]:
    """Return what a model wants searched for; empty when it wants nothing or gives no query."""
    request = Request(
        system=TEMPLATES.fill("queries", most=str(MAX_QUERIES)),
        messages=(Message("user", render_turns(turns, context_turns)),),
        tools=(SEARCH,),
        tool_choice="any",
    )
    reply = await ask(request, "search")
    wanted = [(call.arguments or {}).get("query") for call in reply.calls]
    texts = [replace_unstorable(text, " ").strip() for text in wanted if isinstance(text, str)]
    return [text[:_WINDOW_CHARACTERS] for text in dict.fromkeys(texts) if text][:MAX_QUERIES]
