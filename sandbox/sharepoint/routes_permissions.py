"""Who may see the site: what an administrator does for an app that has ``Sites.Selected``.

Source: "Create permission", "List permissions" and "Delete permission" of the site resource.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sandbox.sharepoint.addressing import SiteTarget
from sandbox.sharepoint.errors import invalid
from sandbox.sharepoint.exchange import Answer, Routes
from sandbox.sharepoint.grants import Grant, Role

if TYPE_CHECKING:
    from sandbox.sharepoint.exchange import Call
    from sandbox.sharepoint.model import JsonObject


class _App(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    id: str
    display_name: str = ""


class _Identity(msgspec.Struct, frozen=True, kw_only=True):
    application: _App


class _Order(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    roles: tuple[Role, ...]
    granted_to_identities: tuple[_Identity, ...]


async def create(call: Call) -> Answer:
    """Let an app read or write the site."""
    _check(call)
    try:
        order = msgspec.convert(await call.json(), _Order)
    except msgspec.ValidationError as error:
        raise invalid(f"The permission cannot be read: {error}") from None
    if len(order.granted_to_identities) != 1 or not order.roles:
        raise invalid("A permission names one application and one role or more.")
    app = order.granted_to_identities[0].application
    grant = Grant(app=app.id, roles=order.roles, name=app.display_name)
    call.service.grants.add(grant)
    return Answer(201, {"@odata.context": call.show.context("sites/permissions/$entity"), **_shown(grant)})


async def list_all(call: Call) -> Answer:
    """The apps that were granted the site."""
    _check(call)
    grants = [_shown(grant) for grant in call.service.grants.all()]
    return Answer(body={"@odata.context": call.show.context("sites/permissions"), "value": grants})


async def delete(call: Call) -> Answer:
    """Take a grant away."""
    _check(call)
    call.service.grants.take(call.address.action.partition("/")[2])
    return Answer(204)


def _check(call: Call) -> None:
    service = call.service
    service.grants.check_administrator(service.tokens.check(call.headers.get("Authorization")))


def _shown(grant: Grant) -> JsonObject:
    identity = {"application": {"id": grant.app, "displayName": grant.name}}
    return {
        "id": grant.id,
        "roles": list(grant.roles),
        "grantedToIdentitiesV2": [identity],
        "grantedToIdentities": [identity],
    }


ROUTES: Routes = {
    (SiteTarget, "permissions"): {"GET": list_all, "POST": create},
    (SiteTarget, "permissions/"): {"DELETE": delete},
}
