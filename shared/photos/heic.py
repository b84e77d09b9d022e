"""Decode a HEIC, a strip at a time where that is possible.

Phones store a photo as a grid of small tiles. A decoder joins all of them first, which takes about six bytes
a pixel: 300 MB for 48 megapixels. Here each row of tiles is written as a small HEIC of its own, decoded, and
made smaller at once. Whatever is laid out in another way is decoded in one piece.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pi_heif
import pyvips

from shared.photos.heif import Heif, Item, Pieces, Reference, full_box, heif_file

if TYPE_CHECKING:
    from shared.photos.kinds import Data


# Only the main picture is needed. Threads would decode several tiles at a time, which takes more memory.
pi_heif.options.THUMBNAILS = False
pi_heif.options.DEPTH_IMAGES = False
pi_heif.options.AUX_IMAGES = False
pi_heif.options.DECODE_THREADS = 1

_BANDS: Final = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "RGBa": 4}
_DEEP_GREY: Final = "I;16"
"""What grey of 10 or 12 bits becomes, as numbers of 16 bits. pi_heif makes colours of that depth 8 bits."""
# Properties of a grid that do not move its pixels, and `irot`, which is applied here.
_UNDERSTOOD: Final = frozenset({b"ispe", b"pixi", b"colr", b"irot", b"clli", b"mdcv"})
_TURNS: Final = ("d0", "d270", "d180", "d90")
"""libvips' names (clockwise) by the number of quarter turns anticlockwise."""


# 23008-12, 6.5.8 names alpha in two ways, as MPEG's and as HEVC's auxiliary picture.
_ALPHA: Final = re.compile(rb"urn:mpeg:hevc:2015:auxid:1|alpha")
_START_CODES: Final = (b"\0\0\0", b"\0\0\1", b"\0\0\2")
MAX_UNITS: Final = 20_000
"""Units of all coded pictures of a file. A tile has one to a dozen, 120 megapixels have 480 tiles."""
MAX_CODED_BYTES: Final = 500_000_000
"""Of all coded pictures, each counted as often as it is used."""


class TooManyPartsError(ValueError):
    """The picture is in more parts than any camera writes."""


class BrokenHeicError(ValueError):
    """A part of the picture is missing."""


class Tiles(msgspec.Struct, frozen=True, kw_only=True):
    """Describes a photo that is stored as a grid of tiles."""

    width: int
    """Pixels as stored, before the turn."""
    height: int
    tile_height: int
    quarter_turns: int
    """How often to turn the stored pixels by 90 degrees anticlockwise."""
    rows: list[list[Pieces]]
    """The places of each row's tiles in the file."""
    used: bytes
    """The properties of each tile."""
    colours: bytes
    """The properties of the grid, without its size and its turn."""
    file: Heif


class HeicPicture(msgspec.Struct, frozen=True, kw_only=True):
    """A HEIC whose header was read, and whose pixels are not decoded yet."""

    width: int
    """Pixels, already turned upright."""
    height: int
    exif: bytes
    profile: bytes
    """ICC; empty if there is none."""
    tiles: Tiles | None
    """None if it has to be decoded in one piece."""
    turned: bool
    """Whether the file has its own instruction how to turn the pixels, so that EXIF's does not count."""
    coded: tuple[bytes, ...]
    """The coded pictures, of a photo that is decoded in one piece."""
    frame: Any
    """pi_heif's."""

    @property
    def piece_pixels(self) -> int:
        """The number of pixels that are decoded at once."""
        return self.tiles.width * self.tiles.tile_height if self.tiles else self.width * self.height


def open_heic(data: Data) -> HeicPicture:
    """Read the header. Raises what pi_heif raises: ValueError, RuntimeError, EOFError and more."""
    file = _structure_of(data)
    frame = _frame(bytes(data))
    width, height = frame.size
    tiles = _tiles_of(file, len(data), (width, height)) if file else None
    return HeicPicture(
        width=width,
        height=height,
        exif=frame.info.get("exif") or b"",
        profile=frame.info.get("icc_profile") or b"",
        tiles=tiles,
        turned=file is None or _has_own_turn(file),
        coded=(file.read(file.places[file.primary]),) if file and _is_coded(file, file.primary) else (),
        frame=frame,
    )


