"""The `memoryd` command: keys, settings, databases, and the doctor."""

import inspect
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from typer._click import Context
from typer.main import get_command

from app.auth.access import Token
from app.cli.main import LazyGroup, cli
from app.db import migrations
from tests.support.databases import Cluster
from tests.support.server import free_port, memoryd

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


def explained(done: Done, *words: str, code: int = 1) -> str:
    """Assert that a command failed with a message for an operator; return the message."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr
    return done.stderr


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

    def test_a_key_is_revoked_by_its_id_or_whole(self, run: Command) -> None:
        for form in ("{0.id}", "{0}"):
            token = Token.parse(run("keys", "create", "a").stdout.strip())
            assert token is not None
            revoked = run("keys", "revoke", form.format(token))
            assert revoked.stdout == f"Revoked mk_{token.id}.\n", revoked.stderr
            assert f"mk_{token.id}  revoked" in run("keys", "list").stdout

    def test_revoking_an_unknown_key(self, run: Command) -> None:
        message = explained(run("keys", "revoke", "mk_abc_hunter2"), code=2)
        assert "There is no key mk_abc; `memoryd keys list` lists them." in unboxed(message)
        assert "hunter2" not in message

    @pytest.mark.parametrize(
        ("option", "value", "explanation"),
        [
            ("--expires", "soon", "such as 90d"),
            ("--expires", "9999999999d", "leave it out if the key should not"),
            ("--grant", "fly", "read, write, delete, jobs, admin"),
            ("--root", "a..b", "label 1 is empty"),
        ],
    )
    def test_wrong_options_are_explained(
        self, run: Command, option: str, value: str, explanation: str
    ) -> None:
        message = explained(run("keys", "create", "a", option, value), code=2)
        assert explanation in unboxed(message)


class TestSettings:
    def test_each_wrong_one_is_named_in_one_line(self, run: Command) -> None:
        wrong = {"PORT": "http", "WORKERS": "0", "LOG_LEVEL": "loud", "DATABASE_POOL_SIZE": "0"}
        variables = {f"MEMORYD_{name}": value for name, value in wrong.items()}
        lines = explained(run("keys", "list", **variables)).splitlines()
        assert {line.partition(": ")[0] for line in lines} == variables.keys()
        assert all(line.endswith("; .env.example shows what it takes.") for line in lines)

    def test_a_wrong_option_of_the_command_line_is_named_too(self, run: Command) -> None:
        explained(run("serve", "--port", "65536"), "MEMORYD_PORT: ")

    @pytest.mark.parametrize(
        ("command", "variable", "value", "explanation"),
        [
            ("serve", "MEMORYD_EMBEDDING", "nonsense", "nonsense"),
            ("serve", "MEMORYD_EMBEDDING", "openai:text-embedding-3-small", "OPENAI_API_KEY"),
            ("serve", "MEMORYD_LLM", "openai:gpt-6", "OPENAI_API_KEY, or OPENAI_BASE_URL"),
            ("worker", "MEMORYD_LLM", "gpt-6", "anthropic:MODEL or openai:M"),
        ],
    )
    def test_a_model_that_cannot_be_used(
        self, run: Command, command: str, variable: str, value: str, explanation: str
    ) -> None:
        done = run(command, **{variable: value, "MEMORYD_PORT": str(free_port())})
        explained(done, variable, explanation)

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
            ("migrate", "mysql://someone:hunter2@127.0.0.1/x"),
            ("keys list", "postgresql://someone:hunter2@127.0.0.1:port/x"),
        ],
    )
    def test_one_that_cannot_be_reached(self, run: Command, command: str, url: str) -> None:
        done = run(*command.split(), MEMORYD_DATABASE_URL=url, MEMORYD_PORT=str(free_port()))
        message = explained(done, "Cannot connect to the database: ", "MEMORYD_DATABASE_URL")
        assert "hunter2" not in message

    def test_one_with_foreign_tables_is_left_alone(
        self, run: Command, cluster: Cluster, bare_url: str
    ) -> None:
        cluster.execute(bare_url, "CREATE TABLE items (mine text)")
        done = run("migrate", MEMORYD_DATABASE_URL=bare_url)
        explained(done, 'relation "items" already exists', "`memoryd migrate` again")
        cluster.execute(bare_url, "SELECT mine FROM items")

    @pytest.mark.parametrize("command", ["serve", "worker", "keys create a"])
    def test_one_without_tables_is_refused(self, run: Command, bare_url: str, command: str) -> None:
        done = run(*command.split(), MEMORYD_DATABASE_URL=bare_url, MEMORYD_PORT=str(free_port()))
        explained(done, "no memoryd schema yet. Run `memoryd migrate`, then start again.")

    @pytest.mark.parametrize("command", ["migrate", "serve"])
    def test_one_of_a_newer_memoryd_is_left_alone(
        self, run: Command, cluster: Cluster, command: str
    ) -> None:
        with cluster.database() as url:
            cluster.execute(url, "UPDATE alembic_version SET version_num = 'ffffffffffff'")
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

    def test_no_database(self, run: Command) -> None:
        url = "postgresql://someone:hunter2@127.0.0.1:1/x"
        done = run("doctor", MEMORYD_DATABASE_URL=url)
        lines = self.lines(done, 1)
        assert lines["database"].startswith("FIX no connection")
        assert "MEMORYD_DATABASE_URL" in lines["database"]
        assert "hunter2" not in done.stdout

    def test_a_superuser(self, run: Command, cluster: Cluster, database_url: str) -> None:
        superuser = cluster.superuser_url_of(database_url)
        lines = self.lines(run("doctor", MEMORYD_DATABASE_URL=superuser), 1)
        assert "which is a superuser" in lines["database role"]
        assert "ALTER TABLE items OWNER TO memoryd;" in lines["database role"]
        assert lines["embedding"] == "ok fake:hashed answers"

    @pytest.mark.parametrize(
        ("environment", "finding"),
        [
            (
                {"MEMORYD_LLM": "anthropic:c"},
                "FIX MEMORYD_LLM: anthropic:c needs ANTHROPIC_API_KEY, or",
            ),
            (
                {"MEMORYD_LLM": "gpt"},
                "FIX MEMORYD_LLM: no language model is called 'gpt'; write anthropic:MODEL",
            ),
            ({"MEMORYD_LLM": "openai:gpt", "OPENAI_API_KEY": "hunter2"}, "ok openai:gpt"),
        ],
    )
    def test_the_llm(self, run: Command, environment: dict[str, str], finding: str) -> None:
        done = run("doctor", **environment)
        line = self.lines(done, 0 if finding.startswith("ok") else 1)["LLM"]
        assert line.startswith(finding)
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

    def test_wrong_settings(self, run: Command) -> None:
        lines = self.lines(run("doctor", MEMORYD_PROT="1", MEMORYD_EMBEDDING="nonsense"), 1)
        assert lines["settings"] == "FIX MEMORYD_PROT is not a setting; did you mean MEMORYD_PORT?"
        assert lines["embedding"].startswith("FIX MEMORYD_EMBEDDING: ")
        assert "'nonsense'" in lines["embedding"]


def test_help_names_every_command_with_its_own_first_lines() -> None:
    group = get_command(cli)
    assert isinstance(group, LazyGroup)
    assert {"serve", "worker", "migrate", "doctor", "keys"} <= group.commands.keys()
    for name in group.commands:
        listed = group.get_command(Context(group), name)
        assert listed is not None
        summary = inspect.cleandoc(group.commands[name].help or "").partition("\n\n")[0]
        assert listed.help == summary


def test_help_and_version_import_no_command(run: Command) -> None:
    assert run("--version").stdout == f"memoryd {version('memoryd')}\n"
    heavy = "{'alembic', 'asyncpg', 'fastapi', 'mcp', 'numpy', 'sqlalchemy', 'uvicorn'}"
    program = f"import sys, app.cli.main; print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
