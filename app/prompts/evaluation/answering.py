"""What a model answers to a case."""

from dataclasses import dataclass

from app.conversations.types import Ask
from app.json_values import replace_unstorable
from app.prompts.evaluation.cases import Case
from app.providers.errors import BadRequestError
from app.providers.llm.base import Completion, Request

_MAX_CHARACTERS = 200_000


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; `problem` says why it is none, or not a whole one."""

    text: str
    problem: str | None = None


async def answer(ask: Ask, system: str, case: Case) -> Answer:
    """Return the answer; raises what `ask` raises, but for a request that is refused as such."""
    request = Request(system, case.messages)
    try:
        completion = await ask(request, "answer")
    except BadRequestError as error:
        return Answer("", f"The provider refused the request: {_storable(str(error))}")
    return Answer(_storable(completion.text).strip()[:_MAX_CHARACTERS], _problem(completion))


def _problem(completion: Completion) -> str | None:
    if completion.finish_reason == "refusal":
        return "The model refused to answer."
    if completion.finish_reason == "length":
        return "The answer was cut off; it was too long."
    return None if completion.text.strip() else "The model answered nothing."


def _storable(text: str) -> str:
    return replace_unstorable(text)
