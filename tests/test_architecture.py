"""Limits of files, functions, packages, and types; what every route and error has."""

import ast
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from app.auth.dependencies import GuardedRoute, guard_of
from app.config import Settings
from app.db.database import ALL_ROOTS
from app.errors import AppError
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from tests.support.app import Store, running
from tests.support.routes import HIDDEN, REQUESTS

ROOT = Path(__file__).parents[1]
FILE_LINES = {"app": 500, "benchmarks": 500, "tests": 800}
FUNCTION_LINES = 50
HANDLER_LINES = 10
PACKAGE_FILES = 24
SOURCES = [
    path
    for folder in FILE_LINES
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "generated" not in path.parts
]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

UNTYPED_JSON = """
batch/schemas changes/schemas conversations/edit_values conversations/memories
conversations/messages conversations/portable_schema conversations/schema_assertions
conversations/schema_compiler conversations/schema_validator
errors extraction/retrieval http/messages http/problems indexing/passages jobs/kind jobs/record
jobs/responses jobs/results jobs/schemas json_values prompts/job_schemas prompts/router schemas
store/filter_sql store/filters store/schemas threads/deduplicate threads/summary_budget
threads/summary_plan tools/memory_schemas tools/schemas
"""
"""JSON of any form: values, filters, JSON Schemas, messages, and members of problem documents."""

UNTYPED_OPENAPI = """
cli/openapi http/openapi
"""
"""The OpenAPI document, which is JSON."""

UNTYPED_LIBRARIES = """
auth/dependencies background cli/main config embedded/programs extraction/tool_calls http/protocol
http/refusals http/request_context indexing/terms job_kinds main mcp/server mcp/stdio
threads/router
"""
"""Objects of libraries that have no better type: ASGI, uvicorn, typer, MCP, coroutines."""

UNTYPED = f"{UNTYPED_JSON} {UNTYPED_OPENAPI} {UNTYPED_LIBRARIES}".split()
"""Modules that use `Any`. Only remove from these lists: type what is new."""

ROWS_ELSEWHERE = ["cli/doctor", "indexing/formats", "jobs/queue", "jobs/record", "usage_counter"]
"""Modules with SQL of their own that are no repositories. Only remove from this list."""

ITEMS = "/v1/store/items"

OPEN_ROUTES = {
    "/healthz",
    "/readyz",
    "/v1/ok",
    "/docs",
    "/docs/start.js",
    "/docs/swagger-ui-bundle.js",
    "/docs/swagger-ui.css",
    "/docs/favicon.png",
    "/openapi.json",
}

