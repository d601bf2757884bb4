import asyncio
import inspect
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from typer._click import Context
from typer.main import get_command

from app.auth.access import Token
from app.cli.main import LazyGroup, cli
from app.db import migrations
from tests.support.command import memoryd
from tests.support.databases import Cluster
from tests.support.server import free_port

pytestmark = pytest.mark.slow

Done = subprocess.CompletedProcess[str]
Command = Callable[..., Done]


@pytest.fixture
def run(database_url: str, tmp_path: Path) -> Command:
    """The command on an empty, migrated database."""

    def run_it(*arguments: str, **environment: str) -> Done:
        return memoryd(
            *arguments,
            environment={"MEMORYD_DATABASE_URL": database_url, **environment},
            cwd=tmp_path,
        )

    return run_it


@pytest.fixture
def bare_url(cluster: Cluster) -> Iterator[str]:
    """A database without any table."""
    with cluster.database(migrated=False) as url:
        yield url


def explained(done: Done, *words: str, code: int = 1) -> str:
    """Assert that a command failed with a message for an operator; return the message."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr
    return done.stderr


def execute(url: str, statement: str) -> None:
    async def run_it() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(statement)
        await connection.close()

    asyncio.run(run_it())


def unboxed(message: str) -> str:
    """Take the lines and the frame away that typer puts around a wrong parameter."""
    return " ".join(message.replace("│", " ").split())


class TestKeys:
    def test_a_key_is_shown_once(self, run: Command) -> None:
        created = run("keys", "create", "my agent")
        assert created.returncode == 0, created.stderr
        token = Token.parse(created.stdout.strip())
        assert token is not None
        listed = run("keys", "list")
        assert listed.stdout.split() == [
            *(f"mk_{token.id}", "valid", "root=*", "admin,delete,jobs,read,write:*", "my", "agent")
        ]
        assert token.secret not in created.stderr + listed.stderr

    def test_root_grants_and_lifetime_are_listed(self, run: Command) -> None:
        created = run(
            *("keys", "create", "app", "--root", "tenants.acme", "--expires", "90d"),
            *("--grant", "read,write:users", "--grant", "jobs"),
        )
        assert created.returncode == 0, created.stderr
        line = run("keys", "list").stdout
        assert "root=tenants.acme  read,write:users jobs:*  app" in line
        assert "until 20" in line

    @pytest.mark.parametrize("form", ["{0.id}", "mk_{0.id}", "{0}"])
    def test_a_key_is_revoked_by_its_id(self, run: Command, form: str) -> None:
        token = Token.parse(run("keys", "create", "a").stdout.strip())
        assert token is not None
        revoked = run("keys", "revoke", form.format(token))
        assert revoked.returncode == 0, revoked.stderr
        assert revoked.stdout == f"Revoked mk_{token.id}.\n"
        assert f"mk_{token.id}  revoked" in run("keys", "list").stdout

    def test_revoking_what_is_not_there(self, run: Command) -> None:
        message = explained(run("keys", "revoke", "mk_abc_hunter2"), code=2)
        assert "There is no key mk_abc; `memoryd keys list` lists them." in unboxed(message)
        assert "hunter2" not in message

    @pytest.mark.parametrize(
        ("option", "value", "told"),
        [
            ("--expires", "soon", "such as 90d"),
            ("--expires", "9999999999d", "leave it out if the key should not"),
            ("--expires", "99999999999999999999999d", "leave it out if the key should not"),
            ("--grant", "fly", "read, write, delete, jobs, admin"),
            ("--grant", "", "read, write, delete, jobs, admin"),
            ("--grant", "read:a..b", "label 1 is empty"),
            ("--root", "a..b", "label 1 is empty"),
        ],
    )
    def test_wrong_options_are_explained(
        self, run: Command, option: str, value: str, told: str
    ) -> None:
        message = explained(run("keys", "create", "a", option, value), code=2)
        assert told in unboxed(message)
        assert run("keys", "list").stdout == ""


class TestSettings:
    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("MEMORYD_PORT", "http"),
            ("MEMORYD_WORKERS", "0"),
            ("MEMORYD_LOG_LEVEL", "loud"),
            ("MEMORYD_REFRESH_ON_READ", "perhaps"),
        ],
    )
    def test_a_wrong_one_is_named_in_one_line(
        self, run: Command, variable: str, value: str
    ) -> None:
        message = explained(run("keys", "list", **{variable: value}))
        assert message.startswith(f"{variable}: ")
        assert message.endswith("; .env.example shows what it takes.\n")
        assert message.count("\n") == 1

    def test_every_wrong_one_is_named(self, run: Command) -> None:
        done = run("keys", "list", MEMORYD_PORT="x", MEMORYD_WORKERS="x")
        assert explained(done, "MEMORYD_PORT: ", "MEMORYD_WORKERS: ").count("\n") == 2

    def test_a_wrong_option_of_the_command_line_is_named_too(self, run: Command) -> None:
        explained(run("serve", "--port", "65536"), "MEMORYD_PORT: ")

    @pytest.mark.parametrize(
        ("embedding", "told"),
        [("nonsense", "nonsense"), ("openai:text-embedding-3-small", "OPENAI_API_KEY")],
    )
    def test_an_embedder_that_cannot_be(self, run: Command, embedding: str, told: str) -> None:
        done = run("serve", "--port", str(free_port()), MEMORYD_EMBEDDING=embedding)
        explained(done, "MEMORYD_EMBEDDING", told)

    @pytest.mark.parametrize("command", ["serve", "worker"])
    @pytest.mark.parametrize(
        ("llm", "told"),
        [
            (
                "gpt-6",
                "no language model is called 'gpt-6'; write anthropic:MODEL or openai:M",
            ),
            ("openai:gpt-6", "openai:gpt-6 needs OPENAI_API_KEY, or OPENAI_BASE_URL"),
        ],
    )
    def test_a_model_that_cannot_be_asked(
        self, run: Command, command: str, llm: str, told: str
    ) -> None:
        done = run(command, MEMORYD_LLM=llm, MEMORYD_PORT=str(free_port()))
        explained(done, "MEMORYD_LLM: ", told)

    def test_a_dot_env_file_is_read(self, database_url: str, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("MEMORYD_PORT=http\n")
        done = memoryd(
            "keys", "list", environment={"MEMORYD_DATABASE_URL": database_url}, cwd=tmp_path
        )
        explained(done, "MEMORYD_PORT: ")


class TestDatabases:
    @pytest.mark.parametrize(
        ("command", "url"),
        [
            ("serve", "postgresql://someone:hunter2@127.0.0.1:1/x"),
            ("worker", "postgresql://someone:hunter2@nowhere.invalid/x"),
            ("migrate", "postgresql://someone:hunter2@127.0.0.1:1/x"),
            ("migrate", "postgresql://someone:hunter2@nowhere.invalid/x"),
            ("migrate", "mysql://someone:hunter2@127.0.0.1/x"),
            ("keys list", "postgresql://someone:hunter2@127.0.0.1:port/x"),
            ("keys list", "nonsense"),
        ],
    )
    def test_one_that_cannot_be_reached(self, run: Command, command: str, url: str) -> None:
        done = run(*command.split(), MEMORYD_DATABASE_URL=url, MEMORYD_PORT=str(free_port()))
        message = explained(done, "Cannot connect to the database: ", "MEMORYD_DATABASE_URL")
        assert "hunter2" not in message

    def test_one_with_foreign_tables_is_left_alone(self, run: Command, bare_url: str) -> None:
        execute(bare_url, "CREATE TABLE items (mine text)")
        done = run("migrate", MEMORYD_DATABASE_URL=bare_url)
        explained(done, 'relation "items" already exists', "`memoryd migrate` again")
        execute(bare_url, "SELECT mine FROM items")

    @pytest.mark.parametrize("command", ["serve", "worker", "keys list", "keys create a"])
    def test_one_without_tables_is_refused(self, run: Command, bare_url: str, command: str) -> None:
        done = run(*command.split(), MEMORYD_DATABASE_URL=bare_url, MEMORYD_PORT=str(free_port()))
        explained(done, "no memoryd schema yet. Run `memoryd migrate`, then start again.")

    @pytest.mark.parametrize("command", ["migrate", "serve", "keys list"])
    def test_one_of_a_newer_memoryd_is_left_alone(
        self, run: Command, cluster: Cluster, command: str
    ) -> None:
        with cluster.database() as url:
            execute(url, "UPDATE alembic_version SET version_num = 'ffffffffffff'")
            port = str(free_port())
            done = run(*command.split(), MEMORYD_DATABASE_URL=url, MEMORYD_PORT=port)
            explained(done, "ffffffffffff, which is newer than this program", "a newer memoryd")

    def test_migrating_makes_them(self, run: Command, bare_url: str) -> None:
        for _ in range(2):
            done = run("migrate", MEMORYD_DATABASE_URL=bare_url)
            assert done.returncode == 0, done.stderr
            assert done.stdout == f"The schema is at revision {migrations.newest_revision()}.\n"
        assert run("keys", "list", MEMORYD_DATABASE_URL=bare_url).returncode == 0


class TestDoctor:
    def lines(self, done: Done, code: int) -> dict[str, str]:
        assert done.returncode == code, done.stdout + done.stderr
        assert done.stderr == ""
        return {
            subject: f"{state.strip()} {detail}"
            for state, subject, detail in (
                (line[:4], *line[6:].split(": ", 1)) for line in done.stdout.splitlines()
            )
        }

    def test_all_is_well(self, run: Command) -> None:
        lines = self.lines(run("doctor"), 0)
        assert list(lines) == [
            *("database", "pgvector", "clock", "schema", "API keys", "embedding", "LLM"),
        ]
        assert lines["clock"] == "ok agrees with the database's"
        assert lines["database"].startswith("ok PostgreSQL ")
        assert lines["schema"] == f"ok at revision {migrations.newest_revision()}"
        assert lines["API keys"] == "ok none; open to this machine only (127.0.0.1)"
        assert lines["embedding"] == "ok fake:hashed answers"
        assert "MEMORYD_LLM" in lines["LLM"]

    def test_an_open_server_for_everyone(self, run: Command) -> None:
        lines = self.lines(run("doctor", MEMORYD_HOST="0.0.0.0"), 1)  # noqa: S104
        assert lines["API keys"].startswith("FIX none")
        assert "memoryd keys create" in lines["API keys"]

    def test_keys_are_counted(self, run: Command) -> None:
        run("keys", "create", "a")
        run("keys", "revoke", run("keys", "create", "b").stdout.strip())
        lines = self.lines(run("doctor", MEMORYD_HOST="0.0.0.0"), 0)  # noqa: S104
        assert lines["API keys"] == "ok 1 in force of 2; requests need one"

    def test_no_tables(self, run: Command, bare_url: str) -> None:
        lines = self.lines(run("doctor", MEMORYD_DATABASE_URL=bare_url), 1)
        assert lines["schema"].startswith("FIX The database has no memoryd schema yet.")
        assert "memoryd migrate" in lines["schema"]

    @pytest.mark.parametrize(
        "url", ["postgresql://someone:hunter2@127.0.0.1:1/x", "mysql://a:hunter2@b/c"]
    )
    def test_no_database(self, run: Command, url: str) -> None:
        done = run("doctor", MEMORYD_DATABASE_URL=url)
        lines = self.lines(done, 1)
        assert lines["database"].startswith("FIX no connection")
        assert "MEMORYD_DATABASE_URL" in lines["database"]
        assert "hunter2" not in done.stdout

    def test_a_superuser(self, run: Command, cluster: Cluster, database_url: str) -> None:
        database = urlsplit(database_url).path
        superuser = cluster.superuser_url.replace("/postgres?", f"{database}?")
        lines = self.lines(run("doctor", MEMORYD_DATABASE_URL=superuser), 1)
        assert "which is a superuser" in lines["database role"]
        assert "ALTER TABLE items OWNER TO memoryd;" in lines["database role"]
        assert lines["embedding"] == "ok fake:hashed answers"

    @pytest.mark.parametrize(
        ("environment", "told"),
        [
            (
                {"MEMORYD_LLM": "openai:gpt"},
                "FIX openai:gpt; set OPENAI_API_KEY, "
                "or OPENAI_BASE_URL of a server that takes no key",
            ),
            (
                {"MEMORYD_LLM": "anthropic:c"},
                "FIX anthropic:c; set ANTHROPIC_API_KEY, "
                "or ANTHROPIC_BASE_URL of a server that takes no key",
            ),
            ({"MEMORYD_LLM": "gpt"}, "FIX MEMORYD_LLM=gpt; use anthropic: or openai:"),
            ({"MEMORYD_LLM": "openai:gpt", "OPENAI_API_KEY": "hunter2"}, "ok openai:gpt"),
        ],
    )
    def test_the_llm(self, run: Command, environment: dict[str, str], told: str) -> None:
        done = run("doctor", **environment)
        assert self.lines(done, 0 if told.startswith("ok") else 1)["LLM"] == told
        assert "hunter2" not in done.stdout

    def test_a_server_of_models_is_tried(self, run: Command) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            done = run("doctor", MEMORYD_LLM="openai:gpt", OPENAI_BASE_URL=url)
            assert self.lines(done, 0)["LLM"] == "ok openai:gpt"
        done = run("doctor", MEMORYD_LLM="openai:gpt", OPENAI_BASE_URL=url)
        line = self.lines(done, 1)["LLM"]
        assert line.startswith(f"FIX openai:gpt; nothing can be reached at {url} (")
        assert line.endswith("; start the server, or correct OPENAI_BASE_URL")

    def test_what_is_no_setting(self, run: Command) -> None:
        lines = self.lines(run("doctor", MEMORYD_PROT="1"), 1)
        assert lines["settings"] == "FIX MEMORYD_PROT is not a setting; did you mean MEMORYD_PORT?"

    def test_an_embedder_that_cannot_be(self, run: Command) -> None:
        lines = self.lines(run("doctor", MEMORYD_EMBEDDING="nonsense"), 1)
        assert lines["embedding"].startswith(
            "FIX MEMORYD_EMBEDDING: no embedder is called 'nonsense'"
        )


def test_help_names_every_command(run: Command) -> None:
    text = run("--help").stdout
    for command in ("serve", "worker", "migrate", "doctor", "keys"):
        assert command in text


def test_help_says_of_a_command_what_the_command_says() -> None:
    group = get_command(cli)
    assert isinstance(group, LazyGroup)
    for name in group.commands:
        listed = group.get_command(Context(group), name)
        assert listed is not None
        told = inspect.cleandoc(group.commands[name].help or "").partition("\n\n")[0]
        assert listed.help == told


def test_help_and_version_import_no_command(run: Command) -> None:
    assert run("--version").stdout == f"memoryd {version('memoryd')}\n"
    heavy = "{'alembic', 'asyncpg', 'fastapi', 'mcp', 'numpy', 'sqlalchemy', 'uvicorn'}"
    program = f"import sys, app.cli.main; print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
