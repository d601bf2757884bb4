"""Errors of jobs."""

from app.errors import ConflictError, NotFoundError
from app.jobs.record import State


class JobNotFoundError(NotFoundError):
    """No such job, or not one that the caller may see."""

    code = "job_not_found"
    title = "Job not found"

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f'There is no job "{job_id}" here; GET /v1/jobs lists those there are. '
            "Jobs that ended long ago are removed."
        )


class JobStateError(ConflictError):
    """The job's state does not allow the operation."""

    code = "job_state"
    title = "Not in this state"

    def __init__(self, job_id: str, state: State, hint: str) -> None:
        super().__init__(f'The job "{job_id}" is {state}; {hint}.')
