"""HTTP routes of managers."""

from operator import attrgetter
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

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
)
from app.http.messages import json_response, query_parameters, read_query
from app.http.problems import problem_responses
from app.managers.schemas import (
    DEFAULT_PAGE,
    ListManagers,
    Manager,
    ManagerConfig,
    ManagerList,
    ManagerName,
    encode_manager,
)
from app.managers.service import ManagerNotFoundError, ManagerService

ETAG = {"ETag": {"schema": {"type": "string"}, "description": "The manager's version."}}

Name = Annotated[ManagerName, Path(description="Name of the manager.")]

router = APIRouter(prefix="/managers", tags=["managers"], route_class=GuardedRoute)


def service_of(request: Request) -> ManagerService:
    """Return the service of the process that serves a request."""
    return ManagerService.build(resources_of(request))


@router.put(
    "/{name}",
    operation_id="put_manager",
    openapi_extra={"parameters": PRECONDITION_PARAMETERS},
    summary="Create a manager, or replace its configuration",
    description="Stores a manager under a name, replacing any earlier configuration as a whole. "
    "201: the manager is new.",
    response_model=Manager,
    responses={
        200: {"description": "Replaced", "headers": ETAG},
        201: {"model": Manager, "description": "Created", "headers": ETAG},
        **problem_responses(*GUARDED_ERRORS, PreconditionFailedError),
    },
)
async def put_manager(
    request: Request, name: Name, body: ManagerConfig, access: AdminAccess
) -> Response:
    manager, is_new = await service_of(request).put(
        access, name, body, Precondition.of(request.headers)
    )
    headers = {"ETag": etag(manager.version)}
    return json_response(encode_manager(manager), headers, status=201 if is_new else 200)


@router.get(
    "/{name}",
    operation_id="get_manager",
    summary="Read a manager",
    description="Reads a manager's configuration as it was sent, with its version.",
    response_model=Manager,
    responses={200: {"headers": ETAG}, **problem_responses(*GUARDED_ERRORS, ManagerNotFoundError)},
)
async def get_manager(request: Request, name: Name, access: ReadAccess) -> Response:
    manager = await service_of(request).get(access, name)
    return json_response(encode_manager(manager), {"ETag": etag(manager.version)})


@router.get(
    "",
    operation_id="list_managers",
    openapi_extra={"parameters": query_parameters(ListManagers)},
    summary="List managers by name",
    description="Lists managers by name.",
    response_model=ManagerList,
    responses=problem_responses(*GUARDED_ERRORS),
)
async def list_managers(request: Request, access: ReadAccess) -> Response:
    query = read_query(ListManagers, request)
    page = await service_of(request).list(
        access, after=query.cursor or "", limit=query.limit or DEFAULT_PAGE
    )
    managers = [encode_manager(manager) for manager in page.items]
    next_cursor = page.next_cursor(attrgetter("name"))
    return json_response({"managers": managers, "next_cursor": next_cursor})


@router.delete(
    "/{name}",
    operation_id="delete_manager",
    openapi_extra={"parameters": PRECONDITION_PARAMETERS},
    summary="Delete a manager, whether or not it exists; its jobs go on",
    description="Removes a manager. Jobs that were submitted with it are not affected.",
    status_code=204,
    responses={
        204: {"description": "Gone"},
        **problem_responses(*GUARDED_ERRORS, PreconditionFailedError),
    },
)
async def delete_manager(request: Request, name: Name, access: AdminAccess) -> Response:
    await service_of(request).delete(access, name, Precondition.of(request.headers))
    return Response(status_code=204)
