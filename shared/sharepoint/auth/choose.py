"""The way to sign in that AZURE_CREDENTIAL names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.retry.errors import PermanentError
from shared.sharepoint.auth.client_secret import ClientSecret

if TYPE_CHECKING:
    import aiohttp

    from shared.settings import Settings
    from shared.sharepoint.auth.contract import Grants


def grants(settings: Settings, session: aiohttp.ClientSession) -> Grants:
    """What AZURE_CREDENTIAL asks for. Raises PermanentError naming what is not set, or cannot be used."""
    needed = {
        "secret": ("azure_tenant_id", "azure_client_id", "azure_client_secret"),
        "certificate": ("azure_tenant_id", "azure_client_id", "azure_certificate_path"),
        "workload": ("azure_tenant_id", "azure_client_id"),
        "managed": (),
    }[settings.azure_credential]
    missing = [name.upper() for name in needed if not getattr(settings, name)]
    if missing and settings.azure_credential == "workload":
        raise PermanentError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set, which the platform does"
            " for a workload identity: check the pod's label azure.workload.identity/use and its service"
            " account"
        )
    if missing:
        raise PermanentError(
            f"SharePoint cannot be reached: set {', '.join(missing)}"
            f" (AZURE_CREDENTIAL is {settings.azure_credential})"
        )
    if settings.azure_credential == "secret":
        return ClientSecret(settings, session)
    from shared.sharepoint.auth.azure_identity import AzureIdentity

    return AzureIdentity(settings)
