"""What a job that searches with a model's queries is going to do."""

from collections.abc import Sequence
from typing import Any

from app.auth.access import Access, Verb
from app.conversations.messages import to_turns
from app.jobs.job import NewJob
from app.managers.schemas import ConversationMessage
from app.managers.service import ManagerService
from app.providers.llm.pool import LLMPool
from app.resources import Resources
from app.store.filters import parse_filter
from app.tools.binding import located
from app.tools.searching.schemas import DEFAULT_LIMIT, SearchMemories, SearchPlan

_WAYS = ({Verb.JOBS, Verb.READ},)


async def searching_job(resources: Resources, access: Access, body: SearchMemories) -> NewJob:
    """Return the job that a request asks for; raises as `located` and `planned` do."""
    config, namespace = await located(ManagerService.build(resources), access, body, _WAYS)
    return planned(
        resources.llms,
        access,
        namespace,
        body.messages,
        manager=body.manager,
        query_model=body.query_model or (None if config is None else config.query_model),
        instructions=body.instructions,
        limit=body.limit or DEFAULT_LIMIT,
        filter=body.filter,
    )


def planned(
    llms: LLMPool,
    access: Access,
    namespace: list[str],
    messages: Sequence[ConversationMessage],
    *,
    manager: str | None,
    query_model: str | None,
    **members: Any,
) -> NewJob:
    """Return the job that searches for what a conversation is about.

    Raises ForbiddenError, InvalidMessageError, InvalidFilterError and LLMNotConfiguredError.
    """
    access.locate(namespace, Verb.READ)
    stored = access.locate(namespace, Verb.JOBS)
    to_turns(messages)  # raises where the job could not read them
    if members.get("filter"):
        parse_filter(members["filter"])
    plan = SearchPlan(
        namespace=namespace,
        messages=[message.members() for message in messages],
        query_model=llms.require(query_model),
        **members,
    )
    return plan.new_job(stored, manager=manager)
