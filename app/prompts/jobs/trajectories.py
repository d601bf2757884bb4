"""The conversations that prompts are improved by, from the request or from threads."""

from collections.abc import Sequence

from app.conversations.messages import to_turns
from app.conversations.prompt_text import render_text
from app.conversations.types import Turn
from app.db.database import Connection
from app.errors import InvalidRequestError
from app.prompts.jobs.plans import PlannedTrajectory
from app.prompts.optimizing.base import Feedback, Trajectory
from app.prompts.optimizing.showing import MAX_CHARACTERS
from app.threads import repository
from app.threads.errors import ThreadNotFoundError


async def read_trajectories(
    connection: Connection, root: str, planned: Sequence[PlannedTrajectory]
) -> list[Trajectory]:
    """Return trajectories with their messages.

    Raises, naming the trajectory, ThreadNotFoundError, InvalidMessageError, and
    InvalidRequestError where there is nothing in one, or too much in all.
    """
    read = [await _read(connection, root, one, index) for index, one in enumerate(planned)]
    characters = sum(_characters(trajectory) for trajectory in read)
    if characters > MAX_CHARACTERS:
        raise InvalidRequestError(
            f"The trajectories have {characters:,} characters; one job learns from at most "
            f"{MAX_CHARACTERS:,}. Send those that tell most, or several jobs.",
            field="trajectories",
        )
    return read


async def _read(
    connection: Connection, root: str, planned: PlannedTrajectory, index: int
) -> Trajectory:
    place = f"trajectories[{index}]"
    try:
        turns = await _turns(connection, root, planned)
    except (ThreadNotFoundError, InvalidRequestError) as error:
        raise error.within(place) from None
    if not any(turn.text.strip() for turn in turns):
        problem = "has no messages that say anything; send others, or leave it out"
        raise InvalidRequestError(f"{place} {problem}.", field=place)
    return Trajectory(turns, planned.as_feedback())


async def _turns(connection: Connection, root: str, planned: PlannedTrajectory) -> list[Turn]:
    if planned.messages is not None:
        return to_turns(planned.messages)
    ref = (root, planned.thread_id or "", planned.namespace or root)
    if await repository.find(connection, ref) is None:
        raise ThreadNotFoundError(ref[1])
    rows = await repository.find_messages(connection, ref, planned.first, planned.last + 1)
    return to_turns([repository.message_of(row) for row in rows])


def _characters(trajectory: Trajectory) -> int:
    shown = sum(len(render_text(turn)) for turn in trajectory.turns)
    return shown + _characters_of(trajectory.feedback)


def _characters_of(feedback: Feedback | None) -> int:
    if feedback is None:
        return 0
    more = 0 if feedback.more is None else len(str(feedback.more))
    return len(feedback.comment or "") + len(feedback.edited_answer or "") + more
