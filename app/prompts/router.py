"""HTTP routes of prompts."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from app.auth.access import Access, Verb
from app.auth.dependencies import (
    GUARDED_ERRORS,
    AdminAccess,
    GuardedRoute,
    ReadAccess,
    resources_of,
)
from app.http.headers import (
    PRECONDITION_PARAMETERS,
    Precondition,
    PreconditionFailedError,
    etag,
    not_modified,
)
from app.http.messages import json_response, query_parameters, read_query
from app.http.problems import problem_responses
from app.prompts import types
from app.prompts.schemas import (
    DEFAULT_PAGE,
    DEFAULT_VERSIONS_PAGE,
    DiffPrompt,
    Label,
    ListPrompts,
    ListVersions,
    PromotePrompt,
    Prompt,
    PromptDiff,
    PromptList,
    PromptName,
    PromptVersionList,
    PutPrompt,
    ReadPrompt,
    RollbackPrompt,
)
from app.prompts.service import PromptService
from app.prompts.types import (
    PRODUCTION,
    NothingToRollBackError,
    PromptLabelNotFoundError,
    PromptNotFoundError,
    PromptVersionNotFoundError,
    TooManyLabelsError,
)

READS = (*GUARDED_ERRORS, PromptNotFoundError, PreconditionFailedError)
CHANGES = (*GUARDED_ERRORS, PreconditionFailedError)
MISSING = (PromptNotFoundError, PromptLabelNotFoundError, PromptVersionNotFoundError)

ETAG = {"ETag": {"schema": {"type": "string"}, "description": "The prompt's revision."}}
UNREAD: dict[str, Any] = {
    "description": "Changed; the key has no `read`, so there is no body",
    "headers": ETAG,
}
UNCHANGED: dict[int | str, dict[str, Any]] = {
    200: {"headers": ETAG},
    304: {"description": "The prompt is still at the ETag given in If-None-Match"},
}

Name = Annotated[PromptName, Path(description="Name of the prompt.")]

router = APIRouter(prefix="/prompts", tags=["prompts"], route_class=GuardedRoute)


def service_of(request: Request) -> PromptService:
    """Return the prompts of the process that serves a request."""
    return PromptService.build(resources_of(request))


def _check_read(request: Request, response: Response, name: str, revision: int) -> Response | None:
    """Set the ETag of an answer; return a 304 answer if the reader already has this revision.

    Raises PreconditionFailedError.
    """
    precondition = Precondition.of(request.headers)
    if precondition.is_current(revision):
        return not_modified(revision)
    if not precondition.holds(revision):
        raise PreconditionFailedError(f'the prompt "{name}"', revision, counter="revision")
    response.headers["ETag"] = etag(revision)
    return None


def _answer_change(access: Access, response: Response, prompt: types.Prompt) -> Prompt | Response:
    """Answer a change, with the prompt if the caller may read it."""
    tag = etag(prompt.revision)
    if not access.may(Verb.READ):
        return Response(status_code=204, headers={"ETag": tag})
    response.headers["ETag"] = tag
    return Prompt.of(prompt)


@router.get(
    "/{name}",
    operation_id="get_prompt",
    openapi_extra={"parameters": [*query_parameters(ReadPrompt), *PRECONDITION_PARAMETERS]},
    summary="Read a prompt: the newest version, or the one of a label or number",
    description="Reads a prompt with the text of one version: the one that a label points to, the "
    "one of a number, or the newest.",
    response_model=Prompt,
    responses={**UNCHANGED, **problem_responses(*READS, *MISSING)},
)
async def get_prompt(request: Request, name: Name, access: ReadAccess) -> Response:
    query = read_query(ReadPrompt, request)
    prompt = await service_of(request).get(access, name, label=query.label, version=query.version)
    # Without pydantic, because every start of an agent may read a prompt.
    response = json_response({field: getattr(prompt, field) for field in Prompt.model_fields})
    return _check_read(request, response, name, prompt.revision) or response


@router.put(
    "/{name}",
    operation_id="put_prompt",
    openapi_extra={"parameters": PRECONDITION_PARAMETERS},
    summary="Write a prompt's whole next state; a changed text becomes a new version",
    description="Stores a prompt's text as a new version, unless the newest version already has "
    "it, and moves the named labels. 201: the prompt is new.",
    response_model=Prompt,
    responses={
        200: {"description": "Replaced", "headers": ETAG},
        201: {"model": Prompt, "description": "Created", "headers": ETAG},
        204: UNREAD,
        **problem_responses(*CHANGES, TooManyLabelsError),
    },
)
async def put_prompt(
    request: Request, response: Response, name: Name, body: PutPrompt, access: AdminAccess
) -> Prompt | Response:
    prompt, is_new = await service_of(request).put(
        access, name, body.to_state(), Precondition.of(request.headers)
    )
    response.status_code = 201 if is_new else 200
    return _answer_change(access, response, prompt)


@router.get(
    "",
    operation_id="list_prompts",
    openapi_extra={"parameters": query_parameters(ListPrompts)},
    summary="List prompts by name, with the versions that their labels point to",
    description="Lists prompts by name, without their texts.",
    responses=problem_responses(*GUARDED_ERRORS),
)
async def list_prompts(request: Request, access: ReadAccess) -> PromptList:
    query = read_query(ListPrompts, request)
    page = await service_of(request).list_prompts(
        access, after=query.cursor, limit=query.limit or DEFAULT_PAGE
    )
    return PromptList.of(page)


@router.get(
    "/{name}/versions",
    operation_id="list_prompt_versions",
    openapi_extra={"parameters": [*query_parameters(ListVersions), *PRECONDITION_PARAMETERS]},
    summary="List a prompt's versions without their texts, newest first",
    description="Lists the versions of a prompt, newest first, without their texts.",
    response_model=PromptVersionList,
    responses={**UNCHANGED, **problem_responses(*READS)},
)
async def list_prompt_versions(
    request: Request, response: Response, name: Name, access: ReadAccess
) -> PromptVersionList | Response:
    query = read_query(ListVersions, request)
    page, revision = await service_of(request).list_versions(
        access, name, before=query.cursor, limit=query.limit or DEFAULT_VERSIONS_PAGE
    )
    return _check_read(request, response, name, revision) or PromptVersionList.of(page)


@router.get(
    "/{name}/diff",
    operation_id="diff_prompt",
    openapi_extra={"parameters": [*query_parameters(DiffPrompt), *PRECONDITION_PARAMETERS]},
    summary="Compare two versions of a prompt",
    description="Compares two versions of a prompt line by line, in unified form.",
    response_model=PromptDiff,
    responses={**UNCHANGED, **problem_responses(*READS, *MISSING)},
)
async def diff_prompt(
    request: Request, response: Response, name: Name, access: ReadAccess
) -> PromptDiff | Response:
    query = read_query(DiffPrompt, request)
    old, new = await service_of(request).get_pair(access, name, query.old, query.new)
    if unmodified := _check_read(request, response, name, new.revision):
        return unmodified
    return await asyncio.to_thread(PromptDiff.of, old, new)


@router.post(
    "/{name}/promote",
    operation_id="promote_prompt",
    openapi_extra={"parameters": PRECONDITION_PARAMETERS},
    summary="Point a label, such as production, to a version, such as the candidate",
    description="Moves a label (by default production) to a version, given by number or by another "
    "label.",
    response_model=Prompt,
    responses={
        200: {"headers": ETAG},
        204: UNREAD,
        **problem_responses(*CHANGES, *MISSING, TooManyLabelsError),
    },
)
async def promote_prompt(
    request: Request, response: Response, name: Name, body: PromotePrompt, access: AdminAccess
) -> Prompt | Response:
    prompt = await service_of(request).move_label(
        access,
        name,
        body.label or PRODUCTION,
        Precondition.of(request.headers),
        from_label=body.from_label,
        version=body.version,
    )
    return _answer_change(access, response, prompt)


@router.post(
    "/{name}/rollback",
    operation_id="rollback_prompt",
    openapi_extra={"parameters": PRECONDITION_PARAMETERS},
    summary="Point a label to its previous version",
    description="Moves a label back to the version that it pointed to before.",
    response_model=Prompt,
    responses={
        200: {"headers": ETAG},
        204: UNREAD,
        **problem_responses(
            *CHANGES, PromptNotFoundError, PromptLabelNotFoundError, NothingToRollBackError
        ),
    },
)
async def rollback_prompt(
    request: Request, response: Response, name: Name, body: RollbackPrompt, access: AdminAccess
) -> Prompt | Response:
    prompt = await service_of(request).roll_back(
        access, name, body.label or PRODUCTION, Precondition.of(request.headers)
    )
    return _answer_change(access, response, prompt)


@router.delete(
    "/{name}/labels/{label}",
    operation_id="delete_prompt_label",
    openapi_extra={"parameters": PRECONDITION_PARAMETERS},
    summary="Remove a label, whether or not it exists; the version it points to stays",
    description="Removes a label from a prompt. The version that it points to stays.",
    status_code=204,
    responses={204: {"description": "Gone"}, **problem_responses(*CHANGES)},
)
async def delete_prompt_label(
    request: Request,
    name: Name,
    label: Annotated[Label, Path(description="The label.")],
    access: AdminAccess,
) -> Response:
    await service_of(request).delete_label(access, name, label, Precondition.of(request.headers))
    return Response(status_code=204)


@router.delete(
    "/{name}",
    operation_id="delete_prompt",
    openapi_extra={"parameters": PRECONDITION_PARAMETERS},
    summary="Delete a prompt with all its versions, whether or not it exists",
    description="Removes a prompt with all of its versions and labels.",
    status_code=204,
    responses={204: {"description": "Gone"}, **problem_responses(*CHANGES)},
)
async def delete_prompt(request: Request, name: Name, access: AdminAccess) -> Response:
    await service_of(request).delete(access, name, Precondition.of(request.headers))
    return Response(status_code=204)
