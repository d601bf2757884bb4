"""Settings: environment variables, every one listed in `.env.example` with its default."""

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def _comma_separated(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _check_address(url: str) -> str:
    """Return the address of a model server; raises ValueError for one that cannot work."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise ValueError("is not an address such as http://localhost:11434/v1")
    if parts.query or parts.fragment:
        raise ValueError("has ? or #; put the members of the query into MEMORYD_PROVIDERS_FILE")
    for route in _ROUTES:
        if parts.path.rstrip("/").endswith(route):
            raise ValueError(f"ends with the route {route}, which is added to it; leave that out")
    return url


_ROUTES = ("/chat/completions", "/embeddings", "/responses", "/messages")

BaseURL = Annotated[str, AfterValidator(_check_address)]
"""The address of a model server, without the routes below it."""

CommaSeparated = Annotated[list[str], NoDecode, BeforeValidator(_comma_separated)]


_COMMAND_VARIABLES = {"MEMORYD_API_KEY"}
"""Variables that are read by a command and are no settings."""

_BYTES_BESIDE_VALUE = 3 << 10
"""Room in a body for the longest namespace and key."""


class Settings(BaseSettings):
    """Settings for operators; read once per process."""

    model_config = SettingsConfigDict(
        env_prefix="MEMORYD_", env_file=".env", env_ignore_empty=True, extra="ignore"
    )

    database_url: str | None = Field(
        None, description="PostgreSQL >= 15 with pgvector >= 0.8; empty: the embedded one."
    )
    data_dir: Path = Field(
        Path(".memoryd"), description="The embedded database and the prepared local model."
    )
    allow_superuser: bool = Field(
        False,
        description="Accept a database role that row-level security does not confine.",
    )
    database_pool_size: int = Field(16, ge=1, description="Connections of one server process.")
    host: str = Field("127.0.0.1", description="Address to listen on; others need an API key.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on.")
    workers: int = Field(1, ge=1, description="Server processes.")

    embedding: str = Field(
        "local:all-MiniLM-L6-v2",
        description="local:all-MiniLM-L6-v2, openai:MODEL, PROVIDER:MODEL, or none.",
    )
    embedding_dimensions: int | None = Field(
        None, ge=1, le=4000, description="Requested from the provider; empty: the model's own."
    )
    embedding_base_url: BaseURL | None = Field(
        None, description="The server of openai: embeddings; empty: that of OPENAI_BASE_URL."
    )
    embedding_api_key: SecretStr | None = Field(
        None,
        description="Key for openai: embeddings; empty: OPENAI_API_KEY, for the same address.",
    )
    embedding_query_prefix: Annotated[str | None, Field(max_length=1000)] = Field(
        None, description="Text in front of each query that an embedding model gets."
    )
    embedding_passage_prefix: Annotated[str | None, Field(max_length=1000)] = Field(
        None, description="Text in front of each passage that it gets."
    )
    embedding_query_input_type: Annotated[str | None, Field(max_length=1000)] = Field(
        None, description="input_type of requests with queries, such as query."
    )
    embedding_passage_input_type: Annotated[str | None, Field(max_length=1000)] = Field(
        None, description="input_type of requests with passages, such as passage."
    )
    index_fields: CommaSeparated = Field(
        ["$"], description="Paths of a value that are embedded when a put names none."
    )
    language: str | None = Field(
        None, description="Language of all texts, such as german; empty: detected for each text."
    )
    llm: str | None = Field(
        None,
        description="anthropic:MODEL, openai:MODEL, or PROVIDER:MODEL, for the jobs that need one.",
    )
    providers_file: Path | None = Field(
        None, description="A TOML file of further providers, each with a name, address, and key."
    )
    allowed_models: Annotated[list[str] | None, NoDecode, BeforeValidator(_comma_separated)] = (
        Field(
            None,
            description="Models that clients may name besides MEMORYD_LLM, separated by commas; "
            "* at the end of one stands for any ending.",
        )
    )
    secrets: Literal["redact", "refuse", "allow"] = Field(
        "redact",
        description="Secrets that extraction would store: redact replaces them, refuse stores "
        "nothing that has one, allow stores them.",
    )

    llm_timeout_seconds: float = Field(120, gt=0, description="Maximum wait for a model's answer.")
    llm_concurrency: int = Field(
        8, ge=1, description="Calls of one provider's models at once, in each process."
    )
    extract_chunk_characters: int = Field(
        96_000,
        ge=1_000,
        le=400_000,
        description="Characters of a thread's messages, as JSON, that one job extracts from.",
    )

    job_concurrency: int = Field(8, ge=1, description="Jobs that one worker runs at once.")
    jobs_per_root: int = Field(
        6, ge=1, description="Running jobs of the keys with one root, over all workers."
    )
    job_attempts: int = Field(8, ge=1, le=100, description="Maximum attempts at a job.")
    job_backoff_seconds: float = Field(
        5, ge=0, description="Pause before the second attempt; doubled before each further one."
    )
    job_timeout_seconds: float = Field(
        600, gt=0, description="Maximum duration of an attempt at a job."
    )
    job_memory_bytes: int = Field(
        1 << 30,
        ge=64 << 20,
        description="Bytes that a worker may use for jobs beyond its idle memory.",
    )
    job_lease_seconds: float = Field(
        30, gt=0, description="A worker loses its jobs after this silence."
    )
    drain_seconds: float = Field(
        20, ge=0, description="Time that a stopped worker has to finish its jobs."
    )
    job_retention_days: int = Field(30, ge=1, description="Time that finished jobs are kept.")

    default_ttl_minutes: float | None = Field(
        None, gt=0, description="Lifetime of items put without one; empty: unlimited."
    )
    refresh_on_read: bool = Field(True, description="Reading an item restarts its lifetime.")
    sweep_interval_seconds: float = Field(
        60, gt=0, description="Pause between removals of expired items."
    )
    max_value_bytes: int = Field(1 << 20, ge=1024, description="Largest value of one item.")
    max_body_bytes: int = Field(
        8 << 20,
        ge=4096,
        validate_default=True,
        description="Largest request body: of a batch; other routes take less.",
    )
    requests_per_minute: int | None = Field(
        None, ge=1, description="Requests of a key in each server process; empty: unlimited."
    )
    jobs_per_minute: int | None = Field(
        None, ge=1, description="Jobs that a key may submit; empty: unlimited."
    )
    exact_search_passages: int = Field(
        10_000, ge=0, description="Scopes up to this size are searched exactly, others by index."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged."
    )
    log_format: Literal["console", "json"] = Field("console", description="Shape of log lines.")

    openai_api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("OPENAI_API_KEY"), description="Key for openai:MODEL."
    )
    openai_base_url: BaseURL | None = Field(
        None,
        validation_alias=AliasChoices("OPENAI_BASE_URL"),
        description="An OpenAI-compatible server; empty: OpenAI itself.",
    )
    anthropic_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("ANTHROPIC_API_KEY"),
        description="Key for anthropic:MODEL.",
    )
    anthropic_base_url: BaseURL | None = Field(
        None,
        validation_alias=AliasChoices("ANTHROPIC_BASE_URL"),
        description="Another server that speaks Anthropic's API; empty: Anthropic itself.",
    )

    @field_validator("allowed_models")
    @classmethod
    def _has_wildcards_at_the_end(cls, models: list[str] | None) -> list[str] | None:
        for model in models or ():
            if "*" in model[:-1]:
                raise ValueError(f"{model!r} has * before its end; write it at the end, or not")
        return models

    @field_validator("max_body_bytes")
    @classmethod
    def _has_room_for_a_value(cls, size: int, info: ValidationInfo) -> int:
        needed = info.data.get("max_value_bytes", 0) + _BYTES_BESIDE_VALUE
        if size < needed:
            raise ValueError(
                f"a value of MEMORYD_MAX_VALUE_BYTES does not fit into {size:,} bytes; "
                f"set at least {needed}, or a smaller MEMORYD_MAX_VALUE_BYTES"
            )
        return size


def given_settings(**given: Any) -> Settings:
    """Return the environment's settings, overridden by those given on the command line."""
    return Settings(**{name: value for name, value in given.items() if value is not None})


def unknown_variables() -> list[str]:
    """Return a sentence for each variable that is named like a setting but is not one."""
    known = {f"MEMORYD_{name.upper()}" for name in Settings.model_fields} | _COMMAND_VARIABLES
    given = {*os.environ, *dotenv_values(".env")}
    problems = []
    for name in sorted({name.upper() for name in given if name.upper().startswith("MEMORYD_")}):
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.8)
            hint = f"did you mean {near[0]}?" if near else "docs/reference/settings.md lists them."
            problems.append(f"{name} is not a setting; {hint}")
    return problems
