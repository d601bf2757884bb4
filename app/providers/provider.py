"""Providers: servers of models, and the model that a name such as `openai:MODEL` selects."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

ProviderKind: TypeAlias = Literal["openai", "anthropic"]
Api: TypeAlias = Literal["chat", "responses"]

DEFAULT_URLS: Mapping[ProviderKind, str] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
}


@dataclass(frozen=True, slots=True)
class Provider:
    """A server of models that speaks the API of OpenAI or of Anthropic, and its key.

    `api` matters for the kind `openai` alone. With `api_key_header` the key is in that header and
    not where the SDK has it. `address_setting` says where the address is configured; `missing` is a
    phrase that names what the provider lacks to be asked.
    """

    name: str = "openai"
    kind: ProviderKind = "openai"
    base_url: str | None = None
    api: Api = "chat"
    api_key: str | None = field(default=None, repr=False)
    api_key_header: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    address_setting: str = "OPENAI_BASE_URL"
    missing: str | None = None

    @property
    def url(self) -> str:
        """The address, which is that of the kind's inventor if none is given."""
        return self.base_url or DEFAULT_URLS[self.kind]

    @property
    def address(self) -> str:
        """The address without a password, in one form."""
        url = urlsplit(self.url)
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}".rstrip("/")

    @property
    def bearer(self) -> str:
        """The key for the SDK; a placeholder if there is none, which the SDKs do not allow."""
        return self.api_key if self.api_key and not self.api_key_header else "none"

    @property
    def own_headers(self) -> dict[str, str]:
        """The headers to send besides those of the SDK."""
        key = {self.api_key_header: self.api_key} if self.api_key_header and self.api_key else {}
        return {**self.headers, **key}


Providers: TypeAlias = Mapping[str, Provider]
"""Providers by their names."""


def find_provider(spec: str, providers: Providers) -> tuple[Provider, str] | None:
    """Return the provider and the model that `PROVIDER:MODEL` names; None if there is none.

    Raises ValueError if the provider cannot be asked yet.
    """
    name, _, model = spec.partition(":")
    provider = providers.get(name)
    if provider is None or not model:
        return None
    if provider.missing is not None:
        raise ValueError(f"{spec} needs {provider.missing}")
    return provider, model
