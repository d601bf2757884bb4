"""What routers ask for."""

from typing import Annotated

from fastapi import Depends, Request

from app.resources import Resources


def get_resources(request: Request) -> Resources:
    """Return what this process opened at start."""
    resources: Resources = request.state.resources
    return resources


ResourcesDep = Annotated[Resources, Depends(get_resources)]
