"""The providers that the settings and the file of MEMORYD_PROVIDERS_FILE name."""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, Self

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from app.config import BaseURL, Settings
from app.errors import SettingError
from app.providers.provider import Provider, ProviderKind, Providers

_FILE = "MEMORYD_PROVIDERS_FILE"
_OVERRIDES = ("MEMORYD_EMBEDDING_BASE_URL", "MEMORYD_EMBEDDING_API_KEY")

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_RESERVED = {"fake", "local", "none"}
_SENDABLE = re.compile(r"[\x21-\x7e]+")

HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]
HeaderValue = Annotated[str, Field(pattern=r"^[\x20-\x7e]{0,2000}$")]


class ProviderEntry(BaseModel):
    """One provider in the file."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    kind: ProviderKind
    base_url: BaseURL | None = None
    api_key: SecretStr | None = None
    api_key_env: str | None = None
    api_key_header: HeaderName | None = None
    api: Literal["chat", "responses"] | None = None
    headers: dict[HeaderName, HeaderValue] = {}
    query: dict[str, str] = {}

    @model_validator(mode="after")
    def _is_clear(self) -> Self:
        if self.api_key is not None and self.api_key_env is not None:
            raise ValueError("has api_key and api_key_env; keep one of them")
        if self.api is not None and self.kind != "openai":
            raise ValueError(f'has api, which kind = "{self.kind}" does not take; remove it')
        return self


def read_providers(settings: Settings) -> dict[str, Provider]:
    """Return the providers of language models by their names; raises SettingError.

    Those of the file replace the ones that the variables name.
    """
    return {
        "anthropic": _configured(
            "anthropic", settings.anthropic_api_key, settings.anthropic_base_url
        ),
        "openai": _configured("openai", settings.openai_api_key, settings.openai_base_url),
        **_read_file(settings.providers_file),
    }


def embedding_providers(settings: Settings, providers: Providers) -> Providers:
    """Return the providers with the address and the key that are for embeddings alone.

    Another address never gets the key of the language model. Raises SettingError.
    """
    url, key = settings.embedding_base_url, settings.embedding_api_key
    if url is None and key is None:
        return providers
    name = settings.embedding.partition(":")[0]
    if settings.embedding not in {"none", "fake:hashed"} and (
        name != "openai" or name in _read_file(settings.providers_file)
    ):
        given = _OVERRIDES[url is None]
        raise SettingError(
            f"{given}: it is for MEMORYD_EMBEDDING=openai:MODEL, not for {settings.embedding}; "
            f"unset it, or change MEMORYD_EMBEDDING."
        )
    if url is None:
        url = settings.openai_base_url
    return {**providers, "openai": _configured("openai", key, url)}


def _configured(kind: ProviderKind, api_key: SecretStr | None, base_url: str | None) -> Provider:
    """Return the provider that the variables of a kind name."""
    prefix = kind.upper()
    key = _secret(f"{prefix}_API_KEY", api_key)
    lacks = not (key or base_url)
    return Provider(
        kind,
        kind,
        base_url,
        "chat" if base_url else "responses",
        key,
        address_setting=f"{prefix}_BASE_URL",
        missing=f"{prefix}_API_KEY, or {prefix}_BASE_URL of a server that takes no key"
        if lacks
        else None,
    )


def _read_file(path: Path | None) -> dict[str, Provider]:
    if path is None:
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"{_FILE}: {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise SettingError(f"{_FILE}: {path} is not TOML: {error}.") from error
    try:
        return dict(_entries(content))
    except ValueError as error:
        raise SettingError(f"{_FILE}: {path}: {error}.") from error


def _entries(content: Mapping[str, object]) -> Iterator[tuple[str, Provider]]:
    unknown = sorted(content.keys() - {"providers"})
    tables = content.get("providers", {})
    if unknown or not isinstance(tables, dict):
        raise ValueError(f"{(unknown or ['providers'])[0]} is not a table [providers.NAME]")
    variables = {**dotenv_values(".env"), **os.environ}
    for name, members in tables.items():
        if not _NAME.fullmatch(name) or name in _RESERVED:
            raise ValueError(
                f"no provider can be called {name!r}; names have lower-case letters, digits, _ "
                f"and -, and are not {', '.join(sorted(_RESERVED))}"
            )
        try:
            entry = ProviderEntry.model_validate(members)
        except ValidationError as error:
            raise ValueError(_describe(f"providers.{name}", error.errors()[0])) from None
        yield name, _provider(name, entry, variables)


def _provider(name: str, entry: ProviderEntry, variables: Mapping[str, str | None]) -> Provider:
    place = f"providers.{name}"
    key, missing = _secret(f"{place}.api_key", entry.api_key), None
    if entry.api_key_env is not None:
        found = variables.get(entry.api_key_env)
        key = _secret(entry.api_key_env, SecretStr(found) if found else None)
        missing = None if key else f"{entry.api_key_env}, which {place}.api_key_env names"
    elif key is None and entry.base_url is None:
        missing = f"a key: set {place}.api_key_env to the name of a variable that has it"
    is_own = entry.kind == "openai" and entry.base_url is None
    return Provider(
        name,
        entry.kind,
        entry.base_url,
        entry.api or ("responses" if is_own else "chat"),
        key,
        None if (entry.api_key_header or "").lower() == "authorization" else entry.api_key_header,
        entry.headers,
        entry.query,
        f"{place}.base_url in {_FILE}",
        missing,
    )


def _secret(place: str, given: SecretStr | None) -> str | None:
    """Return a key without spaces around it; raises SettingError if no header can have it."""
    key = given.get_secret_value().strip() if given is not None else ""
    if key and not _SENDABLE.fullmatch(key):
        raise SettingError(f"{place}: the key has characters that no key has; copy it again.")
    return key or None


def _describe(place: str, error: ErrorDetails) -> str:
    """Return one sentence on a mistake, without the value, which may be a key."""
    path = ".".join([place, *(str(part) for part in error["loc"] if part != "[key]")])
    if error["type"] == "extra_forbidden":
        known = list(ProviderEntry.model_fields)
        near = get_close_matches(str(error["loc"][-1]), known, n=1)
        return f"{path} is not a member; write {' or '.join(near or known)}"
    if error["type"] == "missing":
        return f'{path} is missing; write kind = "openai" or kind = "anthropic"'
    if error["type"] == "literal_error":
        return f"{path} is not {error['ctx']['expected']}"
    problem = error["msg"].removeprefix("Value error, ")
    return f"{path} {problem[0].lower()}{problem[1:]}"
