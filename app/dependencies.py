"""What routers ask for; all of it `async`, or FastAPI would take a thread for each call."""

from typing import Annotated

from fastapi import Depends, Request

from app.resources import Resources


async def get_resources(request: Request) -> Resources:
    """Return what this process opened at start."""
    resources: Resources = request.state.resources
    return resources


ResourcesDep = Annotated[Resources, Depends(get_resources)]
