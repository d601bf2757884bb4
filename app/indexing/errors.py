"""Errors of indexing."""

from app.errors import AppError, InvalidRequestError, OperatorError
from app.providers.errors import ProviderError


class InvalidIndexPathError(InvalidRequestError):
    """A path in `index` that cannot be read."""

    code = "invalid_index_path"
    title = "Invalid index path"


class EmbeddingFailedError(AppError):
    """The embedding provider failed; nothing was stored."""

    status = 503
    code = "embedding_failed"
    title = "Embedding failed"

    def __init__(self, model: str, error: ProviderError) -> None:
        super().__init__(
            f"{model} could not embed the text: {error}. Nothing was stored. "
            + ("Try again." if error.retryable else "Check the server's embedding settings.")
        )
        if error.retryable:
            self.headers["Retry-After"] = "1"


class EmbeddingModelMismatchError(OperatorError):
    """The database holds passages of another model than the configured one."""

    def __init__(self, stored: str, configured: str) -> None:
        super().__init__(
            f"The database is indexed for {stored}, but this server is configured for "
            f"{configured}; vectors of two models cannot be compared. "
            "Run `memoryd reindex` with this configuration, while servers with the old one go on "
            f"serving, or set MEMORYD_EMBEDDING={stored.partition(' ')[0]}."
        )
