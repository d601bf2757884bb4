"""Prompts over MCP."""

import httpx2
import pytest
from mcp import Client, MCPError, types

from app.auth.access import Verb
from app.auth.service import KeyService
from tests.support.keys import grant, key_with
from tests.support.mcp_client import connected

GREETING = 'Greet {user} in {{ language }}. Answer as {"text": …}, {user}!'


async def write(client: httpx2.AsyncClient, name: str, text: str, **more: object) -> None:
    response = await client.put(f"/v1/prompts/{name}", json={"text": text, **more})
    assert response.status_code in {200, 201}, response.text


async def text_of(client: Client, name: str, **arguments: str) -> str:
    (message,) = (await client.get_prompt(name, arguments)).messages
    assert message.role == "user"
    assert isinstance(message.content, types.TextContent)
    return message.content.text


async def test_prompts_are_listed_with_their_variables_and_filled(
    client: httpx2.AsyncClient,
) -> None:
    await write(client, "greeting", GREETING)
    async with connected(client) as opened:
        (listed,) = (await opened.list_prompts()).prompts
        assert listed.name == "greeting"
        arguments = [(one.name, one.required) for one in listed.arguments or ()]
        assert arguments == [("user", True), ("language", True)]
        text = await text_of(opened, "greeting", user="{language} \\1", language="French")
    assert text == 'Greet {language} \\1 in French. Answer as {"text": …}, {language} \\1!'


async def test_only_versions_in_production_are_served(client: httpx2.AsyncClient) -> None:
    await write(client, "a", "old")
    await write(client, "a", "new", labels=["candidate"])
    await write(client, "b", "never", labels=["candidate"])
    async with connected(client) as opened:
        assert [one.name for one in (await opened.list_prompts()).prompts] == ["a"]
        assert await text_of(opened, "a") == "old"
        with pytest.raises(MCPError, match='no label "production"'):
            await opened.get_prompt("b")


async def test_mistakes_are_explained(client: httpx2.AsyncClient) -> None:
    await write(client, "greeting", GREETING)
    mistakes: list[tuple[str, dict[str, str], str]] = [
        ("greeting", {"user": "Ann"}, "needs a value for language"),
        ("greeting", {"user": "a", "language": "b", "x": "c"}, "no variable x; it has user, lang"),
        ("none", {}, 'There is no prompt "none"'),
        ("no/such\x00name", {}, "There is no prompt"),
    ]
    async with connected(client) as opened:
        for name, arguments, said in mistakes:
            with pytest.raises(MCPError) as raised:
                await opened.get_prompt(name, arguments)
            assert said in raised.value.message
            assert raised.value.code == types.INVALID_PARAMS
        with pytest.raises(MCPError, match="Invalid request parameters"):
            await opened.list_prompts(cursor="/ /")


@pytest.mark.slow
async def test_many_prompts_come_in_pages(client: httpx2.AsyncClient) -> None:
    names = [f"prompt-{number:02}" for number in range(53)]
    for name in names:
        await write(client, name, "text")
    async with connected(client) as opened:
        page = await opened.list_prompts()
        rest = await opened.list_prompts(cursor=page.next_cursor)
    assert [one.name for one in (*page.prompts, *rest.prompts)] == names
    assert rest.next_cursor is None


async def test_a_confined_key_reads_the_prompts_of_its_root(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    acme, other = [await key_with(keys, root=(root,)) for root in ("acme", "other")]
    reader = await key_with(keys, grant({Verb.READ}, "users", "ann"), root=("acme",))
    for headers, text in ((acme, "of acme"), (other, "of another")):
        response = await client.put("/v1/prompts/a", json={"text": text}, headers=headers)
        assert response.status_code == 201
    async with connected(client, reader, namespace=["users", "ann"]) as opened:
        assert await text_of(opened, "a") == "of acme"
