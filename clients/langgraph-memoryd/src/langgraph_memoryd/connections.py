"""Connections to a memoryd server: blocking, and of one event loop."""

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

from langgraph_memoryd.errors import MemorydError, error_of, is_problem
from langgraph_memoryd.operations import JSON, Operation
from langgraph_memoryd.remainders import joined, remainders

_PATH = "/v1/store/batch"

_READ = ("item", "found", "listed")
"""Members of a result with what the operation read."""

_KEY = re.compile("[!-~]+")

PAUSES = (0.1, 0.5)
"""Seconds before each further attempt."""

SHEDDINGS = 5
"""Retries while the server is overloaded; each pause is a second longer than the one before."""

_IDLE_SECONDS = 3.0
"""Until an unused connection is closed: sooner than servers do it, which is after five."""

_MOST = 100
"""Connections at a time; what needs another waits for one."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the server is, and how it is spoken to."""

    url: str
    api_key: str | None = field(repr=False)
    timeout: float

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"{self.url!r} is no address; begin it with http:// or https://")
        if self.api_key and not _KEY.fullmatch(self.api_key):
            raise ValueError("The key holds what no key has, such as a space or the end of a line.")

    def options(self) -> "_Options":
        """Return the settings of a client."""
        return {
            "base_url": self.url,
            "headers": {"x-api-key": self.api_key} if self.api_key else {},
            "timeout": httpx2.Timeout(self.timeout, connect=min(5.0, self.timeout)),
            "limits": httpx2.Limits(max_connections=_MOST, keepalive_expiry=_IDLE_SECONDS),
            "verify": _trusted(),
        }


class _Options(TypedDict):
    base_url: str
    headers: dict[str, str]
    timeout: httpx2.Timeout
    limits: httpx2.Limits
    verify: ssl.SSLContext


@cache
def _trusted() -> ssl.SSLContext:
    """Return the certificates to trust, which take longer to read than most requests."""
    return httpx2.create_ssl_context()


class Connection:
    """Sends batches and waits for their results."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._client = httpx2.Client(**target.options())
        self._process = getpid()

    def send(self, operations: Sequence[Operation], *, atomic: bool) -> list[Any]:
        """Return each operation's result; atomic: or raise the error of any, with no effect."""
        answers = self._send(operations, atomic=atomic)
        while rest := remainders(operations, answers):
            more = self._send(list(rest.values()), atomic=atomic)
            answers = joined(answers, dict(zip(rest, more, strict=True)))
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
            pause = attempt.pause_when_shed(response)
            if pause is None:
                return _results(response)
            time.sleep(pause)

    def _own_client(self) -> httpx2.Client:
        """Return this process's client: with its parent's it would get its parent's answers."""
        if self._process != getpid():
            self._client = httpx2.Client(**self._target.options())
            self._process = getpid()
        return self._client

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class AsyncConnection:
    """The same for the tasks of one event loop."""

    def __init__(self, target: Target) -> None:
        self._client = httpx2.AsyncClient(**target.options())

    async def send(self, operations: Sequence[Operation], *, atomic: bool) -> list[Any]:
        """Return each operation's result; atomic: or raise the error of any, with no effect."""
        answers = await self._send(operations, atomic=atomic)
        while rest := remainders(operations, answers):
            more = await self._send(list(rest.values()), atomic=atomic)
            answers = joined(answers, dict(zip(rest, more, strict=True)))
        return answers

    async def _send(self, operations: Sequence[Operation], *, atomic: bool) -> list[Any]:
        attempt = _Attempt(operations, atomic=atomic)
        while True:
            try:
                response = await self._client.post(_PATH, **attempt.request)
            except httpx2.TransportError as error:
                await asyncio.sleep(attempt.pause_after(error, self._client.base_url))
                continue
            pause = attempt.pause_when_shed(response)
            if pause is None:
                return _results(response)
            await asyncio.sleep(pause)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class _Attempt:
    """A request, and how often it has been tried."""

    def __init__(self, operations: Sequence[Operation], *, atomic: bool) -> None:
        bodies = b",".join(operation.body for operation in operations)
        self.request = _Request(
            content=b'{"operations":[%b],"atomic":%b}' % (bodies, b"true" if atomic else b"false"),
            headers={"content-type": "application/json"},
        )
        self._writes = any(operation.writes for operation in operations)
        self._pauses = iter(PAUSES)
        self._sheddings = 0

    def pause_after(self, error: httpx2.TransportError, url: httpx2.URL) -> float:
        """Return the seconds until the next attempt; raise if there should be none."""
        pause = next(self._pauses, None) if self._may_be_repeated(error) else None
        if pause is not None:
            return pause
        kind = TimeoutError if isinstance(error, httpx2.TimeoutException) else ConnectionError
        raise kind(f"memoryd at {url} did not answer: {error or type(error).__name__}") from error

    def pause_when_shed(self, response: httpx2.Response) -> float | None:
        """Return the pause before a retry if the server shed the request; None if it did not."""
        if response.status_code != httpx2.codes.SERVICE_UNAVAILABLE:
            return None
        if _json(response).get("code") != "overloaded" or self._sheddings == SHEDDINGS:
            return None
        self._sheddings += 1
        return self._sheddings * (0.75 + random.random() / 2)  # noqa: S311  # not all at once

    def _may_be_repeated(self, error: httpx2.TransportError) -> bool:
        """Tell whether the request did not arrive, or does no harm if it did.

        A write that arrived may have been followed by another's, which a repetition would undo.
        """
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
            return True
        lost = isinstance(error, httpx2.NetworkError | httpx2.RemoteProtocolError)
        return lost and not self._writes


class _Request(TypedDict):
    content: bytes
    headers: dict[str, str]


def _results(response: httpx2.Response) -> list[Any]:
    """Return results, each possibly the error of one operation; raise that of the whole batch."""
    request_id = response.headers.get("x-request-id")
    answer = _json(response)
    if response.status_code == httpx2.codes.OK and isinstance(answer.get("results"), list):
        return [_result(result, request_id) for result in answer["results"]]
    if is_problem(answer):
        raise error_of(answer, request_id)
    raise MemorydError(
        f"{response.url} answered {response.status_code} with something else than memoryd's JSON; "
        "check the URL.",
        status=response.status_code,
        code="not_memoryd",
        request_id=request_id,
    )


def _result(result: JSON, request_id: str | None) -> Any:
    """Return what an operation read (None if nothing), or its error."""
    if "problem" in result:
        return error_of(result["problem"], request_id)
    return next((result[name] for name in _READ if name in result), None)


def _json(response: httpx2.Response) -> JSON:
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
