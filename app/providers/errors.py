"""What can go wrong with a model provider, and whether trying again helps."""

from typing import ClassVar

from app.errors import OperatorError


class ProviderError(OperatorError):
    """A provider did not answer as it should; `retryable` says whether waiting may help.

    `retry_after` is how many seconds the provider asked to wait, if it did.
    """

    retryable: ClassVar[bool] = False
    code: ClassVar[str] = "provider_error"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimitedError(ProviderError):
    """The provider asks for fewer requests."""

    code = "provider_rate_limited"
    retryable = True


class UnavailableError(ProviderError):
    """The provider is away, slow or broken, or answers with something else than it should."""

    code = "provider_unavailable"
    retryable = True


class BadRequestError(ProviderError):
    """The provider refuses this input; another input may pass."""

    code = "provider_refused"


class MisconfiguredError(ProviderError):
    """The provider refuses every input until the key, the model or the address is changed."""

    code = "provider_misconfigured"
