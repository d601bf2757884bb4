"""Prompts of the registry, as they are in production, with their variables filled in."""

import re
from collections.abc import Mapping

from mcp import types

from app.auth.access import Verb
from app.errors import InvalidRequestError, NotFoundError
from app.mcp.caller import Caller
from app.prompts.errors import PromptNotFoundError
from app.prompts.placeholders import list_variables, render_prompt
from app.prompts.schemas import PROMPT_NAME, ListPrompts
from app.prompts.service import PromptService
from app.prompts.types import PRODUCTION

PAGE = 50


async def list_page(caller: Caller, cursor: str | None) -> types.ListPromptsResult:
    """Return a page of the prompts that are in production, by name."""
    if not caller.access.may(Verb.READ):
        return types.ListPromptsResult(prompts=[])
    service = PromptService.build(caller.resources)
    after = ListPrompts(cursor=cursor).cursor
    page = await service.list_prompts(caller.access, after=after, limit=PAGE)
    names = [prompt.name for prompt in page.items if PRODUCTION in prompt.labels]
    found = [await _described(caller, name) for name in names]
    return types.ListPromptsResult(
        prompts=[prompt for prompt in found if prompt is not None],
        next_cursor=page.next_cursor(lambda last: last.name),
    )


async def get(
    caller: Caller, name: str, arguments: Mapping[str, str] | None
) -> types.GetPromptResult:
    """Return a prompt's text; raises the errors of the registry, and InvalidRequestError."""
    if not re.fullmatch(PROMPT_NAME, name):
        raise PromptNotFoundError(name)
    service = PromptService.build(caller.resources)
    prompt = await service.get(caller.access, name, label=PRODUCTION)
    text = _filled(prompt.text, arguments or {})
    message = types.PromptMessage(role="user", content=types.TextContent(text=text))
    return types.GetPromptResult(description=prompt.when_to_update, messages=[message])


async def _described(caller: Caller, name: str) -> types.Prompt | None:
    """Return a prompt as clients list it; None if it went away meanwhile."""
    try:
        service = PromptService.build(caller.resources)
        prompt = await service.get(caller.access, name, label=PRODUCTION)
    except NotFoundError:
        return None
    return types.Prompt(
        name=name,
        arguments=[
            types.PromptArgument(name=variable, required=True)
            for variable in list_variables(prompt.text)
        ],
    )


def _filled(text: str, arguments: Mapping[str, str]) -> str:
    variables = list_variables(text)
    if missing := [name for name in variables if name not in arguments]:
        raise InvalidRequestError(f"The prompt needs a value for {', '.join(missing)}.")
    if unknown := [name for name in arguments if name not in variables]:
        raise InvalidRequestError(
            f"The prompt has no variable {', '.join(unknown)}; "
            f"it has {', '.join(variables) or 'none'}."
        )
    return render_prompt(text, arguments, like=text)
