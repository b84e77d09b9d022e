"""The token endpoint, and what a token opens."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from sandbox.sharepoint.app import Options
from sandbox.sharepoint.tokens import TENANT_ID
from tests.sandbox.sharepoint.client import CREDENTIALS, SITE, Graph

if TYPE_CHECKING:
    from tests.sandbox.sharepoint.conftest import Open

TOKEN = f"/{TENANT_ID}/oauth2/v2.0/token"


def assertion(expires: float) -> str:
    """A client assertion, unsigned."""
    payload = base64.urlsafe_b64encode(msgspec.json.encode({"exp": int(expires)})).decode().rstrip("=")
    return f"e30.{payload}.signature"


async def test_client_credentials_give_a_bearer_token(graph: Graph) -> None:
    reply = await graph.post_form(TOKEN, CREDENTIALS)
    assert reply.status == 200
    assert reply.json["token_type"] == "Bearer"
    assert reply.json["expires_in"] == reply.json["ext_expires_in"] == 3599


async def test_unknown_form_fields_are_ignored(graph: Graph) -> None:
    more = CREDENTIALS | {"claims": '{"access_token":{"xms_cc":{"values":["CP1"]}}}', "client_info": "1"}
    assert (await graph.post_form(TOKEN, more)).status == 200


async def test_a_client_assertion_is_a_credential_while_it_lasts(graph: Graph) -> None:
    form = {key: value for key, value in CREDENTIALS.items() if key != "client_secret"}
    form["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    good = await graph.post_form(TOKEN, form | {"client_assertion": assertion(time.time() + 60)})
    late = await graph.post_form(TOKEN, form | {"client_assertion": assertion(time.time() - 60)})
    broken = await graph.post_form(TOKEN, form | {"client_assertion": "nothing"})
    assert (good.status, late.status, broken.status) == (200, 401, 401)
    assert late.json["error_codes"] == [700024]


@pytest.mark.parametrize(
    ("changed", "status", "error", "number"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client", 7000215),
        ({"client_secret": ""}, 401, "invalid_client", 7000218),
        ({"client_id": "11111111-1111-1111-1111-111111111111"}, 400, "unauthorized_client", 700016),
        ({"scope": "user.read"}, 400, "invalid_scope", 1002012),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", 70003),
        ({"grant_type": ""}, 400, "invalid_request", 900144),
    ],
)
async def test_what_is_wrong_with_a_request_is_said_as_entra_says_it(
    graph: Graph, changed: dict[str, str], status: int, error: str, number: int
) -> None:
    reply = await graph.post_form(TOKEN, CREDENTIALS | changed)
    assert (reply.status, reply.json["error"], reply.json["error_codes"]) == (status, error, [number])
    assert reply.json["error_description"].startswith(f"AADSTS{number}: ")
    assert reply.json["trace_id"] in reply.json["error_description"]


async def test_an_unknown_tenant_is_named(graph: Graph) -> None:
    reply = await graph.post_form("/elsewhere/oauth2/v2.0/token", CREDENTIALS)
    assert (reply.status, reply.json["error_codes"]) == (400, [90002])


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer x.y.z", "Bearer nonsense", "Basic eDp5"])
async def test_without_a_good_token_everything_is_401(graph: Graph, authorization: str) -> None:
    reply = await graph.get(SITE, headers={"Authorization": authorization})
    assert (reply.status, reply.code) == (401, "InvalidAuthenticationToken")
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_token_with_changed_claims_is_refused(graph: Graph) -> None:
    head, payload, signature = graph.token.split(".")
    claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=="))
    forged = base64.urlsafe_b64encode(msgspec.json.encode(claims | {"exp": 2**40})).decode().rstrip("=")
    reply = await graph.get(SITE, headers={"Authorization": f"Bearer {head}.{forged}.{signature}"})
    assert reply.status == 401


async def test_an_expired_token_is_refused(open_graph: Open) -> None:
    async with open_graph(Options(token_seconds=0, tenant_mode=True)) as graph:
        reply = await graph.get(SITE)
        assert (reply.status, reply.code) == (401, "InvalidAuthenticationToken")


async def test_revoked_tokens_are_worthless_and_new_ones_are_not(graph: Graph) -> None:
    await graph.admin("POST", "/expire/tokens")
    assert (await graph.get(SITE)).status == 401
    await graph.sign_in()
    assert (await graph.get(SITE)).status == 200


async def test_a_token_outlives_a_restart(open_graph: Open) -> None:
    async with open_graph() as graph:
        token = graph.token
    async with open_graph() as graph:
        graph.token = token
        assert (await graph.get(SITE)).status == 200
