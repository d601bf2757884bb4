"""Errors of managers."""

from app.errors import NotFoundError


class ManagerNotFoundError(NotFoundError):
    """There is no such manager under the key's root."""

    code = "manager_not_found"
    title = "Manager not found"

    def __init__(self, name: str) -> None:
        super().__init__(
            f'There is no manager "{name}". GET /v1/managers lists them, '
            "PUT /v1/managers/{name} makes one."
        )
