"""The embedded PostgreSQL: started, shared, taken over, and closed to others."""

import asyncio
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from app.embedded import EmbeddedPostgres, EmbeddedPostgresError
from tests.support.data_directories import data_directory, postmaster

ROOT = Path(__file__).parents[2]
# Imports first: the interpreter itself may lie where the other user cannot read.
PREAMBLE = """
import asyncio, os, pwd, sys
from pathlib import Path
import asyncpg
from app.embedded import EmbeddedPostgres
if len(sys.argv) > 2:
    user = pwd.getpwnam(sys.argv[2])
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
"""
HOLD = f"""{PREAMBLE}
with EmbeddedPostgres(Path(sys.argv[1])) as postgres:
    print(postgres.url, flush=True)
    sys.stdin.readline()
"""
CONNECT = f"""{PREAMBLE}
try:
    asyncio.run(asyncpg.connect(sys.argv[1]))
except (OSError, asyncpg.PostgresError) as error:
    print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    with data_directory() as path:
        with EmbeddedPostgres(path):
            pass
        yield path


@pytest.fixture
def copied_dir(template: Path, data_dir: Path) -> Path:
    """A data directory with a database."""
    subprocess.run(["/bin/cp", "-a", str(template), str(data_dir)], check=True)
    return data_dir


@pytest.fixture
def hold() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    with ExitStack() as stack:

        def start(data_dir: Path, *user: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", HOLD, str(data_dir), *user],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def url_of(holder: subprocess.Popen[str]) -> str:
    assert holder.stdout is not None
    return holder.stdout.readline().strip()


def release(holder: subprocess.Popen[str]) -> None:
    holder.communicate("\n", timeout=30)
    assert holder.returncode == 0


def run_sql(url: str, *statements: str) -> Any:
    async def run() -> Any:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetchval(statements[-1])
        finally:
            await connection.close()

    return asyncio.run(run())


def test_before_the_start_there_is_no_url_and_nothing_to_stop(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match=r"call start\(\)"):
        _ = EmbeddedPostgres(tmp_path).url
    EmbeddedPostgres(tmp_path).stop()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_first_start_makes_the_database_and_its_owner(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as postgres:
        assert run_sql(postgres.url, "SELECT current_user || '@' || current_database()") == (
            "memoryd@memoryd"
        )
        role = "SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication"
        assert run_sql(postgres.url, f"{role} FROM pg_roles WHERE rolname = 'memoryd'") is False
        version = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        assert run_sql(postgres.url, version) == "0.8.5"
        assert run_sql(postgres.url, "CREATE TABLE t (x int)", "SELECT lower('É')") == "é"
        assert run_sql(postgres.superuser_url, "SELECT current_user::text") == "postgres"
    assert postmaster(data_dir) is None


@pytest.mark.slow
def test_durability_is_full_and_nothing_listens_on_tcp(copied_dir: Path) -> None:
    expected = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "TimeZone": "UTC",
        "jit": "off",
        "max_connections": "200",
        "listen_addresses": "",
    }
    with EmbeddedPostgres(copied_dir) as postgres:
        assert {name: run_sql(postgres.url, f"SHOW {name}") for name in expected} == expected
        pid = postmaster(copied_dir)
        assert pid is not None
        assert os.getsid(pid) != os.getsid(0), "signals of the terminal would arrive"
        inodes = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir()}
        tcp = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        listening = {f"socket:[{line.split()[9]}]" for line in tcp.splitlines() if " 0A " in line}
        assert inodes & listening == set()


@pytest.mark.slow
def test_restart_keeps_data_and_the_operators_settings(copied_dir: Path) -> None:
    with EmbeddedPostgres(copied_dir) as postgres:
        run_sql(postgres.url, "CREATE TABLE kept AS SELECT 42 AS x", "SELECT 1")
    with (copied_dir / "postgres" / "memoryd.conf").open("a") as settings:
        settings.write("work_mem = 3MB\n")
    with EmbeddedPostgres(copied_dir) as postgres:
        assert run_sql(postgres.url, "SELECT x FROM kept") == 42
        assert run_sql(postgres.url, "SHOW work_mem") == "3MB"


@pytest.mark.slow
def test_the_last_of_two_processes_stops_the_server(
    copied_dir: Path, hold: Callable[..., subprocess.Popen[str]]
) -> None:
    first, second = hold(copied_dir), hold(copied_dir)
    url = url_of(first)
    assert url_of(second) == url
    pid = postmaster(copied_dir)
    first.kill()
    first.wait()
    assert postmaster(copied_dir) == pid
    assert run_sql(url, "SELECT 1") == 1
    release(second)
    assert postmaster(copied_dir) is None


@pytest.mark.slow
def test_a_server_whose_only_holder_was_killed_is_taken_over(
    copied_dir: Path, hold: Callable[..., subprocess.Popen[str]]
) -> None:
    killed = hold(copied_dir)
    url = url_of(killed)
    killed.kill()
    killed.wait()
    pid = postmaster(copied_dir)
    assert run_sql(url, "SELECT 1") == 1
    with EmbeddedPostgres(copied_dir):
        assert postmaster(copied_dir) == pid
    assert postmaster(copied_dir) is None


@pytest.mark.slow
def test_committed_rows_survive_a_killed_server_with_a_busy_backend(copied_dir: Path) -> None:
    async def commit_and_kill(url: str) -> None:
        busy = await asyncpg.connect(url)
        await busy.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS x")
        task = asyncio.create_task(busy.execute("SELECT count(*) FROM generate_series(1, 3000000)"))
        await asyncio.sleep(0.1)
        pid = postmaster(copied_dir)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await asyncio.gather(task, return_exceptions=True)
        busy.terminate()

    crashed = EmbeddedPostgres(copied_dir)
    asyncio.run(commit_and_kill(crashed.start()))
    with EmbeddedPostgres(copied_dir) as postgres:
        assert run_sql(postgres.url, "SELECT count(*) FROM kept") == 1000
        crashed.stop()
        assert run_sql(postgres.url, "SELECT 1") == 1
    assert postmaster(copied_dir) is None


@pytest.mark.slow
def test_left_over_lock_files_that_name_another_process_are_ignored(copied_dir: Path) -> None:
    left_over = (
        f"{os.getpid()}\n{copied_dir}/postgres\n1700000000\n5432\n{copied_dir}\n\n1 2\nready\n"
    )
    for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
        (copied_dir / "postgres" / name).write_text(left_over)
    with EmbeddedPostgres(copied_dir) as postgres:
        assert run_sql(postgres.url, "SELECT 1") == 1


@pytest.mark.slow
def test_concurrent_first_starts_end_with_one_server(
    data_dir: Path, hold: Callable[..., subprocess.Popen[str]]
) -> None:
    holders = [hold(data_dir) for _ in range(3)]
    urls = {url_of(holder) for holder in holders}
    assert len(urls) == 1
    assert run_sql(urls.pop(), "SELECT 1") == 1
    for holder in holders:
        release(holder)
    assert postmaster(data_dir) is None


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.05, 0.6])
def test_a_first_start_killed_half_way_is_finished_by_the_next(
    data_dir: Path, hold: Callable[..., subprocess.Popen[str]], seconds: float
) -> None:
    killed = hold(data_dir)
    while not (data_dir / "postgres.new").exists():
        time.sleep(0.01)
    time.sleep(seconds)
    killed.kill()
    killed.wait()
    with EmbeddedPostgres(data_dir) as postgres:
        assert run_sql(postgres.url, "SELECT '[3,4]'::vector <-> '[0,0]'") == 5.0
    assert not (data_dir / "postgres.new").exists()


@pytest.mark.slow
async def test_one_process_opens_it_twice_from_threads(copied_dir: Path) -> None:
    first, second = EmbeddedPostgres(copied_dir), EmbeddedPostgres(copied_dir)
    urls = await asyncio.gather(asyncio.to_thread(first.start), asyncio.to_thread(second.start))
    assert urls[0] == urls[1] == first.start()
    await asyncio.to_thread(first.stop)
    connection = await asyncpg.connect(urls[0])
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()
    await asyncio.to_thread(second.stop)
    await asyncio.to_thread(second.stop)
    assert postmaster(copied_dir) is None


@pytest.mark.slow
def test_a_long_path_with_spaces_works_for_both_drivers(template: Path, data_dir: Path) -> None:
    odd = data_dir / "two words, a 'quote' & $(dollar)" / ("x" * 120)
    odd.parent.mkdir(parents=True)
    subprocess.run(["/bin/cp", "-a", str(template), str(odd)], check=True)

    async def ask(url: str) -> Any:
        engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"))
        async with engine.connect() as connection:
            answer = await connection.scalar(text("SELECT current_user"))
        await engine.dispose()
        return answer

    with EmbeddedPostgres(odd) as postgres:
        socket_dir = Path(postgres.url.partition("host=")[2].partition("&")[0])
        assert socket_dir.stat().st_mode & 0o077 == 0
        assert run_sql(postgres.url, "SELECT 1") == 1
        assert asyncio.run(ask(postgres.url)) == "memoryd"
    assert not socket_dir.exists()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as other users")
def test_other_users_cannot_connect_even_through_an_open_directory(copied_dir: Path) -> None:
    def try_as_nobody(url: str) -> str:
        command = [sys.executable, "-c", CONNECT, url, "nobody"]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout

    with EmbeddedPostgres(copied_dir) as postgres:
        assert "PermissionError" in try_as_nobody(postgres.url)
        for path in (copied_dir.parent, copied_dir, copied_dir / "postgres"):
            path.chmod(0o755)
        (copied_dir / "postgres" / ".s.PGSQL.5432").chmod(0o777)
        assert "Peer authentication failed" in try_as_nobody(postgres.url)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as other users")
def test_an_ordinary_user_runs_it_and_root_can_join(
    data_dir: Path, hold: Callable[..., subprocess.Popen[str]]
) -> None:
    nobody = pwd.getpwnam("nobody")
    data_dir.parent.chmod(0o711)
    data_dir.mkdir()
    os.chown(data_dir, nobody.pw_uid, nobody.pw_gid)
    holder = hold(data_dir, "nobody")
    assert run_sql(url_of(holder), "SELECT 1") == 1
    with EmbeddedPostgres(data_dir) as joined:
        release(holder)
        assert run_sql(joined.url, "SELECT 1") == 1
    with EmbeddedPostgres(data_dir) as restarted:
        assert run_sql(restarted.url, "SELECT 1") == 1
        assert (data_dir / "postgres" / "postmaster.pid").stat().st_uid == nobody.pw_uid


def test_a_cluster_of_another_version_is_refused(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedPostgresError, match=r"written by PostgreSQL 16; .* brings 18"):
        EmbeddedPostgres(data_dir).start()


def test_a_data_directory_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedPostgresError, match=r"not a directory, .* Set MEMORYD_DATA_DIR"):
        EmbeddedPostgres(tmp_path / "file" / "data").start()


@pytest.mark.slow
def test_a_setting_that_postgresql_refuses_is_reported(copied_dir: Path) -> None:
    (copied_dir / "postgres" / "memoryd.conf").write_text("work_mem = lots\n")
    with pytest.raises(EmbeddedPostgresError, match='invalid value for parameter "work_mem"'):
        EmbeddedPostgres(copied_dir).start()
