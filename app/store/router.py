"""HTTP routes of items, their history and their namespaces."""

from typing import TypeVar

from fastapi import APIRouter, Request, Response

from app.auth.access import Access, Verb
from app.auth.dependencies import (
    GUARDED_ERRORS,
    DeleteAccess,
    GuardedRoute,
    ReadAccess,
    WriteAccess,
    resources_of,
)
from app.db.database import TooManyConflictsError
from app.errors import InvalidRequestError
from app.http.headers import (
    PRECONDITION_PARAMETERS,
    Precondition,
    PreconditionFailedError,
    etag,
    not_modified,
)
from app.http.messages import json_response, query_parameters, read_query
from app.http.problems import problem_responses
from app.indexing.passages import EmbeddingFailedError
from app.json_values import JsonObject
from app.store import types
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
from app.store.types import ItemNotFoundError, VersionHasNoValueError, VersionNotFoundError
from app.store.writer import ItemWriter

CHANGES = (*GUARDED_ERRORS, PreconditionFailedError, TooManyConflictsError, EmbeddingFailedError)

ETAG = {"ETag": {"schema": {"type": "string"}, "description": "The item's version."}}

UNREAD: JsonObject = {
    "description": "Changed; the key has no `read` here, so there is no body",
    "headers": ETAG,
}

router = APIRouter(prefix="/store", tags=["store"], route_class=GuardedRoute)


def service_of(request: Request) -> ItemService:
    """Return the process's service that reads items."""
    return ItemService.build(resources_of(request))


def writer_of(request: Request) -> ItemWriter:
    """Return the process's writer of items."""
    return ItemWriter.build(resources_of(request))


def item_response(item: types.Item, access: Access) -> Response:
    """Return one item with its ETag; if the caller may not read it, the ETag alone."""
    headers = {"ETag": etag(item.version)}
    if not access.allows(access.relative(item.address.namespace), Verb.READ):
        return Response(status_code=204, headers=headers)
    return json_response(Item.members_of(item, access), headers)


AddressQuery = TypeVar("AddressQuery", ReadItem, ReadVersions)


def _read_address(model: type[AddressQuery], request: Request, access: Access) -> AddressQuery:
    """Return the query string; a namespace without labels holds items only below a key's root."""
    query = read_query(model, request)
    if not access.root and not query.labels:
        raise InvalidRequestError(
            "namespace: The namespace is empty; give at least one label.", field="namespace"
        )
    return query


def _conditional_response(
    item: types.Item | None, key: str, precondition: Precondition, access: Access
) -> Response:
    """Return an item or null, or 304 for the version that the caller has."""
    version = item.version if item else None
    if version is not None and precondition.is_current(version):
        return not_modified(version)
    if not precondition.holds(version):
        raise PreconditionFailedError(f"the item {key!r}", version)
    return item_response(item, access) if item else json_response(None)


@router.put(
    "/items",
    operation_id="put_item",
    openapi_extra={"parameters": PRECONDITION_PARAMETERS},
    summary="Write an item's whole next state",
    description="Writes the whole next state of an item: its value and its details. The answer's "
    "ETag is the new version. With If-Match or If-None-Match, the item is written only if it is "
    "in the expected state.",
    status_code=204,
    responses={204: {"description": "Written", "headers": ETAG}, **problem_responses(*CHANGES)},
)
async def put_item(request: Request, body: PutItem, access: WriteAccess) -> Response:
    put = body.command(access, Precondition.of(request.headers))
    version = await writer_of(request).put(access, put)
    return Response(status_code=204, headers={"ETag": etag(version)})


