"""From a request to the resources of this process.

Everything a route depends on is `async`, or FastAPI would take a thread for each call, and
shallow: each further dependency costs every request some twenty microseconds.
"""

from fastapi import Request

from app.resources import Resources


def resources_of(request: Request) -> Resources:
    """Return the resources of the process that serves a request."""
    resources: Resources = request.state.resources
    return resources
