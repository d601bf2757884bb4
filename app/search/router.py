"""The HTTP route of search."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.auth.dependencies import GUARDED_ERRORS, GuardedRoute, ReadAccess, resources_of
from app.http.messages import json_response
from app.http.problems import problem_responses
from app.indexing.passages import EmbeddingFailedError
from app.search.schemas import SearchItems, SearchResults, encode_page
from app.search.service import SearchService

router = APIRouter(prefix="/store", tags=["search"], route_class=GuardedRoute)


@router.post(
    "/items/search",
    operation_id="search_items",
    summary="Find items by meaning, by words and by filter",
    description="Finds items at and below a namespace by meaning and words, or, without a query, "
    "lists them. Conditions on the value narrow the search; the answer has scores, and "
    "a cursor if there is another page.",
    response_model=SearchResults,
    responses=problem_responses(*GUARDED_ERRORS, EmbeddingFailedError),
)
async def search_items(
    request: Request,
    body: SearchItems,
    access: ReadAccess,
    omit_expired: Annotated[bool, Query(description="false also shows expired items.")] = True,
) -> Response:
    service = SearchService.build(resources_of(request))
    page = await service.search(access, body.to_query(with_expired=not omit_expired))
    return json_response(encode_page(page, access))
