"""Which app may do what on the site: the permissions that ``Sites.Selected`` waits for."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from sandbox.sharepoint.errors import denied, not_found
from sandbox.sharepoint.tokens import TENANT_ID

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.sharepoint.tokens import Claims

Role: TypeAlias = Literal["read", "write", "owner", "fullcontrol"]
SELECTED: Final = "Sites.Selected"
ALL: Final = "Sites.ReadWrite.All"
FULL: Final = "Sites.FullControl.All"
"""What may read and write everything, and alone may grant."""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What one app may do on the site."""

    app: str
    roles: tuple[Role, ...]
    name: str = ""

    @property
    def id(self) -> str:
        """The permission's id, made of the app's as SharePoint does it: granting again changes the grant."""
        identity = f"i:0i.t|ms.sp.ext|{self.app}@{TENANT_ID}"
        return base64.urlsafe_b64encode(identity.encode()).decode().rstrip("=")


class Grants:
    """Grants by the permission's id, kept in a file."""

    def __init__(self, state: Path) -> None:
        self._path = state / "permissions.json"
        self._grants: dict[str, Grant] = {}
        if self._path.exists():
            self._grants = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Grant])

    def add(self, grant: Grant) -> None:
        """Let an app read or write the site."""
        self._grants[grant.id] = grant
        self._save()

    def take(self, permission: str) -> None:
        """Take a grant away. Raises GraphError 404."""
        if self._grants.pop(permission, None) is None:
            raise not_found("The permission could not be found.")
        self._save()

    def all(self) -> list[Grant]:
        """The grants there are."""
        return list(self._grants.values())

    def check(self, claims: Claims, *, writes: bool) -> None:
        """Whether a token may read or write the site. Raises GraphError 403."""
        if ALL in claims.roles or FULL in claims.roles:
            return
        granted = next((grant for grant in self._grants.values() if grant.app == claims.appid), None)
        if SELECTED not in claims.roles or granted is None or (writes and granted.roles == ("read",)):
            raise denied()

    @staticmethod
    def check_administrator(claims: Claims) -> None:
        """Whether a token may see and change grants. Raises GraphError 403."""
        if FULL not in claims.roles:
            raise denied()

    def _save(self) -> None:
        new = self._path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(self._grants))
        new.replace(self._path)
