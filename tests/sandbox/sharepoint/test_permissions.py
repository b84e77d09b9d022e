"""The tenant that grants nothing by itself, and how an administrator grants, looks and takes away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sandbox.sharepoint.app import Options
from sandbox.sharepoint.shipped import SITE_ID
from sandbox.sharepoint.tokens import CLIENT_ID
from tests.sandbox.sharepoint.client import LIBRARY, SITE, Graph, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.sandbox.sharepoint.conftest import Open

BY_PATH = SITE + ":/permissions"
BY_ID = f"/sites/{SITE_ID}/permissions"
TENANT = Options(tenant_mode=True)


@pytest.fixture
async def tenant(open_graph: Open) -> AsyncIterator[Graph]:
    """A tenant that has granted the site to nobody."""
    async with open_graph(TENANT) as graph:
        yield graph


async def ask(graph: Graph, method: str, path: str, json: object = None) -> Reply:
    """A request of the administrator's."""
    headers = {"Authorization": f"Bearer {graph.administrator}"}
    return await graph.call(method, path, json=json, headers=headers)


def order(*roles: str, app: str = CLIENT_ID) -> dict[str, Any]:
    """The body that Graph documents."""
    identity = {"application": {"id": app, "displayName": "Erni Foto Agency"}}
    return {"roles": list(roles), "grantedToIdentities": [identity]}


async def test_sites_selected_opens_nothing_until_the_site_is_granted(tenant: Graph) -> None:
    refused = await tenant.get(SITE)
    assert (refused.status, refused.code) == (403, "accessDenied")

    assert (await ask(tenant, "POST", BY_PATH, order("read"))).status == 201
    await tenant.use_library()
    assert (await tenant.upload("a.jpg")).status == 403

    assert (await ask(tenant, "POST", BY_PATH, order("write"))).status == 201
    assert (await tenant.upload("a.jpg")).status == 201


async def test_a_grant_is_listed_and_taken_away(tenant: Graph) -> None:
    made = await ask(tenant, "POST", BY_ID, order("write"))
    identity = {"application": {"id": CLIENT_ID, "displayName": "Erni Foto Agency"}}
    assert made.json["roles"] == ["write"]
    assert made.json["grantedToIdentitiesV2"] == [identity]

    [listed] = (await ask(tenant, "GET", BY_PATH)).json["value"]
    assert listed == {key: value for key, value in made.json.items() if key != "@odata.context"}

    assert (await ask(tenant, "DELETE", f"{BY_ID}/{listed['id']}")).status == 204
    assert (await tenant.get(LIBRARY)).status == 403
    assert (await ask(tenant, "GET", BY_ID)).json["value"] == []
    assert (await ask(tenant, "DELETE", f"{BY_PATH}/{listed['id']}")).status == 404


async def test_granting_again_changes_the_grant(tenant: Graph) -> None:
    first = await ask(tenant, "POST", BY_PATH, order("write"))
    again = await ask(tenant, "POST", BY_PATH, order("read"))
    assert first.json["id"] == again.json["id"]
    [listed] = (await ask(tenant, "GET", BY_PATH)).json["value"]
    assert listed["roles"] == ["read"]


async def test_another_apps_grant_is_none_of_ours(tenant: Graph) -> None:
    await ask(tenant, "POST", BY_PATH, order("fullcontrol", app="11111111-1111-1111-1111-111111111111"))
    assert (await tenant.get(SITE)).status == 403


async def test_an_app_cannot_grant_itself_anything(tenant: Graph) -> None:
    refused = await tenant.call("POST", BY_PATH, json=order("write"))
    assert (refused.status, refused.code) == (403, "accessDenied")
    await ask(tenant, "POST", BY_PATH, order("write"))
    for method, path in (("POST", BY_PATH), ("GET", BY_ID), ("DELETE", f"{BY_ID}/x")):
        assert (await tenant.call(method, path, json=order("owner"))).status == 403


async def test_nor_does_one_that_may_write_every_site(graph: Graph) -> None:
    assert (await graph.call("POST", BY_PATH, json=order("write"))).status == 403
    assert (await ask(graph, "GET", BY_PATH)).status == 200


@pytest.mark.parametrize(
    "body", [{}, order("manage"), order(), {"roles": ["write"]}, order("write") | {"grantedToIdentities": []}]
)
async def test_an_order_that_cannot_be_read_is_refused(tenant: Graph, body: object) -> None:
    reply = await ask(tenant, "POST", BY_PATH, body)
    assert (reply.status, reply.code) == (400, "invalidRequest")
    assert (await ask(tenant, "GET", BY_PATH)).json["value"] == []


async def test_a_grant_outlives_a_restart(open_graph: Open) -> None:
    async with open_graph(TENANT) as graph:
        await ask(graph, "POST", BY_PATH, order("write"))
        await graph.use_library()
        await graph.call("DELETE", (await _inbox(graph))[0])
    async with open_graph(TENANT) as graph:
        assert (await graph.get(SITE)).status == 200
        assert len(await _inbox(graph)) == 2  # and what was taken from the library does not come back


async def test_it_has_a_library_to_publish_from(tenant: Graph) -> None:
    await ask(tenant, "POST", BY_PATH, order("read"))
    assert len(await _inbox(tenant)) == 3


async def _inbox(graph: Graph) -> list[str]:
    """The photos in the library Eingang, by their addresses."""
    drive = (await graph.get(SITE + ":/lists/Eingang/drive")).json["id"]
    photos = (await graph.get(f"/drives/{drive}/root/children")).json["value"]
    assert all(photo["photo"]["takenDateTime"] and photo["image"]["width"] == 1200 for photo in photos)
    return [f"/drives/{drive}/items/{photo['id']}" for photo in photos]