PROTOCOL_ROUTES = {"/mcp", "/mcp/"}
"""No route of FastAPI's, so not in the OpenAPI document; tests/mcp tries who may use it."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function):
            yield node


def lines_of(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def routes() -> list[Any]:
    return list(iter_route_contexts(create_app(Settings()).routes))


def guarded_routes() -> list[Any]:
    return [route for route in routes() if route.path not in OPEN_ROUTES | PROTOCOL_ROUTES]


def calls(dependant: Dependant) -> Iterator[Any]:
    yield dependant.call
    for dependency in dependant.dependencies:
        yield from calls(dependency)


def app_errors(of: type[AppError] = AppError) -> Iterator[type[AppError]]:
    yield of
    for subclass in of.__subclasses__():
        yield from app_errors(subclass)


def test_no_file_is_too_long() -> None:
    too_long = {
        str(path.relative_to(ROOT)): lines
        for path in SOURCES
        if (lines := len(path.read_text().splitlines()))
        > FILE_LINES[path.relative_to(ROOT).parts[0]]
    }
    assert too_long == {}, "split these by what they do"


def test_functions_are_short_and_import_nothing() -> None:
    too_long, hidden = {}, []
    for path in SOURCES:
        for function in functions(path):
            place = f"{path.relative_to(ROOT)}:{function.lineno} {function.name}"
            if lines_of(function) > FUNCTION_LINES:
                too_long[place] = lines_of(function)
            if any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(function)):
                hidden.append(place)
    assert too_long == {}, "give the parts names of their own"
    assert hidden == [], "import at the top of the module"


def test_no_package_has_too_many_files() -> None:
    files = [path.relative_to(ROOT / "app").parts for path in SOURCES if is_of_app(path)]
    packages = Counter(parts[0] for parts in files if len(parts) > 1 and parts[-1] != "__init__.py")
    assert {name: n for name, n in packages.items() if n > PACKAGE_FILES} == {}


def is_of_app(path: Path) -> bool:
    return path.is_relative_to(ROOT / "app")


def knows_rows(path: Path) -> bool:
    folders = (ROOT / "app/db", ROOT / "app/providers")
    return path.stem.endswith("repository") or any(map(path.is_relative_to, folders))


def modules_with(word: str, pattern: str) -> set[str]:
    """Return the modules that may not know rows and whose code has an expression of a pattern."""
    return {
        str(path.relative_to(ROOT / "app").with_suffix(""))
        for path in SOURCES
        if is_of_app(path) and not knows_rows(path) and word in path.read_text()
        if any(re.fullmatch(pattern, ast.unparse(node)) for node in expressions(path))
    }


def expressions(path: Path) -> Iterator[ast.expr]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name | ast.Subscript):
            yield node


def test_any_is_used_only_where_listed() -> None:
    assert modules_with("Any", "Any") == set(UNTYPED), "write the type, or remove from the list"


def test_rows_are_read_only_by_repositories_and_where_listed() -> None:
    found = modules_with("row[", r"row\['\w+'\]")
    assert found == set(ROWS_ELSEWHERE), "return records from a repository, or remove from the list"


def test_modules_that_pages_name_exist() -> None:
    text = "".join(page.read_text() for page in PAGES)
    named = re.findall(r"\bapp/[\w/]+\.py\b", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_handlers_only_hand_over() -> None:
    too_long = {}
    for route in guarded_routes():
        node = ast.parse(inspect.getsource(route.endpoint)).body[0]
        assert isinstance(node, Function)
        lines = (node.end_lineno or 0) - node.body[0].lineno + 1
        if lines > HANDLER_LINES:
            too_long[route.operation_id] = lines
    assert too_long == {}, "move decisions to the feature's service"


def test_every_route_names_its_verbs_or_is_known_to_be_open() -> None:
    unguarded = [
        route.path
        for route in guarded_routes()
        if not isinstance(route.original_route, GuardedRoute) or not guard_of(route.dependant)
    ]
    assert unguarded == []


def test_open_routes_are_still_there() -> None:
    assert {route.path for route in routes()} >= OPEN_ROUTES | PROTOCOL_ROUTES


def test_every_guarded_route_is_tried_over_http() -> None:
    assert {route.operation_id for route in guarded_routes()} == {*REQUESTS, *HIDDEN}


def test_handlers_and_dependencies_never_take_a_thread() -> None:
    for route in guarded_routes():
        for call in calls(route.dependant):
            # FastAPI's own security schemes are objects with a coroutine __call__.
            asked = call if inspect.isfunction(call) else call.__call__
            assert inspect.iscoroutinefunction(asked) or inspect.isasyncgenfunction(asked), (
                f"{call} of {route.path} is not async: each request would wait for a thread"
            )


def test_every_route_is_described() -> None:
    for route in guarded_routes():
        assert route.operation_id == route.endpoint.__name__
        assert route.summary
        assert "401" in route.responses or 401 in route.responses
        assert "403" in route.responses or 403 in route.responses


def test_every_error_has_a_code_of_its_own_and_a_title() -> None:
    errors = list(app_errors())
    codes = [error.code for error in errors]
    assert len(codes) == len(set(codes)), sorted(code for code in codes if codes.count(code) > 1)
    assert len(errors) > 10


def test_every_error_can_be_rendered() -> None:
    for error in app_errors():
        assert 400 <= error.status <= 599, error
        assert error.title[:1].isupper(), error
        assert re.fullmatch("[a-z0-9_]+", error.code), error
        assert error.__name__.endswith("Error")
        assert error is AppError or {"code", "title"} <= vars(error).keys(), error


async def prepared_statements(request: Request) -> list[str]:
    async with request.state.resources.database.connection(ALL_ROOTS) as connection:
        return [
            row[0] for row in await connection.fetch("SELECT statement FROM pg_prepared_statements")
        ]


async def test_what_clients_send_never_enters_the_text_of_sql(
    settings: Settings, embedder: FakeEmbedder
) -> None:
    # With a single connection, every statement is still prepared on it at the end.
    app = create_app(settings.model_copy(update={"database_pool_size": 1}), embedder=embedder)
    app.add_api_route("/statements", prepared_statements)
    place: dict[str, Any] = {"namespace": ["xyzzy", "a"], "key": "xyzzy"}
    put: dict[str, Any] = {
        "value": {"xyzzy": "xyzzy"},
        "index": ["xyzzy"],
        "source": {"thread_id": "xyzzy"},
    }
    async with running(app) as client:
        store = Store(client)
        await store.put(**place, **put)
        await store.call("PATCH", ITEMS, json={**place, "value": {"xyzzy": 1}}, status=200)
        await store.call("POST", f"{ITEMS}/restore", json={**place, "version": 1}, status=200)
        await store.get(**place)
        await store.get(**place, as_of="2026-01-01T00:00:00Z")
        await store.versions(**place)
        await store.namespaces(prefix=["xyzzy", "*"], suffix=["*", "a"], max_depth=2, counts=True)
        await store.namespaces(suffix=["xyzzy"])
        for condition in (
            "xyzzy",
            {"$eq": "xyzzy"},
            {"$gt": "xyzzy"},
            {"$in": ["xyzzy", 1]},
            {"$exists": True},
            {"$not": {"$ne": "xyzzy"}},
        ):
            await store.search(["xyzzy"], query="xyzzy", filter={"xyzzy": condition})
        await store.batch({"op": "get", **place}, {"op": "search", "filter": {"a.xyzzy": "b"}})
        await store.delete(**place)
        statements = (await client.get("/statements")).json()
    assert len(statements) > 10
    assert [statement for statement in statements if "xyzzy" in statement] == []
