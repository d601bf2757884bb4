"""Division of requests that a model refuses: the parts are asked about in order."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, TypeVar

from app.conversations.dialogue import RefusalError
from app.conversations.messages import Turn
from app.conversations.prompt_text import measure_turn, render_text
from app.providers.errors import BadRequestError, RequestTooLongError

T = TypeVar("T")

Refusal: TypeAlias = BadRequestError | RefusalError
"""The error for input that is refused; parts of it may pass."""

MAX_REFUSALS = 100
"""Maximum refusals in one attempt at a job."""

_LEAST_CHARACTERS = 500
"""Input is not made shorter: a model that refuses it reads too little to be of use."""

_MARK_CHARACTERS = 50
_LEAST_SHOWN = 100


async def ask_in_parts(
    parts: Sequence[T],
    ask: Callable[[T], Awaitable[None]],
    divide: Callable[[Sequence[T], Refusal], Sequence[T]],
    *,
    most: int | None = None,
) -> None:
    """Ask about parts in order, `most` of them; if one is refused, about smaller ones.

    `divide` is given the parts that are left, the first of which was refused, and returns those
    that replace them. If there are none, it raises the error.
    """
    left, refusals, asked = list(parts), 0, 0
    while left and (most is None or asked < most):
        try:
            await ask(left[0])
        except (BadRequestError, RefusalError) as error:
            refusals += 1
            if refusals > MAX_REFUSALS:
                raise
            left = list(divide(left, error))
        else:
            asked += 1
            del left[0]


def find_room(error: Refusal, characters: int) -> int:
    """Return how many characters to send in place of those refused; 0: nothing shorter helps."""
    if characters <= _LEAST_CHARACTERS:
        return 0
    excess = error.excess if isinstance(error, RequestTooLongError) else None
    room = characters // 2 if excess is None else characters - excess
    return max(room, _LEAST_CHARACTERS)


def group_turns(turns: Sequence[Turn], characters: int) -> list[list[Turn]]:
    """Return consecutive messages in groups of at most `characters`; longer ones are alone."""
    groups: list[list[Turn]] = [[]]
    room = characters
    for turn in turns:
        size = measure_turn(turn)
        if size > room and groups[-1]:
            groups.append([])
            room = characters
        groups[-1].append(turn)
        room -= size
    return groups


def cut_turn(turn: Turn, characters: int) -> Turn:
    """Return a message of at most `characters`: the middle of its text is left out."""
    size = measure_turn(turn)
    if size <= characters:
        return turn
    around = size - len(render_text(turn)) + _MARK_CHARACTERS
    return turn.cut(max(characters - around, _LEAST_SHOWN))
