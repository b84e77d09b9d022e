"""Packs values for scripts and unpacks theirs, as MessagePack.

Lua's strings are bytes, and the server's cmsgpack knows only the old raw type for them: no bin, which
msgspec would write for bytes, and no check for UTF-8, which it would make when reading.
"""

from __future__ import annotations

from typing import Any

import msgpack


def pack(value: object) -> bytes:
    """Pack lists, mappings, numbers, text and bytes for `cmsgpack.unpack`."""
    packed: bytes = msgpack.packb(value, use_bin_type=False)
    return packed


def unpack(packed: bytes) -> Any:
    """Unpack what `cmsgpack.pack` wrote: every string comes as bytes, whatever is in it."""
    return msgpack.unpackb(packed, raw=True, strict_map_key=False)


def unpack_fields(packed: bytes) -> list[bytes]:
    """The flat field list of an entry; empty if that is not what was packed."""
    try:
        fields = unpack(packed)
    except (ValueError, msgpack.UnpackException):
        return []
    return fields if isinstance(fields, list) and all(isinstance(part, bytes) for part in fields) else []
