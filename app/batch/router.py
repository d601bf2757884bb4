"""The HTTP route of batches."""

from fastapi import APIRouter, Request, Response

from app.auth.dependencies import GuardedRoute, StoreAccess, resources_of
from app.batch.schemas import Batch, BatchResults
from app.batch.service import BatchService
from app.http.messages import json_response
from app.http.problems import problem_responses
from app.store.router import CHANGES

router = APIRouter(prefix="/store", tags=["batch"], route_class=GuardedRoute)


@router.post(
    "/batch",
    operation_id="run_batch",
    summary="Execute several operations; reads see the state before the writes",
    description="Executes up to 1,000 operations. Reads see the state before the batch, writes "
    "are one transaction. `results` has one object for each operation: its `op`, and "
    "`item`, `found`, `listed` or `problem`.",
    response_model=BatchResults,
    responses=problem_responses(*CHANGES),
)
async def run_batch(request: Request, body: Batch, access: StoreAccess) -> Response:
    service = BatchService.build(resources_of(request))
    return json_response({"results": await service.run(access, body)})
