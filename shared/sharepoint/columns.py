"""Reads a library's columns and describes them in our terms.

Graph v1.0 does not report the type of some columns (hyperlink, managed metadata, thumbnail …): they arrive
without a facet. Their kind is ``unsupported``; it is never guessed. SharePoint's own columns are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.columns.schema import Column
from shared.sharepoint.client import segment
from shared.sharepoint.wire import ColumnDefinition

if TYPE_CHECKING:
    from collections.abc import Iterable

    from events.types import LibraryRef
    from shared.columns.schema import ColumnKind
    from shared.sharepoint.client import GraphClient

# Graph lists hidden columns only if `hidden` is selected by name, and then every other property must be
# selected too. Facets that v1.0 never reports for a list's columns are not selected.
_SELECT: Final = (
    "id,name,displayName,description,hidden,readOnly,required,defaultValue,enforceUniqueValues,"
    "text,choice,number,currency,dateTime,boolean,lookup,personOrGroup,calculated,geolocation"
)

_SYSTEM: Final = frozenset(
    {
        "_CheckinComment", "_ColorHex", "_ColorTag", "_CommentCount", "_CommentFlags", "_ComplianceFlags",
        "_ComplianceTag", "_ComplianceTagUserId", "_ComplianceTagWrittenTime", "_CopySource", "_Dirty",
        "_DisplayName", "_EditMenuTableEnd", "_EditMenuTableStart", "_EditMenuTableStart2", "_Emoji",
        "_ExpirationDate", "_HasCopyDestinations", "_HasEncryptedContent", "_IpLabelAssignmentMethod",
        "_IpLabelHash", "_IpLabelId", "_IpLabelPromotionCtagVersion", "_IsCurrentVersion", "_IsRecord",
        "_Level", "_LikeCount", "_ListSchemaVersion", "_ModerationComments", "_ModerationStatus",
        "_Parsable", "_RmsTemplateId", "_ShortcutSiteId", "_ShortcutUniqueId", "_ShortcutUrl",
        "_ShortcutWebId", "_SourceUrl", "_StubFile", "_UIVersion", "_UIVersionString", "_VirusInfo",
        "_VirusStatus", "_VirusVendorID", "AccessPolicy", "AppAuthor", "AppEditor", "Attachments", "Author",
        "BaseName", "CheckedOutTitle", "CheckedOutUserId", "CheckinComment", "CheckoutUser",
        "ComplianceAssetId", "ContentType", "ContentTypeId", "ContentVersion", "Created",
        "Created_x0020_By", "Created_x0020_Date", "DocConcurrencyNumber", "DocIcon", "Edit", "Editor",
        "EncodedAbsUrl", "File_x0020_Size", "File_x0020_Type", "FileDirRef", "FileLeafRef", "FileRef",
        "FileSizeDisplay", "FolderChildCount", "FSObjType", "GUID", "HTML_x0020_File_x0020_Type", "ID",
        "InstanceID", "IsCheckedoutToLocal", "ItemChildCount", "Last_x0020_Modified", "LinkCheckedOutTitle",
        "LinkFilename", "LinkFilename2", "LinkFilenameNoMenu", "LinkTitle", "LinkTitleNoMenu",
        "MediaServiceAutoTags", "MediaServiceDateTaken", "MediaServiceFastMetadata", "MediaServiceLocation",
        "MediaServiceMetadata", "MediaServiceOCR", "MetaInfo", "Modified", "Modified_x0020_By", "NoExecute",
        "Order", "OriginatorId", "owshiddenversion", "ParentLeafName", "ParentUniqueId",
        "ParentVersionString", "PermMask", "PrincipalCount", "ProgId", "Restricted", "ScopeId",
        "SelectFilename", "SelectTitle", "ServerUrl", "SMLastModifiedDate", "SMTotalFileCount",
        "SMTotalFileStreamSize", "SMTotalSize", "SortBehavior", "SyncClientId", "TemplateUrl", "UniqueId",
        "VirusStatus", "WorkflowInstanceID", "WorkflowVersion", "xd_ProgID", "xd_Signature",
    }
)  # fmt: skip
"""Internal names that SharePoint gives every library. Nobody fills them, and Graph refuses to write most of
them."""

_PERCENT: Final = "(ein Anteil: 0.6 bedeutet 60 %)"
"""Explains to the analyzer how a percentage is written."""
_UNLIMITED: Final = 1e300
"""SharePoint writes a missing bound as the largest double."""


async def read_columns(client: GraphClient, library: LibraryRef) -> tuple[Column, ...]:
    """Read the library's columns in its order. Hidden and read-only ones are included and marked."""
    definitions = [
        definition
        async for definition in client.pages(
            f"/sites/{segment(library.site_id)}/lists/{segment(library.list_id)}/columns",
            ColumnDefinition,
            doing=f"reading the columns of the library {library.library!r}",
            params={"$select": _SELECT},
        )
    ]
    return columns(definitions)


def columns(definitions: Iterable[ColumnDefinition]) -> tuple[Column, ...]:
    """Convert Graph's column definitions. SharePoint's own columns are left out."""
    return tuple(_column(definition) for definition in definitions if definition.name not in _SYSTEM)


def _column(definition: ColumnDefinition) -> Column:
    kind = _kind(definition)
    choice, number, text = definition.choice, definition.number, definition.text
    percent = bool(number and number.display_as == "percentage")
    return Column(
        name=definition.name,
        display_name=definition.display_name or definition.name,
        kind=kind,
        description=" ".join(part for part in (definition.description, _PERCENT if percent else "") if part),
        choices=tuple(choice.choices or ()) if choice else (),
        allow_other=bool(choice and choice.allow_text_entry),
        required=bool(definition.required),
        read_only=bool(definition.read_only) or kind == "calculated",
        hidden=bool(definition.hidden),
        max_length=text.max_length if text and kind == "text" else None,
        minimum=_bound(number.minimum) if number else None,
        maximum=_bound(number.maximum) if number else None,
        default=definition.default_value.value if definition.default_value else None,
        percent=percent,
        rich=bool(text and kind == "note" and text.text_type == "richText"),
        unique=bool(definition.enforce_unique_values),
    )


def _kind(definition: ColumnDefinition) -> ColumnKind:
    """Find the kind by the one facet. A column with no facet we know, or with several, is unsupported."""
    kinds: list[ColumnKind] = []
    if definition.text is not None:
        kinds.append("note" if definition.text.allow_multiple_lines else "text")
    if definition.choice is not None:
        # Graph shows that a choice takes several values only by how it is displayed.
        kinds.append("multi_choice" if definition.choice.display_as == "checkBoxes" else "choice")
    if definition.date_time is not None:
        kinds.append("date" if definition.date_time.format == "dateOnly" else "date_time")
    others: tuple[tuple[object, ColumnKind], ...] = (
        (definition.number, "number"),
        (definition.currency, "number"),
        (definition.boolean, "boolean"),
        (definition.lookup, "lookup"),
        (definition.person_or_group, "person"),
        (definition.calculated, "calculated"),
        (definition.geolocation, "unsupported"),
        (definition.hyperlink_or_picture, "unsupported"),
        (definition.term, "unsupported"),
        (definition.thumbnail, "unsupported"),
        (definition.content_approval_status, "unsupported"),
    )
    kinds += [kind for facet, kind in others if facet is not None]
    return kinds[0] if len(kinds) == 1 else "unsupported"


def _bound(value: float | None) -> float | None:
    return None if value is None or abs(value) >= _UNLIMITED else value
