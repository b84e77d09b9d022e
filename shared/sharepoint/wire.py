"""Describes the part of Microsoft Graph's JSON that we read. Other properties are ignored."""

from __future__ import annotations

from typing import Any

import msgspec


class Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A Graph resource: names in camelCase, null where nothing is known."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a collection; its members are decoded later, as what they are."""

    value: list[msgspec.Raw]
    next_link: str | None = msgspec.field(name="@odata.nextLink", default=None)
    delta_link: str | None = msgspec.field(name="@odata.deltaLink", default=None)


class Site(Wire, frozen=True, kw_only=True):
    """https://learn.microsoft.com/graph/api/resources/site."""

    id: str
    display_name: str | None = None
    web_url: str = ""


class ListFacet(Wire, frozen=True, kw_only=True):
    hidden: bool = False
    template: str | None = None


class SiteList(Wire, frozen=True, kw_only=True):
    """https://learn.microsoft.com/graph/api/resources/list. `name` is the last part of its address."""

    id: str
    name: str | None = None
    display_name: str | None = None
    web_url: str | None = None
    list: ListFacet | None = None


class Drive(Wire, frozen=True, kw_only=True):
    """https://learn.microsoft.com/graph/api/resources/drive."""

    id: str
    name: str | None = None
    web_url: str | None = None


class TextFacet(Wire, frozen=True, kw_only=True):
    allow_multiple_lines: bool | None = None
    max_length: int | None = None
    text_type: str | None = None


class ChoiceFacet(Wire, frozen=True, kw_only=True):
    allow_text_entry: bool | None = None
    choices: list[str] | None = None
    display_as: str | None = None


class NumberFacet(Wire, frozen=True, kw_only=True):
    display_as: str | None = None
    minimum: float | None = None
    maximum: float | None = None


class DateTimeFacet(Wire, frozen=True, kw_only=True):
    format: str | None = None


class DefaultValue(Wire, frozen=True, kw_only=True):
    value: str | None = None


class ColumnDefinition(Wire, frozen=True, kw_only=True):
    """https://learn.microsoft.com/graph/api/resources/columndefinition: one facet names its kind."""

    name: str
    display_name: str | None = None
    description: str | None = None
    hidden: bool | None = None
    read_only: bool | None = None
    required: bool | None = None
    enforce_unique_values: bool | None = None
    default_value: DefaultValue | None = None
    text: TextFacet | None = None
    choice: ChoiceFacet | None = None
    number: NumberFacet | None = None
    currency: dict[str, Any] | None = None
    date_time: DateTimeFacet | None = None
    boolean: dict[str, Any] | None = None
    lookup: dict[str, Any] | None = None
    person_or_group: dict[str, Any] | None = None
    calculated: dict[str, Any] | None = None
    geolocation: dict[str, Any] | None = None
    hyperlink_or_picture: dict[str, Any] | None = None
    term: dict[str, Any] | None = None
    thumbnail: dict[str, Any] | None = None
    content_approval_status: dict[str, Any] | None = None


class Hashes(Wire, frozen=True, kw_only=True):
    quick_xor_hash: str | None = None


class FileFacet(Wire, frozen=True, kw_only=True):
    hashes: Hashes | None = None
    mime_type: str | None = None


class IdentitySet(Wire, frozen=True, kw_only=True):
    """Who did it; an app acting for itself is an application without a user."""

    user: dict[str, Any] | None = None
    application: dict[str, Any] | None = None

    @property
    def app_id(self) -> str | None:
        """Return the id of the application, if one did it."""
        found = (self.application or {}).get("id")
        return found if isinstance(found, str) else None


class Publication(Wire, frozen=True, kw_only=True):
    """https://learn.microsoft.com/graph/api/resources/publicationfacet."""

    level: str | None = None
    version_id: str | None = None
    checked_out_by: IdentitySet | None = None


class ListItem(Wire, frozen=True, kw_only=True):
    """https://learn.microsoft.com/graph/api/resources/listitem, with its fields expanded."""

    id: str | None = None
    e_tag: str | None = None
    odata_etag: str | None = msgspec.field(name="@odata.etag", default=None)
    fields: dict[str, Any] = {}


class ListItemVersion(Wire, frozen=True, kw_only=True):
    """https://learn.microsoft.com/graph/api/resources/listitemversion, with its fields expanded."""

    id: str = ""
    last_modified_by: IdentitySet = IdentitySet()
    fields: dict[str, Any] = {}


class ParentReference(Wire, frozen=True, kw_only=True):
    drive_id: str | None = None
    path: str | None = None


class DriveItem(Wire, frozen=True, kw_only=True):
    """https://learn.microsoft.com/graph/api/resources/driveitem."""

    id: str
    name: str = ""
    size: int = 0
    web_url: str = ""
    e_tag: str = ""
    c_tag: str = ""
    file: FileFacet | None = None
    folder: dict[str, Any] | None = None
    deleted: dict[str, Any] | None = None
    created_by: IdentitySet | None = None
    last_modified_by: IdentitySet | None = None
    publication: Publication | None = None
    parent_reference: ParentReference | None = None
    list_item: ListItem | None = None


class UploadSession(Wire, frozen=True, kw_only=True):
    """https://learn.microsoft.com/graph/api/resources/uploadsession."""

    upload_url: str
    expiration_date_time: str = ""
    next_expected_ranges: list[str] = []


class UploadStatus(Wire, frozen=True, kw_only=True):
    """Answers a chunk or a question about the session: ``"327680-"`` is still wanted."""

    expiration_date_time: str = ""
    next_expected_ranges: list[str] = []


class FieldValueSet(Wire, frozen=True, kw_only=True):
    """The answer to a written field; the values themselves are read back with the item."""

    odata_etag: str | None = msgspec.field(name="@odata.etag", default=None)
    version: str | None = msgspec.field(name="_UIVersionString", default=None)
    """``1.0``, or ``0.2`` for a draft."""
