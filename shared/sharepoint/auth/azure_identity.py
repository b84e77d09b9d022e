"""Signing in through azure-identity (the extra ``[azure]``): certificate, workload or managed identity."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shared.retry.errors import PermanentError, TransientError
from shared.sharepoint.answers import entra_advice, shorten
from shared.sharepoint.auth.contract import Grant, authority, scope

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

    from shared.settings import Settings

_CONNECT_SECONDS: Final = 10.0
_READ_SECONDS: Final = 15.0
_WITH: Final = {
    "certificate": "the certificate",
    "workload": "the workload identity",
    "managed": "the managed identity",
}


class AzureIdentity:
    """A credential of azure-identity. Raises PermanentError for what is wrong before anybody is asked."""

    def __init__(self, settings: Settings, **transport: Any) -> None:
        """`transport` goes to azure-core as it is (a private certificate authority, say)."""
        try:
            from azure import identity
        except ImportError:
            raise PermanentError(
                f"AZURE_CREDENTIAL={settings.azure_credential} needs azure-identity:"
                " pip install 'erni-foto-agency[azure]'"
            ) from None
        # It logs each failure before it raises it; we log what it raises, once.
        logging.getLogger(identity.__name__).setLevel(logging.CRITICAL)
        self._settings = settings
        self._doing = f"signing in to SharePoint with {_WITH[settings.azure_credential]}"
        # The delivery engine decides about attempts and waits, as for every call of ours.
        self._transport: dict[str, Any] = {
            "connection_timeout": _CONNECT_SECONDS,
            "read_timeout": _READ_SECONDS,
            **transport,
            "retry_total": 0,
        }
        self._credential()

    async def fetch(self) -> Grant:
        """A new token. Whatever is wrong concerns every photo alike: a TransientError, as in `ClientSecret`.

        Through a new credential each time: the cache of an old one would return the token that Graph has
        just refused, and a renewed certificate would not be read.
        """
        from azure.core.exceptions import AzureError

        try:
            async with self._credential() as credential:
                token = await credential.get_token(scope(self._settings))
        except (AzureError, ValueError, KeyError, TypeError) as error:
            raise TransientError(f"{self._doing}: {self._trouble(error)}") from error
        except OSError as error:
            if error.filename is None:
                raise
            # The only file that is read as late as this.
            raise TransientError(
                f"{self._doing}: the token {error.filename} cannot be read ({error.strerror}):"
                " the platform should have put it there, check AZURE_FEDERATED_TOKEN_FILE"
            ) from error
        except PermanentError as error:
            raise TransientError(f"{self._doing}: {error}") from error
        return Grant(access_token=token.token, expires_in=token.expires_on - time.time())

    async def close(self) -> None:
        """Nothing: no connection is kept."""

    def _credential(self) -> AsyncTokenCredential:
        """Raises PermanentError for a certificate, an address or a setting that cannot be used."""
        from azure.identity import aio

        settings = self._settings
        if settings.azure_credential == "managed":
            return aio.ManagedIdentityCredential(
                client_id=settings.azure_client_id or None, **self._transport
            )
        tenant, client, where = settings.azure_tenant_id, settings.azure_client_id, authority(settings)
        certificate = _certificate(settings) if settings.azure_credential == "certificate" else b""
        if not where.startswith("https://"):
            raise PermanentError(
                f"AZURE_AUTHORITY={where[:80]!r} must be an https address: azure-identity takes no other"
            )
        try:
            if settings.azure_credential == "workload":
                if not os.environ.get("AZURE_FEDERATED_TOKEN_FILE"):
                    raise PermanentError(
                        "AZURE_FEDERATED_TOKEN_FILE is not set, which the platform does for a workload"
                        " identity: check the pod's label azure.workload.identity/use and its service account"
                    )
                return aio.WorkloadIdentityCredential(
                    tenant_id=tenant, client_id=client, authority=where, **self._transport
                )
            return aio.CertificateCredential(
                tenant,
                client,
                certificate_data=certificate,
                password=str.__str__(settings.azure_certificate_password) or None,
                authority=where,
                **self._transport,
            )
        except (ValueError, TypeError) as error:
            about = "the workload identity cannot be used"
            advice = "check AZURE_TENANT_ID and AZURE_CLIENT_ID"
            if settings.azure_credential == "certificate":
                about = f"the certificate {settings.azure_certificate_path} cannot be used"
                advice = (
                    "it must be PEM or PKCS#12 with its key, AZURE_CERTIFICATE_PASSWORD the password it has"
                )
            raise PermanentError(f"{about} ({_said(error)}): {advice}") from error

    def _trouble(self, error: Exception) -> str:
        """What came back, or that nothing did, and what to do."""
        said, managed = _said(error), self._settings.azure_credential == "managed"
        if not _answered(error):
            if managed:
                return f"no managed identity answers on this machine ({said}); {_MANAGED}"
            where = authority(self._settings)
            return f"{where} does not answer ({said}): check AZURE_AUTHORITY and the network"
        return f"{said}; {entra_advice(said) or (_MANAGED if managed else _ENTRA)}"


def _answered(error: Exception) -> bool:
    from azure.core.exceptions import (
        DecodeError,
        HttpResponseError,
        ServiceRequestError,
        ServiceResponseError,
    )
    from azure.identity import CredentialUnavailableError

    # "Unavailable" is what it calls a virtual machine's endpoint that refuses, one that is not there, and
    # somebody else in its place, such as a proxy.
    if isinstance(error, CredentialUnavailableError):
        cause = error.__cause__
        return isinstance(cause, HttpResponseError) and not isinstance(cause, DecodeError)
    return not isinstance(error, (ServiceRequestError, ServiceResponseError))


_ENTRA: Final = (
    "check AZURE_TENANT_ID, AZURE_CLIENT_ID and what the app registration lists as its credentials"
)
_MANAGED: Final = (
    "AZURE_CREDENTIAL=managed works on an Azure machine or service that has an identity;"
    " AZURE_CLIENT_ID is the client id of a user-assigned one, and empty for the machine's own"
)


def _certificate(settings: Settings) -> bytes:
    """The certificate's file. Raises PermanentError for what can be seen before a key is read from it."""
    path = settings.azure_certificate_path
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise PermanentError(
            f"the certificate {path} cannot be read ({error.strerror}): check AZURE_CERTIFICATE_PATH"
        ) from error
    if b"-----BEGIN" in data:
        for mark, what in ((b"PRIVATE KEY-----", "private key"), (b"BEGIN CERTIFICATE-----", "certificate")):
            if mark not in data:
                raise PermanentError(
                    f"the certificate {path} holds no {what}: AZURE_CERTIFICATE_PATH takes one file with"
                    " certificate and key"
                )
        if b"ENCRYPTED" in data and not settings.azure_certificate_password:
            raise PermanentError(
                f"the key in the certificate {path} has a password: set AZURE_CERTIFICATE_PASSWORD"
            )
    return data


def _said(error: Exception) -> str:
    """azure-identity's own words, without its advice to look at a page."""
    return shorten((str(error).strip() or type(error).__name__).splitlines()[0]).rstrip(".")
