"""HTTP routes of items, their history and their namespaces."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Response

from app.auth.access import Access
from app.auth.dependencies import AccessDep
from app.auth.errors import ForbiddenError, UnauthenticatedError
from app.dependencies import ResourcesDep
from app.embedding_model import EmbeddingFailedError
from app.errors import InvalidRequestError
from app.problems import problem_responses
from app.store import encoding
from app.store.errors import (
    ItemNotFoundError,
    PreconditionFailedError,
    TooManyConflictsError,
    VersionHasNoValueError,
    VersionNotFoundError,
)
from app.store.preconditions import Precondition, etag
from app.store.schemas import (
    DeleteItem,
    Item,
    ItemVersions,
    ListNamespaces,
    NamespaceList,
    PatchItem,
    PutItem,
    ReadItem,
    ReadVersions,
    RestoreItem,
)
from app.store.service import ItemService

ALWAYS = (UnauthenticatedError, ForbiddenError, InvalidRequestError)
"""What every route of the store may answer with."""

CHANGES = (*ALWAYS, PreconditionFailedError, TooManyConflictsError, EmbeddingFailedError)

ETAG = {"ETag": {"schema": {"type": "string"}, "description": "The item's version."}}

router = APIRouter(prefix="/store", tags=["store"])


async def get_service(resources: ResourcesDep) -> ItemService:
    return ItemService.build(resources)


async def get_precondition(
    if_match: Annotated[str | None, Header(description="Go ahead only at this ETag.")] = None,
    if_none_match: Annotated[
        str | None, Header(description="`*`: go ahead only if there is no item yet.")
    ] = None,
) -> Precondition:
    return Precondition.parse(if_match, if_none_match)


ServiceDep = Annotated[ItemService, Depends(get_service)]
PreconditionDep = Annotated[Precondition, Depends(get_precondition)]


def json_response(members: Any, headers: dict[str, str] | None = None) -> Response:
    """Return JSON that `encoding` prepared."""
    return Response(encoding.encode(members), 200, headers, media_type="application/json")


def item_response(row: Any, access: Access) -> Response:
    """Return one item with its ETag."""
    return json_response(encoding.item(row, access), {"ETag": etag(row["version"])})


def not_modified(query: ReadItem, precondition: Precondition, version: int | None) -> Response:
    """Return 304 for the reader who has this version; raise for one who demands another."""
    if version is None or not Precondition(if_match=precondition.if_match).holds(version):
        raise PreconditionFailedError(query.key, version)
    return Response(status_code=304, headers={"ETag": etag(version)})


@router.put(
    "/items",
    operation_id="put_item",
    summary="Write an item's whole next state",
    status_code=204,
    responses={204: {"description": "Written", "headers": ETAG}, **problem_responses(*CHANGES)},
)
async def put_item(
    body: PutItem, access: AccessDep, service: ServiceDep, precondition: PreconditionDep
) -> Response:
    tag = await service.put(access, body, precondition)
    return Response(status_code=204, headers={"ETag": tag})


@router.get(
    "/items",
    operation_id="get_item",
    summary="Read an item",
    description="A miss is `200` with `null`, as the LangGraph SDKs expect.",
    response_model=Item | None,
    responses={
        200: {"headers": ETAG},
        304: {"description": "The item is still at the ETag given in If-None-Match"},
        **problem_responses(*ALWAYS),
    },
)
async def get_item(
    query: Annotated[ReadItem, Query()],
    access: AccessDep,
    service: ServiceDep,
    precondition: PreconditionDep,
) -> Response:
    row = await service.get(access, query)
    version = row["version"] if row else None
    if not precondition.holds(version):
        return not_modified(query, precondition, version)
    return item_response(row, access) if row else json_response(None)


@router.patch(
    "/items",
    operation_id="patch_item",
    summary="Merge into an item's value (RFC 7386)",
    response_model=Item,
    responses={
        200: {"headers": ETAG},
        **problem_responses(*CHANGES, ItemNotFoundError),
    },
)
async def patch_item(
    body: PatchItem, access: AccessDep, service: ServiceDep, precondition: PreconditionDep
) -> Response:
    return item_response(await service.patch(access, body, precondition), access)


@router.delete(
    "/items",
    operation_id="delete_item",
    summary="End an item, whether or not it exists",
    status_code=204,
    responses=problem_responses(*CHANGES),
)
async def delete_item(
    body: DeleteItem, access: AccessDep, service: ServiceDep, precondition: PreconditionDep
) -> Response:
    await service.delete(access, body, precondition)
    return Response(status_code=204)


@router.post(
    "/namespaces",
    operation_id="list_namespaces",
    summary="List the namespaces that hold items",
    response_model=NamespaceList,
    responses=problem_responses(*ALWAYS),
)
async def list_namespaces(body: ListNamespaces, access: AccessDep, service: ServiceDep) -> Response:
    return json_response(encoding.namespaces(*await service.list_namespaces(access, body)))


@router.get(
    "/items/versions",
    operation_id="list_item_versions",
    summary="Read an item's history, newest first",
    response_model=ItemVersions,
    responses=problem_responses(*ALWAYS),
)
async def list_item_versions(
    query: Annotated[ReadVersions, Query()], access: AccessDep, service: ServiceDep
) -> Response:
    return json_response(encoding.versions(await service.versions(access, query)))


@router.post(
    "/items/restore",
    operation_id="restore_item",
    summary="Make an earlier version present again, as a new version",
    response_model=Item,
    responses={
        200: {"headers": ETAG},
        **problem_responses(*CHANGES, VersionNotFoundError, VersionHasNoValueError),
    },
)
async def restore_item(
    body: RestoreItem, access: AccessDep, service: ServiceDep, precondition: PreconditionDep
) -> Response:
    return item_response(await service.restore(access, body, precondition), access)
