"""Probes: whether the process is alive, and whether it can do its work."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from app.db import EVERYTHING, DatabaseUnavailableError
from app.dependencies import resources_of
from app.problems import problem_responses

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The answer of a probe that went well."""

    ok: bool = Field(True, description="Always true; a failing probe is a problem.")


@router.get("/healthz", operation_id="check_health", summary="Is the process alive?")
async def check_health() -> Health:
    return Health()


@router.get("/v1/ok", operation_id="check_ok", summary="What the LangGraph SDK's tests probe")
async def check_ok() -> Health:
    return Health()


@router.get(
    "/readyz",
    operation_id="check_readiness",
    summary="Does the database answer?",
    responses=problem_responses(DatabaseUnavailableError),
)
async def check_readiness(request: Request) -> Health:
    async with resources_of(request).database.connection(EVERYTHING) as connection:
        await connection.fetchval("SELECT 1")
    return Health()
