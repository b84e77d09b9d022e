from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import aiohttp
import pytest

from shared.retry.errors import PermanentError, TransientError
from shared.settings import Settings
from shared.sharepoint.auth.contract import Grant, scope
from shared.sharepoint.auth.tokens import Tokens
from shared.sharepoint.client import GraphClient
from tests.shared.sharepoint.stub import Reply

if TYPE_CHECKING:
    from tests.shared.sharepoint.stub import Stub

TOKEN = "/tenant/oauth2/v2.0/token"


class Source:
    """Grants, numbered; each waits for its gate if there is one."""

    def __init__(self, seconds: float = 3600) -> None:
        self.fetched = 0
        self.closed = False
        self.seconds = seconds
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None

    async def fetch(self) -> Grant:
        self.fetched += 1
        number = self.fetched
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Grant(access_token=f"token-{number}", expires_in=self.seconds)

    async def close(self) -> None:
        self.closed = True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_many_calls_at_once_fetch_one_token() -> None:
    source = Source()
    tokens = Tokens(source)
    assert set(await asyncio.gather(*(tokens.get() for _ in range(20)))) == {"token-1"}
    assert await tokens.get() == "token-1"
    assert source.fetched == 1


async def test_a_caller_that_gives_up_leaves_the_token_to_the_others() -> None:
    source = Source()
    source.gate = asyncio.Event()
    tokens = Tokens(source)
    impatient, patient = asyncio.create_task(tokens.get()), asyncio.create_task(tokens.get())
    await asyncio.sleep(0)
    impatient.cancel()
    source.gate.set()
    assert await patient == "token-1"
    assert source.fetched == 1


async def test_it_is_renewed_ahead_while_the_old_one_serves() -> None:
    source, clock = Source(), Clock()
    tokens = Tokens(source, clock=clock)
    await tokens.get()
    clock.now = 3600 - 200
    source.gate = asyncio.Event()
    assert await tokens.get() == "token-1"  # does not wait for the renewal it has started
    source.gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert await tokens.get() == "token-2"
    assert source.fetched == 2


async def test_a_renewal_that_fails_ahead_is_tried_again_and_troubles_nobody() -> None:
    source, clock = Source(), Clock()
    tokens = Tokens(source, clock=clock)
    await tokens.get()
    clock.now = 3600 - 200
    source.error = TransientError("the sign-in endpoint is away")
    for _ in range(3):
        assert await tokens.get() == "token-1"
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert source.fetched > 2
    clock.now = 3600 - 10  # too late for the old one
    with pytest.raises(TransientError):
        await tokens.get()


async def test_a_refused_token_is_not_used_again() -> None:
    source = Source()
    tokens = Tokens(source)
    first = await tokens.get()
    tokens.refuse(first)
    assert await tokens.get() == "token-2"
    tokens.refuse(first)  # told late, by a call that was under way: the new one stays
    assert await tokens.get() == "token-2"


async def test_closing_stops_a_fetch_under_way() -> None:
    source = Source()
    source.gate = asyncio.Event()
    tokens = Tokens(source)
    waiting = asyncio.create_task(tokens.get())
    await asyncio.sleep(0)
    await tokens.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert source.closed


async def test_the_client_secret_flow_sends_what_the_endpoint_wants(graph: Stub, client: GraphClient) -> None:
    graph.on("GET", "/v1.0/sites/root", Reply(body={}))
    await client.send("GET", "/sites/root", doing="looking")
    [asked] = graph.calls("POST", TOKEN)
    assert parse_qs(asked.body.decode()) == {
        "client_id": ["app"],
        "client_secret": ["s3cret&="],
        "scope": ["https://graph.microsoft.com/.default"],
        "grant_type": ["client_credentials"],
    }


@pytest.mark.parametrize("status", [400, 401])
async def test_refused_credentials_let_the_photos_wait_and_name_the_cause(
    graph: Stub, client: GraphClient, status: int
) -> None:
    graph.on(
        "POST",
        TOKEN,
        Reply(
            status,
            {
                "error": "invalid_client",
                "error_description": "AADSTS7000215: Invalid client secret provided.",
                "error_codes": [7000215],
                "trace_id": "t",
                "correlation_id": "c",
            },
        ),
    )
    with pytest.raises(
        TransientError, match=rf"answered {status} .*AADSTS7000215.*set the secret's value, not its id"
    ) as caught:
        await client.send("GET", "/sites/root", doing="looking")
    assert "s3cret" not in str(caught.value)
    assert graph.calls("GET") == []


async def test_an_answer_without_a_token_is_transient(graph: Stub, client: GraphClient) -> None:
    graph.on("POST", TOKEN, Reply(body=b"<html>a proxy's page</html>"))
    with pytest.raises(TransientError, match="holds no token"):
        await client.send("GET", "/sites/root", doing="looking")


async def test_a_network_error_of_the_sign_in_passes_through(graph: Stub, client: GraphClient) -> None:
    graph.on("POST", TOKEN, Reply(drop=True))
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.send("GET", "/sites/root", doing="looking")


async def test_missing_credentials_are_named() -> None:
    client = GraphClient(Settings(azure_client_id="app"))
    with pytest.raises(PermanentError, match="set AZURE_TENANT_ID, AZURE_CLIENT_SECRET"):
        await client.open()


def test_the_scope_is_that_of_the_cloud_and_of_the_public_one_for_a_local_graph() -> None:
    assert (
        scope(Settings(graph_url="https://graph.microsoft.us/v1.0")) == "https://graph.microsoft.us/.default"
    )
    for url in ("http://127.0.0.1:1/v1.0", "https://localhost:1/v1.0"):
        assert scope(Settings(graph_url=url)) == "https://graph.microsoft.com/.default"
