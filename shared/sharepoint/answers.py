"""Turns a refusal of Graph's into one sentence and one exception.

Bodies are written ``{"error": {"code", "message", "innerError": {"code", …}}}``, also with
``innererror``, with codes nested to any depth; the sign-in endpoint writes
``{"error", "error_description"}``. The message decides only where codes say too
little: the advice depends on the number that Entra ID writes into it, and a 409 about a name that is taken
has the same code as one about an upload that is under way.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from shared.retry.errors import HttpStatusError
from shared.retry.retry_after import retry_after

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST_MESSAGE: Final = 300
_DEEPEST: Final = 8

_WAIT: Final = "wait, photos go on by themselves; the service health page of Microsoft 365 says more"
_WHAT_TO_DO: Final[Mapping[int, str]] = {
    401: "it does not take our token: check AZURE_TENANT_ID, and GRAPH_URL if this is a national cloud, and"
    " start the agents again",
    403: "grant the app write access to this site (Sites.Selected, role write)",
    404: "it may be renamed, moved or deleted, or this app may not see it: check the site and the library",
    413: "the file is larger than SharePoint accepts here",
    423: "somebody has the file checked out or open: it can be written when they have finished",
    429: "SharePoint is throttling this app: wait",
    500: _WAIT,
    502: _WAIT,
    503: _WAIT,
    504: _WAIT,
    507: "the site's storage quota is used up: make room or raise it",
}

_NO_TENANT: Final = (
    "AZURE_TENANT_ID names no tenant of this cloud: copy the Directory (tenant) ID from the app's overview"
)
_NOT_FEDERATED: Final = (
    "the app trusts no such workload: its federated credential must name the issuer, subject"
    " (system:serviceaccount:NAMESPACE:NAME) and audience of the token"
)
_AADSTS: Final[Mapping[int, str]] = {
    70021: _NOT_FEDERATED,
    90002: _NO_TENANT,
    700016: "AZURE_CLIENT_ID is no app of this tenant: copy the Application (client) ID from the app's"
    " overview, and check AZURE_TENANT_ID",
    700024: "the assertion has ended or is not valid yet: check this machine's clock, and that the federated"
    " token is renewed",
    700027: "the certificate is not one of the app's: upload it under Certificates & secrets",
    700211: _NOT_FEDERATED,
    700212: _NOT_FEDERATED,
    700213: _NOT_FEDERATED,
    900023: _NO_TENANT,
    7000215: "AZURE_CLIENT_SECRET is no secret of this app: set the secret's value, not its id",
    7000222: "the client secret has expired: make a new one under Certificates & secrets and set"
    " AZURE_CLIENT_SECRET to its value",
}
"""Source: "Microsoft Entra authentication and authorization error codes"."""


class GraphError(HttpStatusError):
    """Graph answered with an error. Holds every code of the answer's body."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        retry_after: float | None = None,
        codes: tuple[str, ...] = (),
        location: str | None = None,
        reason: str = "",
    ) -> None:
        """`codes`: the outermost first. `location`: where a listing starts again after a 410."""
        super().__init__(message, status=status, retry_after=retry_after, code=codes[0] if codes else None)
        self.codes = codes
        self.location = location
        self.reason = reason


def error_of(
    doing: str, status: int, headers: Mapping[str, str], body: bytes, *, advice: str | None = None
) -> GraphError:
    """Make the exception for an answer. `doing` begins its sentence: ``reading the columns of Photos``.

    `advice`: what to do if the answer itself has no better hint.
    """
    codes, message = _read(body)
    words = " ".join(part for part in ("/".join(codes), f"({message})" if message else "") if part)
    sentence = f"{doing}: SharePoint answered {status}{' ' + words if words else ''}"
    if advice := entra_advice(message) or advice or _WHAT_TO_DO.get(status):
        sentence += f"; {advice}"
    if request_id := headers.get("request-id"):
        sentence += f" [request-id {request_id}]"
    return GraphError(
        sentence,
        status=status,
        retry_after=retry_after(headers),
        codes=codes,
        location=headers.get("Location"),
        reason=message,
    )


def is_being_uploaded(error: GraphError) -> bool:
    """Return whether a 409 is about an upload session that is open, and not about a file that is there.

    Sources of the two sentences: microsoft-graph-docs-contrib issues 412 and 6558.
    """
    said = error.reason.casefold()
    return error.status == 409 and ("being uploaded" in said or "upload session already exists" in said)


def entra_advice(message: str) -> str | None:
    """Find out what to do about a refusal of Entra ID, by the AADSTS number in its message."""
    number = re.search(r"\bAADSTS(\d{4,9})\b", message)
    return _AADSTS.get(int(number[1])) if number else None


def _read(body: bytes) -> tuple[tuple[str, ...], str]:
    """Read the codes, outermost first, and the message. Both are empty if it is no error of Graph."""
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return (), ""
    error = document.get("error") if isinstance(document, dict) else None
    if isinstance(error, str):
        return (error,), shorten(document.get("error_description"))
    if not isinstance(error, dict):
        return (), ""
    codes: list[str] = []
    level: Any = error
    for _ in range(_DEEPEST):
        if not isinstance(level, dict):
            break
        code = level.get("code")
        if isinstance(code, str) and code and code not in codes:
            codes.append(code)
        level = level.get("innerError", level.get("innererror"))
    return tuple(codes), shorten(error.get("message"))


def shorten(message: object) -> str:
    """Cut a message to its first sentences and remove the queries of its addresses: they may hold tokens."""
    if not isinstance(message, str):
        return ""
    line = " ".join(message.split())
    line = re.sub(r"(https?://[^\s?#\"']*)[?#][^\s\"']*", r"\1", line)
    return line if len(line) <= _LONGEST_MESSAGE else line[:_LONGEST_MESSAGE] + "…"
