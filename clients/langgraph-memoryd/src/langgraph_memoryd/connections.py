"""Connections to a memoryd server: blocking, and asynchronous for one event loop."""

import asyncio
import random
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from os import getpid
from typing import Any, TypedDict

import httpx2

from langgraph_memoryd.errors import MemorydError, is_problem, to_error
from langgraph_memoryd.operations import JSON, Operation
from langgraph_memoryd.remainders import find_remainders, join_remainders

_PATH = "/v1/store/batch"

_RESULT_MEMBERS = ("item", "found", "listed")
"""Members of a result that contain the data read."""

_KEY = re.compile("[!-~]+")

PAUSES = (0.1, 0.5)
"""Seconds before each further attempt."""

MAX_OVERLOAD_RETRIES = 5
"""Retries while the server is overloaded; each pause is a second longer than the one before."""

_IDLE_SECONDS = 3.0
"""Idle time after which a connection is closed; servers close theirs after five seconds."""

_MAX_CONNECTIONS = 100
"""Maximum open connections; further requests wait for a free one."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server's address and the settings of requests to it."""

    url: str
    api_key: str | None = field(repr=False)
    timeout: float

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"{self.url!r} is not a URL; begin it with http:// or https://")
        if self.api_key and not _KEY.fullmatch(self.api_key):
            raise ValueError(
                "The key has characters that no key has, such as a space or a line break."
            )

    def options(self) -> "_Options":
        """Return the options of an HTTP client."""
        return {
            "base_url": self.url,
            "headers": {"x-api-key": self.api_key} if self.api_key else {},
            "timeout": httpx2.Timeout(self.timeout, connect=min(5.0, self.timeout)),
            "limits": httpx2.Limits(
                max_connections=_MAX_CONNECTIONS, keepalive_expiry=_IDLE_SECONDS
            ),
            "verify": _ssl_context(),
        }


class _Options(TypedDict):
    base_url: str
    headers: dict[str, str]
    timeout: httpx2.Timeout
    limits: httpx2.Limits
    verify: ssl.SSLContext


@cache
def _ssl_context() -> ssl.SSLContext:
    """Load the trusted certificates once; loading takes longer than most requests."""
    return httpx2.create_ssl_context()


class Connection:
    """Sends batches of operations, blocking."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._client = httpx2.Client(**target.options())
        self._process = getpid()

    def send(self, operations: Sequence[Operation], *, atomic: bool) -> list[Any]:
        """Return each operation's result; if atomic, any error is raised and nothing is written."""
        answers = self._send(operations, atomic=atomic)
        while rest := find_remainders(operations, answers):
            more = self._send(list(rest.values()), atomic=atomic)
            answers = join_remainders(answers, dict(zip(rest, more, strict=True)))
        return answers

    def _send(self, operations: Sequence[Operation], *, atomic: bool) -> list[Any]:
        attempt = _Attempt(operations, atomic=atomic)
        client = self._own_client()
        while True:
            try:
                response = client.post(_PATH, **attempt.request)
            except httpx2.TransportError as error:
                time.sleep(attempt.pause_after(error, client.base_url))
                continue
            pause = attempt.pause_if_overloaded(response)
            if pause is None:
                return _results(response)
            time.sleep(pause)

    def _own_client(self) -> httpx2.Client:
        """Return this process's client; a forked process gets its own."""
        if self._process != getpid():
            self._client = httpx2.Client(**self._target.options())
            self._process = getpid()
        return self._client

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class AsyncConnection:
    """Sends batches of operations for the tasks of one event loop."""

    def __init__(self, target: Target) -> None:
        self._client = httpx2.AsyncClient(**target.options())

    async def send(self, operations: Sequence[Operation], *, atomic: bool) -> list[Any]:
        """Return each operation's result; if atomic, any error is raised and nothing is written."""
        answers = await self._send(operations, atomic=atomic)
        while rest := find_remainders(operations, answers):
            more = await self._send(list(rest.values()), atomic=atomic)
            answers = join_remainders(answers, dict(zip(rest, more, strict=True)))
        return answers

    async def _send(self, operations: Sequence[Operation], *, atomic: bool) -> list[Any]:
        attempt = _Attempt(operations, atomic=atomic)
        while True:
            try:
                response = await self._client.post(_PATH, **attempt.request)
            except httpx2.TransportError as error:
                await asyncio.sleep(attempt.pause_after(error, self._client.base_url))
                continue
            pause = attempt.pause_if_overloaded(response)
            if pause is None:
                return _results(response)
            await asyncio.sleep(pause)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class _Attempt:
    """A request and its retries."""

    def __init__(self, operations: Sequence[Operation], *, atomic: bool) -> None:
        bodies = b",".join(operation.body for operation in operations)
        self.request = _Request(
            content=b'{"operations":[%b],"atomic":%b}' % (bodies, b"true" if atomic else b"false"),
            headers={"content-type": "application/json"},
        )
        self._writes = any(operation.writes for operation in operations)
        self._pauses = iter(PAUSES)
        self._overload_retries = 0

    def pause_after(self, error: httpx2.TransportError, url: httpx2.URL) -> float:
        """Return the seconds until the next attempt; raises the final error if there is none."""
        pause = next(self._pauses, None) if self._can_retry(error) else None
        if pause is not None:
            return pause
        kind = TimeoutError if isinstance(error, httpx2.TimeoutException) else ConnectionError
        raise kind(f"memoryd at {url} did not answer: {error or type(error).__name__}") from error

    def pause_if_overloaded(self, response: httpx2.Response) -> float | None:
        """Return the pause before a retry if the server is overloaded; otherwise None."""
        if response.status_code != httpx2.codes.SERVICE_UNAVAILABLE:
            return None
        if (
            _json(response).get("code") != "overloaded"
            or self._overload_retries == MAX_OVERLOAD_RETRIES
        ):
            return None
        self._overload_retries += 1
        return self._overload_retries * (0.75 + random.random() / 2)  # noqa: S311  # jitter

    def _can_retry(self, error: httpx2.TransportError) -> bool:
        """Whether the request did not arrive, or is safe to repeat.

        If a write arrived, repeating it could undo a later write of another client.
        """
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
            return True
        lost = isinstance(error, httpx2.NetworkError | httpx2.RemoteProtocolError)
        return lost and not self._writes


class _Request(TypedDict):
    content: bytes
    headers: dict[str, str]


def _results(response: httpx2.Response) -> list[Any]:
    """Return the results or errors of the operations; raises an error of the whole batch."""
    request_id = response.headers.get("x-request-id")
    answer = _json(response)
    if response.status_code == httpx2.codes.OK and isinstance(answer.get("results"), list):
        return [_result(result, request_id) for result in answer["results"]]
    if is_problem(answer):
        raise to_error(answer, request_id)
    raise MemorydError(
        f"{response.url} answered {response.status_code} with something other than memoryd's JSON; "
        "check the URL.",
        status=response.status_code,
        code="not_memoryd",
        request_id=request_id,
    )


def _result(result: JSON, request_id: str | None) -> Any:
    """Return the data that an operation read (None if nothing), or its error."""
    if "problem" in result:
        return to_error(result["problem"], request_id)
    return next((result[name] for name in _RESULT_MEMBERS if name in result), None)


def _json(response: httpx2.Response) -> JSON:
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
