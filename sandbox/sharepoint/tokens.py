"""The token endpoint: client credentials against a fixed local tenant, with Entra's answers.

Tokens are signed texts, so they outlive a restart of the emulator. Errors are those of Entra ID: an OAuth
error with an AADSTS number in its description.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
import uuid
from typing import TYPE_CHECKING, Final

import msgspec

from sandbox.sharepoint.errors import GraphError
from sandbox.sharepoint.model import JsonObject, stable_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TENANT_ID: Final = stable_id("tenant")
CLIENT_ID: Final = stable_id("client")
ADMINISTRATOR_ID: Final = stable_id("administrator")
CLIENT_SECRET: Final = "local-only-secret"
"""Opens nothing but this emulator."""
SCOPE: Final = "https://graph.microsoft.com/.default"
LIFETIME: Final = 3599
"""Seconds; the lifetime that Entra ID grants."""
_ADMINISTRATORS_LIFETIME: Final = 24 * 3600
"""Seconds; longer than Entra's, as it is given at the start."""

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the claims of a token."""

    aud: str
    appid: str
    tid: str
    roles: tuple[str, ...]
    iat: int
    exp: int
    generation: int = 0
    """Raised by an administrator to make all tokens given so far worthless."""


class TokenRefusal(Exception):  # noqa: N818  Entra's answer, not a failure of ours
    """An OAuth error answer."""

    def __init__(self, status: int, error: str, number: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.error = error
        self.number = number

    def body(self, correlation_id: str) -> JsonObject:
        """The JSON that Entra sends."""
        trace_id = str(uuid.uuid4())
        moment = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
        return {
            "error": self.error,
            "error_description": f"AADSTS{self.number}: {self} Trace ID: {trace_id} "
            f"Correlation ID: {correlation_id} Timestamp: {moment}",
            "error_codes": [self.number],
            "timestamp": moment,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
        }


class Tokens:
    """Issues and checks tokens."""

    def __init__(self, state: Path, *, roles: tuple[str, ...], lifetime: int = LIFETIME) -> None:
        """`state`: the folder the signing key is kept in. `roles`: what the local client was consented."""
        self._roles = roles
        self._lifetime = lifetime
        self._generation = 0
        key = state / "token.key"
        if not key.exists():
            key.write_bytes(secrets.token_bytes(32))
        self._key = key.read_bytes()

    def answer(self, tenant: str, form: Mapping[str, str]) -> JsonObject:
        """The token for a client credentials request; unknown fields are ignored. Raises TokenRefusal."""
        if tenant != TENANT_ID:
            raise TokenRefusal(
                400, "invalid_request", 90002, f"Tenant '{tenant}' not found. Check the tenant id."
            )
        grant = form.get("grant_type", "")
        if grant != "client_credentials":
            missing = "The request body must contain the following parameter: 'grant_type'."
            if not grant:
                raise TokenRefusal(400, "invalid_request", 900144, missing)
            raise TokenRefusal(
                400,
                "unsupported_grant_type",
                70003,
                f"The app requested an unsupported grant type '{grant}'.",
            )
        client = form.get("client_id", "")
        if client != CLIENT_ID:
            raise TokenRefusal(
                400,
                "unauthorized_client",
                700016,
                f"Application with identifier '{client}' was not found in the directory '{tenant}'.",
            )
        self._check_credential(form)
        scope = form.get("scope", "")
        if scope not in (SCOPE, SCOPE.replace("/.default", "//.default")):
            raise TokenRefusal(
                400, "invalid_scope", 1002012, f"The provided value for scope {scope} is not valid."
            )
        return {
            "token_type": "Bearer",
            "expires_in": self._lifetime,
            "ext_expires_in": self._lifetime,
            "access_token": self._issue(client, self._roles, self._lifetime),
        }

    def administrators(self, role: str) -> str:
        """A token of somebody who has `role` for the whole tenant."""
        return self._issue(ADMINISTRATOR_ID, (role,), _ADMINISTRATORS_LIFETIME)

    def revoke(self) -> None:
        """Make every token given so far worthless."""
        self._generation += 1

    def check(self, authorization: str | None) -> Claims:
        """The claims of an ``Authorization`` header. Raises GraphError 401."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _unauthenticated("Access token is empty.")
        try:
            head, payload, signature = token.split(".")
            if not hmac.compare_digest(signature, self._sign(f"{head}.{payload}")):
                raise _unauthenticated("Access token validation failure. Invalid signature.")
            claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=="), type=Claims)
        except (ValueError, msgspec.DecodeError):
            raise _unauthenticated("CompactToken parsing failed with error code: 80049217") from None
        if claims.exp <= time.time():
            raise _unauthenticated("Lifetime validation failed, the token is expired.")
        if claims.generation != self._generation:
            raise _unauthenticated(
                "Continuous access evaluation resulted in challenge: the token is revoked."
            )
        return claims

    def sign(self, text: str) -> str:
        """A signature for pre-authenticated addresses."""
        return self._sign(text)

    @staticmethod
    def _check_credential(form: Mapping[str, str]) -> None:
        if form.get("client_assertion_type") == _ASSERTION_TYPE:
            # The emulator knows no certificate: any unexpired signed assertion is one.
            try:
                payload = form.get("client_assertion", "").split(".")[1]
                claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=="), type=dict[str, object])
            except (ValueError, IndexError, msgspec.DecodeError):
                raise TokenRefusal(
                    401, "invalid_client", 50027, "JWT token is invalid or malformed."
                ) from None
            expires = claims.get("exp")
            if not isinstance(expires, int) or expires <= time.time():
                raise TokenRefusal(
                    401, "invalid_client", 700024, "Client assertion is not within its valid time range."
                )
            return
        if not form.get("client_secret"):
            raise TokenRefusal(
                401,
                "invalid_client",
                7000218,
                "The request body must contain the following parameter: 'client_assertion' or "
                "'client_secret'.",
            )
        if not hmac.compare_digest(form["client_secret"].encode(), CLIENT_SECRET.encode()):
            raise TokenRefusal(
                401,
                "invalid_client",
                7000215,
                "Invalid client secret provided. Ensure the secret being sent in the request is the client "
                f"secret value, not the client secret ID, for a secret added to app '{CLIENT_ID}'.",
            )

    def _issue(self, client: str, roles: tuple[str, ...], lifetime: int) -> str:
        now = int(time.time())
        claims = Claims(
            aud="https://graph.microsoft.com",
            appid=client,
            tid=TENANT_ID,
            roles=roles,
            iat=now,
            exp=now + lifetime,
            generation=self._generation,
        )
        head = _base64url(b'{"typ":"JWT","alg":"HS256"}')
        payload = _base64url(msgspec.json.encode(claims))
        return f"{head}.{payload}.{self._sign(f'{head}.{payload}')}"

    def _sign(self, text: str) -> str:
        return _base64url(hmac.new(self._key, text.encode(), hashlib.sha256).digest())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unauthenticated(message: str) -> GraphError:
    return GraphError(
        401,
        "InvalidAuthenticationToken",
        message,
        headers={
            "WWW-Authenticate": 'Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/'
            'oauth2/authorize", client_id="00000003-0000-0000-c000-000000000000"'
        },
    )
