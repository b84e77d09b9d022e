"""Signs notices as Standard Webhooks 1.0.0 says.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, § Signature scheme
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if TYPE_CHECKING:
    from collections.abc import Iterable

SYMMETRIC: Final = "whsec_"
PRIVATE: Final = "whsk_"
PUBLIC: Final = "whpk_"
_SECRET_BYTES: Final = 32
"""The specification asks for 24 to 64."""


def new_secret() -> str:
    """Return a new secret for `v1` (HMAC-SHA256)."""
    return SYMMETRIC + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def new_private_key() -> str:
    """Return a new private key for `v1a` (ed25519)."""
    return PRIVATE + base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode()


def public_key(private: str) -> str:
    """Return the public key of a private one, which receivers verify with."""
    return PUBLIC + base64.b64encode(_private(private).public_key().public_bytes_raw()).decode()


def header(keys: Iterable[str], *, message_id: str, timestamp: int, body: bytes) -> str:
    """Return ``webhook-signature``: a signature by each key, apart by spaces.

    `timestamp`: Unix seconds, as ``webhook-timestamp`` has it; `body`: the bytes that are posted.
    """
    content = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    return " ".join(_signed(key, content) for key in keys)


def _signed(key: str, content: bytes) -> str:
    if key.startswith(PRIVATE):
        return "v1a," + base64.b64encode(_private(key).sign(content)).decode()
    raw = base64.b64decode(key.removeprefix(SYMMETRIC))
    return "v1," + base64.b64encode(hmac.new(raw, content, hashlib.sha256).digest()).decode()


def _private(key: str) -> Ed25519PrivateKey:
    # a key of 64 bytes is the seed and the public key behind it, as libsodium writes it
    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(key.removeprefix(PRIVATE))[:32])
