"""Names why a person has to look at a column: the code beside the German sentence of `NeedsPerson`.

Code decides by these. The sentence is for people only, and may change.
"""

from __future__ import annotations

from typing import Final

UNSURE: Final = "unsure"
"""The analyzer is not sure, or cannot answer."""
PEOPLE: Final = "people"
"""A face was found: somebody has to check the consent."""
MISSING: Final = "missing"
"""A required column without a value."""
DOES_NOT_FIT: Final = "does_not_fit"
"""A value that the column does not take."""
EDITED: Final = "edited"
"""A person has written or cleared the column since our last write; it was left alone."""
UNCLEAR: Final = "unclear"
"""Nobody can tell who wrote the stored value; it was left alone."""
CHECKED_OUT: Final = "checked_out"
"""A person has the file checked out, so others see an older version."""
APPROVAL: Final = "approval"
"""The file waits for its approval, or was rejected."""
DRAFT: Final = "draft"
"""The file is a draft that the library does not let us publish."""
NOT_WRITABLE: Final = "not_writable"
"""Microsoft Graph cannot write the column."""
REJECTED: Final = "rejected"
"""The library does not accept the value: another item has it, or its validation fails."""
ALTERED: Final = "altered"
"""SharePoint stored another value than the one that was sent."""
COLUMN_GONE: Final = "column_gone"
"""The library no longer has the column, or it cannot be filled any more."""
FILE_REPLACED: Final = "file_replaced"
"""A person has replaced or edited the file; it was left alone."""
FILE_DIFFERS: Final = "file_differs"
"""The stored file is not the submitted original."""
FILE_ALTERED: Final = "file_altered"
"""SharePoint has changed the bytes of the file that we uploaded."""
FILE_CODES: Final = frozenset({FILE_REPLACED, FILE_DIFFERS, FILE_ALTERED})
"""Codes that are about the file, not about a column."""
