"""Prompts of the registry, as they are in production, with their variables filled in."""

import json
import re
from collections.abc import Mapping

from mcp import types

from app.auth.access import Verb
from app.errors import InvalidRequestError, NotFoundError
from app.mcp.caller import Caller
from app.prompts.errors import PromptNotFoundError
from app.prompts.filling import filled, variables_of
from app.prompts.schemas import PRODUCTION, PROMPT_NAME, ListPrompts, ReadPrompt
from app.prompts.service import PromptService

PAGE = 50

_IN_PRODUCTION = ReadPrompt(label=PRODUCTION)


async def list_page(caller: Caller, cursor: str | None) -> types.ListPromptsResult:
    """Return a page of the prompts that are in production, by name."""
    if not caller.access.may(Verb.READ):
        return types.ListPromptsResult(prompts=[])
    service = PromptService.build(caller.resources)
    rows, following = await service.list(caller.access, ListPrompts(limit=PAGE, cursor=cursor))
    named = [row["name"] for row in rows if PRODUCTION in json.loads(row["labels"])]
    found = [await _described(caller, name) for name in named]
    return types.ListPromptsResult(
        prompts=[prompt for prompt in found if prompt is not None], next_cursor=following
    )


async def get(
    caller: Caller, name: str, arguments: Mapping[str, str] | None
) -> types.GetPromptResult:
    """Return a prompt's text; raises the errors of the registry, and InvalidRequestError."""
    if not re.fullmatch(PROMPT_NAME, name):
        raise PromptNotFoundError(name)
    service = PromptService.build(caller.resources)
    row = await service.get(caller.access, name, _IN_PRODUCTION)
    text = _filled(row["text"], arguments or {})
    message = types.PromptMessage(role="user", content=types.TextContent(text=text))
    return types.GetPromptResult(description=row["when_to_update"], messages=[message])


async def _described(caller: Caller, name: str) -> types.Prompt | None:
    """Return a prompt as clients list it; None if it went away meanwhile."""
    try:
        row = await PromptService.build(caller.resources).get(caller.access, name, _IN_PRODUCTION)
    except NotFoundError:
        return None
    return types.Prompt(
        name=name,
        arguments=[
            types.PromptArgument(name=variable, required=True)
            for variable in variables_of(row["text"])
        ],
    )


def _filled(text: str, arguments: Mapping[str, str]) -> str:
    variables = variables_of(text)
    if missing := [name for name in variables if name not in arguments]:
        raise InvalidRequestError(f"The prompt needs a value for {', '.join(missing)}.")
    if unknown := [name for name in arguments if name not in variables]:
        raise InvalidRequestError(
            f"The prompt has no variable {', '.join(unknown)}; "
            f"it has {', '.join(variables) or 'none'}."
        )
    return filled(text, arguments, like=text)
