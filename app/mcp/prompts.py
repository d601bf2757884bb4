"""Prompts in production as MCP prompts, rendered with the client's arguments."""

import re
from collections.abc import Mapping
from typing import Self

from mcp import types

from app.auth.access import Verb
from app.errors import InvalidRequestError, NotFoundError
from app.prompts.schemas import PROMPT_NAME, ListPrompts
from app.prompts.service import PromptService
from app.prompts.texts import list_variables, render_prompt
from app.prompts.types import PRODUCTION, PromptNotFoundError
from app.resources import Resources
from app.tools.tool import Caller

PAGE = 50


class ProductionPrompts:
    """Lists and reads prompts for MCP clients."""

    def __init__(self, prompts: PromptService) -> None:
        self._service = prompts

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make it from a process's resources."""
        return cls(PromptService.build(resources))

    async def list_page(self, caller: Caller, cursor: str | None) -> types.ListPromptsResult:
        """Return a page of the prompts that are in production, by name."""
        if not caller.access.may(Verb.READ):
            return types.ListPromptsResult(prompts=[])
        after = ListPrompts(cursor=cursor).cursor
        page = await self._service.list_prompts(caller.access, after=after, limit=PAGE)
        names = [prompt.name for prompt in page.items if PRODUCTION in prompt.labels]
        listed = [await self._describe(caller, name) for name in names]
        return types.ListPromptsResult(
            prompts=[prompt for prompt in listed if prompt is not None],
            next_cursor=page.next_cursor(lambda last: last.name),
        )

    async def get(
        self, caller: Caller, name: str, arguments: Mapping[str, str] | None
    ) -> types.GetPromptResult:
        """Return a prompt's text; raises PromptNotFoundError, InvalidRequestError."""
        if not re.fullmatch(PROMPT_NAME, name):
            raise PromptNotFoundError(name)
        prompt = await self._service.get(caller.access, name, label=PRODUCTION)
        text = _render(prompt.text, arguments or {})
        message = types.PromptMessage(role="user", content=types.TextContent(text=text))
        return types.GetPromptResult(description=prompt.when_to_update, messages=[message])

    async def _describe(self, caller: Caller, name: str) -> types.Prompt | None:
        """Return a prompt's entry in the list; None if it has since been deleted."""
        try:
            prompt = await self._service.get(caller.access, name, label=PRODUCTION)
        except NotFoundError:
            return None
        return types.Prompt(
            name=name,
            arguments=[
                types.PromptArgument(name=variable, required=True)
                for variable in list_variables(prompt.text)
            ],
        )


def _render(text: str, arguments: Mapping[str, str]) -> str:
    variables = list_variables(text)
    if missing := [name for name in variables if name not in arguments]:
        raise InvalidRequestError(f"The prompt needs a value for {', '.join(missing)}.")
    if unknown := [name for name in arguments if name not in variables]:
        raise InvalidRequestError(
            f"The prompt has no variable {', '.join(unknown)}; "
            f"it has {', '.join(variables) or 'none'}."
        )
    return render_prompt(text, arguments, like=text)