@router.get(
    "/items",
    operation_id="get_item",
    openapi_extra={"parameters": [*query_parameters(ReadItem), *PRECONDITION_PARAMETERS]},
    summary="Read an item",
    description="A miss is `200` with `null`, as the LangGraph SDKs expect.",
    response_model=Item | None,
    responses={
        200: {"headers": ETAG},
        304: {"description": "The item is still at the ETag given in If-None-Match"},
        **problem_responses(*GUARDED_ERRORS, PreconditionFailedError),
    },
)
async def get_item(request: Request, access: ReadAccess) -> Response:
    query = _read_address(ReadItem, request, access)
    precondition = Precondition.of(request.headers)
    item = await service_of(request).get(
        access,
        query.address(access),
        as_of=query.as_of,
        with_expired=not query.omit_expired,
        refresh_ttl=query.refresh_ttl,
    )
    return _conditional_response(item, query.key, precondition, access)


@router.patch(
    "/items",
    operation_id="patch_item",
    openapi_extra={"parameters": PRECONDITION_PARAMETERS},
    summary="Merge into an item's value (RFC 7386)",
    description="Applies a JSON merge patch (RFC 7386) to the value: members that are sent replace "
    "or join the ones there, null removes one. Details that are absent stay.",
    response_model=Item,
    responses={
        200: {"headers": ETAG},
        204: UNREAD,
        **problem_responses(*CHANGES, ItemNotFoundError),
    },
)
async def patch_item(request: Request, body: PatchItem, access: WriteAccess) -> Response:
    patch = body.command(access, Precondition.of(request.headers))
    return item_response(await writer_of(request).patch(access, patch), access)


@router.delete(
    "/items",
    operation_id="delete_item",
    openapi_extra={"parameters": PRECONDITION_PARAMETERS},
    summary="End an item, whether or not it exists",
    description="Ends an item. Its history stays readable, and an earlier version can be restored. "
    "Deleting an item that does not exist succeeds, too.",
    status_code=204,
    responses={204: {"description": "Ended"}, **problem_responses(*CHANGES)},
)
async def delete_item(request: Request, body: DeleteItem, access: DeleteAccess) -> Response:
    await writer_of(request).delete(access, body.command(access, Precondition.of(request.headers)))
    return Response(status_code=204)


@router.post(
    "/namespaces",
    operation_id="list_namespaces",
    summary="List the namespaces that hold items",
    description="Lists the namespaces that hold items, in ascending order, under a prefix or with "
    "a suffix, and on request how many items each holds.",
    response_model_exclude_unset=True,
    responses=problem_responses(*GUARDED_ERRORS),
)
async def list_namespaces(
    request: Request, body: ListNamespaces, access: ReadAccess
) -> NamespaceList:
    return NamespaceList.of(await service_of(request).list_namespaces(access, body.query()))


@router.get(
    "/items/versions",
    operation_id="list_item_versions",
    openapi_extra={"parameters": query_parameters(ReadVersions)},
    summary="Read an item's history, newest first",
    description="Lists every state that an item had, newest first, with its author and time.",
    response_model=ItemVersions,
    responses=problem_responses(*GUARDED_ERRORS),
)
async def list_item_versions(request: Request, access: ReadAccess) -> Response:
    query = _read_address(ReadVersions, request, access)
    page = await service_of(request).versions(
        access, query.address(access), before=query.before, limit=query.limit
    )
    return json_response(ItemVersions.members_of(page))


@router.post(
    "/items/restore",
    operation_id="restore_item",
    openapi_extra={"parameters": PRECONDITION_PARAMETERS},
    summary="Make an earlier version present again, as a new version",
    description="Writes an earlier version's value and details as the item's next state.",
    response_model=Item,
    responses={
        200: {"headers": ETAG},
        204: UNREAD,
        **problem_responses(*CHANGES, VersionNotFoundError, VersionHasNoValueError),
    },
)
async def restore_item(request: Request, body: RestoreItem, access: WriteAccess) -> Response:
    address = body.address(access, Verb.WRITE)
    item = await writer_of(request).restore(
        access, address, body.version, Precondition.of(request.headers)
    )
    return item_response(item, access)