def decode_heic(photo: HeicPicture, factor: int) -> pyvips.Image:
    """The pixels, upright, made smaller by at most a whole `factor`. Raises what pi_heif raises."""
    tiles = photo.tiles
    if tiles is None:
        for coded in photo.coded:
            _check_undamaged(coded)
        return _pixels(photo.frame)
    parts: list[bytes] = []
    width = bands = 0
    rest: pyvips.Image | None = None
    for number, row in enumerate(tiles.rows):
        height = min(tiles.tile_height, tiles.height - number * tiles.tile_height)
        frame = _frame(_strip(tiles, row, height))
        strip = _pixels(frame)
        if rest is not None:
            strip = rest.join(strip, "vertical")
        # What is left below the last whole group of rows belongs to the next strip: no seams.
        left = strip.height % factor if number < len(tiles.rows) - 1 else 0
        whole = strip.height - left
        rest = strip.crop(0, whole, strip.width, left).copy_memory() if left else None
        if not whole:
            continue
        small = strip.crop(0, 0, strip.width, whole).shrink(factor, factor, ceil=True)
        width, bands = small.width, small.bands
        parts.append(small.write_to_memory())
    joined = b"".join(parts)
    image = _image(joined, width, len(joined) // (width * bands), bands)
    return image.rot(_TURNS[tiles.quarter_turns])


def _frame(data: bytes) -> Any:
    file = pi_heif.open_heif(data)
    return file[file.primary_index]


def _pixels(frame: Any) -> pyvips.Image:
    """Decode, in one piece. The pixels are the frame's: it has to live as long as the image."""
    data = frame.data  # decodes; the size may turn out to be another one
    (width, height), deep = frame.size, frame.mode == _DEEP_GREY
    bands = 1 if deep else _BANDS[frame.mode]
    if len(data) != width * height * bands * (2 if deep else 1):
        raise ValueError("the decoder returned another number of pixels than announced")
    if deep:
        samples = pyvips.Image.new_from_memory(data, width, height, 1, "ushort")
        return (samples >> 8).cast("uchar").copy(interpretation="b-w")
    image = _image(data, width, height, bands)
    return image.unpremultiply().cast("uchar") if frame.mode == "RGBa" else image


def _image(data: bytes, width: int, height: int, bands: int) -> pyvips.Image:
    image = pyvips.Image.new_from_memory(data, width, height, bands, "uchar")
    return image.copy(interpretation="b-w" if bands < 3 else "srgb")


def _strip(tiles: Tiles, row: list[Pieces], height: int) -> bytes:
    """A HEIC of one row of tiles, not turned."""
    size = full_box(b"ispe", struct.pack(">II", tiles.width, height))
    grid = Item(
        kind=b"grid",
        data=struct.pack(">BBBBII", 0, 1, 0, len(row) - 1, tiles.width, height),
        used=bytes([len(tiles.file.properties) + 1]) + tiles.colours,
    )
    coded = {place: tiles.file.read(place) for place in row}
    for data in coded.values():
        _check_undamaged(data)
    parts = [Item(kind=b"hvc1", data=coded[place], used=tiles.used) for place in row]
    made_of = Reference(b"dimg", 1, list(range(2, len(row) + 2)))
    return heif_file([grid, *parts], tiles.file.packed_properties + size, [made_of])


def _structure_of(data: Data) -> Heif | None:
    """Read the structure; None if it is not understood here. Raises BrokenHeicError for too many parts."""
    try:
        file = Heif(data)
        # Tiles may share their bytes: a decoder reads them again for each.
        coded = Counter(file.places.get(item, ()) for item in file.kinds if _is_coded(file, item))
        size = sum(uses * length for place, uses in coded.items() for _, length in place)
        units = 0
        for place, uses in coded.items():
            units += uses * _units(data, place, MAX_UNITS // uses)
            if units > MAX_UNITS:
                break
    except (struct.error, LookupError, ValueError, StopIteration):
        return None
    if size > MAX_CODED_BYTES or units > MAX_UNITS:
        raise TooManyPartsError
    return file


def _is_coded(file: Heif, item: int) -> bool:
    return file.kinds.get(item) in (b"hvc1", b"hev1")


def _units(data: Data, place: Pieces, limit: int) -> int:
    """Count the units of a coded picture (14496-15, 8.3.3), up to one more than the limit."""
    number = 0
    for start, length in place:
        at, end = start, min(start + length, len(data))
        while at + 4 <= end and number <= limit:
            at += 4 + int.from_bytes(data[at : at + 4])
            number += 1
    return number


def _check_undamaged(coded: bytes) -> None:
    """Raise BrokenHeicError if a coded picture holds bytes that cannot be in one.

    Three bytes that could be taken for a start code are broken up in a unit (H.265, 7.4.2), zeros above
    all. The decoder would show a block that was lost as green or grey.
    """
    at = 0
    while at + 4 <= len(coded):
        start = at + 4
        at = start + int.from_bytes(coded[at:start])
        if at > len(coded):
            raise BrokenHeicError("a part of the picture is cut off")
        unit = coded[start:at].rstrip(b"\0")
        if any(code in unit for code in _START_CODES):
            raise BrokenHeicError("a part of the picture was overwritten")


def _has_own_turn(file: Heif) -> bool:
    return any(each.name in (b"irot", b"imir") for _, each in file.properties_of(file.primary))


def _tiles_of(file: Heif, file_size: int, size: tuple[int, int]) -> Tiles | None:
    """The grid of a file; None if it has none, or one with something that is not understood here.

    Raises BrokenHeicError for a picture that is not all there: its decoder would leave parts of it green.
    """
    try:
        tiles = _grid(file, file_size)
    except BrokenHeicError:
        raise
    except (struct.error, LookupError, ValueError, StopIteration):
        return None
    if tiles is None:
        return None
    stored = (tiles.width, tiles.height)
    return tiles if size == (stored[::-1] if tiles.quarter_turns % 2 else stored) else None


def _grid(file: Heif, file_size: int) -> Tiles | None:
    _check_whole(file, file.primary, file_size)
    if file.kinds.get(file.primary) != b"grid" or _has_alpha(file):
        return None
    grid = file.read(file.places[file.primary])
    # 23008-12, 6.6.2.3
    _, flags, rows, columns = struct.unpack_from(">BBBB", grid)
    width, height = struct.unpack_from(">II" if flags & 1 else ">HH", grid, 4)
    rows, columns = rows + 1, columns + 1
    parts = next(each.to for each in file.references if (each.kind, each.start) == (b"dimg", file.primary))
    own = file.properties_of(file.primary)
    if len(parts) != rows * columns:
        raise BrokenHeicError(f"{len(parts)} tiles for a grid of {rows * columns}")
    for part in parts:
        _check_whole(file, part, file_size)
    if not _UNDERSTOOD.issuperset(each.name for _, each in own):
        return None
    if any(file.kinds.get(part) != b"hvc1" or file.used[part] != file.used[parts[0]] for part in parts):
        return None
    size = next(each.body for _, each in file.properties_of(parts[0]) if each.name == b"ispe")
    tile_width, tile_height = struct.unpack_from(">II", size, 4)
    if tile_width * columns < width or not 0 <= tile_height * rows - height < tile_height:
        return None
    places = [file.places[part] for part in parts]
    # Tiles may share their bytes, but not overlap: each would be copied.
    if sum(length for place in set(places) for _, length in place) > file_size:
        return None
    return Tiles(
        width=width,
        height=height,
        tile_height=tile_height,
        quarter_turns=sum(each.body[0] for _, each in own if each.name == b"irot") % 4,
        rows=[places[first : first + columns] for first in range(0, len(places), columns)],
        used=file.used[parts[0]],
        colours=bytes(entry for entry, each in own if each.name not in (b"ispe", b"irot")),
        file=file,
    )


def _check_whole(file: Heif, item: int, file_size: int) -> None:
    if any(start + length > file_size for start, length in file.places.get(item, ())):
        raise BrokenHeicError("a part of the picture lies behind the end of the file")


def _has_alpha(file: Heif) -> bool:
    """Whether another item of the file is this picture's transparency."""
    return any(
        each.kind == b"auxl"
        and file.primary in each.to
        and any(own.name == b"auxC" and _ALPHA.search(own.body) for _, own in file.properties_of(each.start))
        for each in file.references
    )
