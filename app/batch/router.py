"""The HTTP route of batches."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from app.auth.dependencies import AccessDep
from app.batch.schemas import Batch, BatchResults
from app.batch.service import BatchService
from app.dependencies import ResourcesDep
from app.problems import problem_responses
from app.store.router import CHANGES, json_response

router = APIRouter(prefix="/store", tags=["batch"])


async def get_service(resources: ResourcesDep) -> BatchService:
    """Return the batch service of this process."""
    return BatchService.build(resources)


@router.post(
    "/batch",
    operation_id="run_batch",
    summary="Carry out several operations; reads see the state before the writes",
    response_model=BatchResults,
    responses=problem_responses(*CHANGES),
)
async def run_batch(
    body: Batch, access: AccessDep, service: Annotated[BatchService, Depends(get_service)]
) -> Response:
    return json_response({"results": await service.run(access, body)})
