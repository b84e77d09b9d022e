"""Which app may do what on the site: the permissions that ``Sites.Selected`` waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from shared.local.graph.errors import denied

if TYPE_CHECKING:
    from pathlib import Path

    from shared.local.graph.tokens import Claims

Role: TypeAlias = Literal["read", "write", "manage", "fullcontrol"]
SELECTED: Final = "Sites.Selected"
ALL: Final = "Sites.ReadWrite.All"


class Grants:
    """Grants by app id, kept in a file."""

    def __init__(self, state: Path) -> None:
        self._path = state / "grants.json"
        self._roles: dict[str, Role] = {}
        if self._path.exists():
            self._roles = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Role])

    def give(self, app: str, role: Role) -> None:
        """Let an app read or write the site."""
        self._roles[app] = role
        self._save()

    def take(self, app: str) -> bool:
        """Take an app's grant away; whether there was one."""
        had = self._roles.pop(app, None) is not None
        self._save()
        return had

    def all(self) -> dict[str, Role]:
        """Roles by app id."""
        return dict(self._roles)

    def check(self, claims: Claims, *, writes: bool) -> None:
        """Whether a token may read or write the site. Raises GraphError 403."""
        if ALL in claims.roles:
            return
        role = self._roles.get(claims.appid) if SELECTED in claims.roles else None
        if role is None or (writes and role == "read"):
            raise denied()

    def _save(self) -> None:
        new = self._path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(self._roles))
        new.replace(self._path)
