"""memoryd runs only as a role that row-level security confines."""

import asyncio
import re
from collections.abc import Iterator

import pytest

from app.config import Settings
from app.db.requirements import (
    DatabaseRoleError,
    MissingRightsError,
    require_current,
    require_ordinary_role,
)
from app.db.tables import TABLE_NAMES
from app.models import metadata
from app.providers.embedder import FakeEmbedder
from app.resources import open_resources
from tests.support.databases import Cluster

ROLE = "other_role"


def as_role(url: str, role: str) -> str:
    return url.replace("//memoryd@", f"//{role}@")


@pytest.fixture
def url(cluster: Cluster) -> Iterator[str]:
    with cluster.database() as fresh:
        cluster.execute(fresh, f"CREATE ROLE {ROLE} LOGIN")
        yield fresh
        cluster.execute(fresh, f"DROP OWNED BY {ROLE}", "RESET ROLE")
        cluster.execute(cluster.superuser_url, f"REASSIGN OWNED BY {ROLE} TO memoryd")
    cluster.execute(cluster.superuser_url, f"DROP ROLE {ROLE}")


def problem_of(url: str) -> str:
    with pytest.raises(DatabaseRoleError) as caught:
        asyncio.run(require_ordinary_role(url))
    return str(caught.value)


def statements_in(problem: str) -> list[str]:
    return re.findall(r"^  (.*;)$", problem, re.MULTILINE)


def test_the_owner_of_the_tables_is_accepted(url: str) -> None:
    asyncio.run(require_ordinary_role(url))


@pytest.mark.parametrize("attribute", ["SUPERUSER", "BYPASSRLS"])
def test_a_role_that_sees_every_root_is_refused(cluster: Cluster, url: str, attribute: str) -> None:
    cluster.execute(url, f"ALTER ROLE {ROLE} {attribute}")
    problem = problem_of(as_role(url, ROLE))
    assert ROLE in problem
    assert attribute in problem.upper()
    assert "MEMORYD_ALLOW_SUPERUSER" in problem


def test_the_sql_of_the_refusal_makes_a_role_that_is_accepted(cluster: Cluster, url: str) -> None:
    for table in ("items", "jobs", "api_keys"):
        cluster.execute(url, f"ALTER TABLE {table} OWNER TO postgres")
    superuser = cluster.superuser_url_of(url)
    create, *rest = statements_in(problem_of(superuser))
    assert create == "CREATE ROLE memoryd LOGIN PASSWORD 'choose one';"  # is there already
    assert "ALTER FUNCTION forget_ended_items() OWNER TO memoryd;" in rest
    cluster.execute(url, *rest)
    asyncio.run(require_ordinary_role(url))


def test_a_role_without_the_tables_is_given_them(cluster: Cluster, url: str) -> None:
    other = as_role(url, ROLE)
    problem = problem_of(other)
    assert "does not own" in problem
    cluster.execute(url, *statements_in(problem))
    asyncio.run(require_ordinary_role(other))


def test_tables_that_lost_their_policy_are_named(cluster: Cluster, url: str) -> None:
    cluster.execute(url, "ALTER TABLE items NO FORCE ROW LEVEL SECURITY")
    cluster.execute(url, "ALTER TABLE threads DISABLE ROW LEVEL SECURITY")
    problem = problem_of(url)
    assert "items" in problem
    assert "threads" in problem
    cluster.execute(url, *statements_in(problem))
    asyncio.run(require_ordinary_role(url))


def test_every_table_is_examined() -> None:
    assert {*TABLE_NAMES} == {*metadata.tables, "alembic_version"}


def test_tables_of_other_programs_are_left_alone(cluster: Cluster, url: str) -> None:
    cluster.execute(
        url,
        "CREATE TABLE spatial_ref_sys (id int)",
        "CREATE TABLE orders (id int)",
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY own ON orders USING (true)",
    )
    asyncio.run(require_ordinary_role(url))
    superuser = cluster.superuser_url_of(url)
    problem = problem_of(superuser)
    assert "orders" not in problem
    assert "spatial_ref_sys" not in problem


async def test_a_process_starts_as_a_superuser_only_if_that_is_allowed(
    cluster: Cluster, settings: Settings, embedder: FakeEmbedder
) -> None:
    superuser = cluster.superuser_url_of(str(settings.database_url))
    chosen = settings.model_copy(update={"database_url": superuser, "allow_superuser": False})
    with pytest.raises(DatabaseRoleError):
        async with open_resources(chosen, embedder=embedder):
            pass
    allowed = chosen.model_copy(update={"allow_superuser": True})
    async with open_resources(allowed, embedder=embedder) as resources:
        assert resources.index.id


def test_a_role_without_rights_on_the_tables_learns_what_to_grant(url: str) -> None:
    with pytest.raises(MissingRightsError, match="must own its tables"):
        asyncio.run(require_current(as_role(url, ROLE)))
