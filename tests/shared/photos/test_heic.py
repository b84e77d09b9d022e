"""A HEIC in tiles is decoded strip by strip, and looks as if it had been decoded in one piece."""

from __future__ import annotations

import io
import struct

import pi_heif
import pytest
from PIL import Image, ImageChops, ImageStat

from sandbox.heic import heic
from shared.photos.heic import HeicPicture, Tiles, open_heic
from shared.photos.heif import Heif, Item, Reference, box, full_box, heif_file
from shared.photos.open import opened
from shared.photos.preview import make_preview
from shared.photos.whole import ensure_whole
from shared.retry.errors import PermanentError
from tests.shared.photos.deep_grey import deep_grey
from tests.shared.photos.pictures import picture, tiff
from tests.shared.photos.test_open import repeated_heic


def tiles_of(data: bytes) -> Tiles | None:
    with opened(data) as photo:
        assert isinstance(photo.picture, HeicPicture)
        return photo.picture.tiles


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("size", [(48, 32), (50, 34), (130, 70), (600, 400)])
def test_strips_make_the_picture_that_the_decoder_makes_in_one_piece(
    size: tuple[int, int], turns: int
) -> None:
    data = heic(picture(*size), tile=32, quarter_turns=turns)
    tiles = tiles_of(data)
    assert tiles is not None
    assert len(tiles.rows) == -(-size[1] // 32) > 0
    whole = pi_heif.open_heif(data).to_pillow()
    preview = Image.open(io.BytesIO(make_preview(data, quality=100)))
    assert preview.size == whole.size
    # What saving as a JPEG, with its colours at half the size, costs.
    assert ImageStat.Stat(ImageChops.difference(whole, preview)).mean == pytest.approx([0, 0, 0], abs=4)
    assert max(ImageChops.difference(whole.convert("L"), preview.convert("L")).tobytes()) < 40


@pytest.mark.parametrize("tile", [64, 80, 146])
@pytest.mark.parametrize("side", [300, 148, 100, 40])
def test_made_smaller_there_are_no_seams(side: int, tile: int) -> None:
    slope = Image.linear_gradient("L").resize((1200, 900)).convert("RGB")
    strips = Image.open(io.BytesIO(make_preview(heic(slope, tile=tile), side)))
    whole = Image.open(io.BytesIO(make_preview(heic(slope), side)))
    assert strips.size == whole.size == (side, side * 3 // 4)
    assert max(ImageChops.difference(strips, whole).tobytes()) <= 3


def test_a_phones_48_megapixels_are_a_photo_like_any_other() -> None:
    data = repeated_heic(8_064, 6_048, quarter_turns=3)
    with opened(data) as photo:
        assert (photo.header.width, photo.header.height) == (6_048, 8_064)
    assert Image.open(io.BytesIO(make_preview(data))).size == (768, 1_024)


def test_more_than_120_megapixels_are_refused() -> None:
    with (
        pytest.raises(PermanentError, match="larger than the 120 megapixels"),
        opened(repeated_heic(12_000, 10_010)),
    ):
        pass


def test_more_tiles_than_the_decoder_takes_is_not_called_damaged() -> None:
    with pytest.raises(PermanentError, match="in more or larger parts than what is decoded: save it"):
        make_preview(repeated_heic(16_384, 16_384))


def test_tiles_as_large_as_the_picture_are_no_tiles() -> None:
    parts = heic(picture(48, 32), tile=16).replace(
        struct.pack(">II", 16, 16), struct.pack(">II", 16, 600_000)
    )
    assert tiles_of(parts) is None


def odd(kind: str) -> bytes:
    """A picture in four tiles that has something which only a whole decoder knows."""
    plain = Heif(heic(picture(32, 32), tile=16))
    items = [
        Item(kind=plain.kinds[number], data=plain.read(plain.places[number]), used=plain.used[number])
        for number in sorted(plain.kinds)
    ]
    more, references = b"", list(plain.references)
    count = len(plain.properties)
    if kind == "mirrored":
        more = box(b"imir", b"\1")
        items[0] = Item(kind=b"grid", data=items[0].data, used=items[0].used + bytes([0x80 | count + 1]))
    elif kind == "cropped":
        more = box(b"clap", struct.pack(">8I", 16, 1, 16, 1, 0, 1, 0, 1))
        items[0] = Item(kind=b"grid", data=items[0].data, used=items[0].used + bytes([0x80 | count + 1]))
    elif kind == "with transparency":
        more = full_box(b"auxC", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0")
        items.append(Item(kind=b"hvc1", data=items[1].data, used=items[1].used + bytes([0x80 | count + 1])))
        references.append(Reference(b"auxl", len(items), [1]))
    elif kind == "less a tile":
        references = [Reference(each.kind, each.start, each.to[:-1]) for each in references]
    elif kind == "with a tile that lies nowhere":
        return heic(picture(32, 32), tile=16).replace(b"\x44\x00\x00\x05", b"\x44\x00\x00\x04")
    return heif_file(items, plain.packed_properties + more, references)


def test_a_picture_that_is_not_all_there_is_damaged() -> None:
    whole = heic(picture(500, 300), tile=128)
    # a box of length 0 goes as far as the file does: nothing of the structure tells that it was cut
    at = whole.index(b"mdat") - 4
    cut = whole[:at] + b"\0\0\0\0" + whole[at + 4 : len(whole) * 7 // 10]
    with pytest.raises(PermanentError, match=r"damaged .* behind the end of the file"), opened(cut):
        pass
    with pytest.raises(PermanentError, match="3 tiles for a grid of 4"), opened(odd("less a tile")):
        pass


@pytest.mark.parametrize(
    "kind", ["mirrored", "cropped", "with transparency", "with a tile that lies nowhere"]
)
def test_what_is_not_understood_is_left_to_the_decoder(kind: str) -> None:
    assert tiles_of(odd("plain")) is not None
    data = odd(kind)
    try:
        whole = pi_heif.open_heif(data).to_pillow().convert("RGB")
    except (ValueError, RuntimeError):
        with pytest.raises(PermanentError, match="damaged"):
            make_preview(data)
        return
    assert tiles_of(data) is None
    preview = Image.open(io.BytesIO(make_preview(data, quality=100)))
    assert preview.size == whole.size
    if kind != "with transparency":
        assert ImageStat.Stat(ImageChops.difference(whole, preview)).mean == pytest.approx([0, 0, 0], abs=6)


def test_tiles_may_share_their_bytes_but_not_multiply_them() -> None:
    shared = Heif(repeated_heic(1_024, 1_024))
    assert len(set(shared.places.values())) == 2
    # Each tile a byte further: 992 copies of nearly the whole file.
    whole = repeated_heic(15_872, 16_384)
    reader = Heif(whole)
    ((start, length),) = reader.places[2]
    at = whole.index(struct.pack(">II", start, length))
    moved = bytearray(whole)
    for number in range(992):
        place = at + 14 * number
        moved[place : place + 8] = struct.pack(">II", start - number, length)
    assert open_heic(whole).tiles is not None
    assert open_heic(bytes(moved)).tiles is None


def test_a_file_that_claims_millions_of_pieces_is_not_walked_through() -> None:
    data = repeated_heic(15_872, 16_384)
    at = data.index(b"iloc")
    # sizes of zero: no piece takes any room, so each item may have as many as it likes
    widths = data[:at] + data[at:].replace(b"\x44\x00", b"\x00\x00", 1)
    with pytest.raises(ValueError, match="lies in 65535 pieces"):
        Heif(widths.replace(b"\0\0\0\1", b"\0\0\xff\xff"))
    start = data.index(b"dimg")
    more = data[: start + 6] + b"\xff\xff" + data[start + 8 :]
    with pytest.raises(ValueError, match="names more items than it holds"):
        Heif(more)


def test_exif_and_the_turn_are_found_beside_tiles() -> None:
    data = heic(picture(), tile=16, quarter_turns=1, exif=tiff())
    with opened(data) as photo:
        assert photo.exif.endswith(tiff())


@pytest.mark.parametrize("depth", [10, 12])
def test_grey_of_more_than_8_bits_is_a_photo_and_keeps_its_brightness(depth: int) -> None:
    grey = picture(64, 48).convert("L")
    data = deep_grey(grey, depth)
    preview = Image.open(io.BytesIO(make_preview(data, quality=100))).convert("L")
    assert preview.size == grey.size
    assert ImageStat.Stat(ImageChops.difference(grey, preview)).mean == pytest.approx([0], abs=3)
    with opened(data) as photo:
        ensure_whole(photo)


@pytest.mark.parametrize(
    "name", [b"urn:mpeg:hevc:2015:auxid:1", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha"]
)
def test_transparency_is_white_however_it_is_named(name: bytes) -> None:
    mask = Image.new("RGB", (64, 48), "white")
    mask.paste("black", (0, 0, 32, 48))
    plain, alpha = Heif(heic(Image.new("RGB", (64, 48), "navy"))), heic(mask)
    coded = Heif(alpha).read(Heif(alpha).places[1])
    own = plain.used[1]
    number = len(plain.properties) + 1
    data = heif_file(
        [
            Item(kind=b"hvc1", data=plain.read(plain.places[1]), used=own),
            Item(kind=b"hvc1", data=coded, used=own + bytes([0x80 | number])),
        ],
        plain.packed_properties + full_box(b"auxC", name + b"\0"),
        [Reference(b"auxl", 2, [1])],
    )
    preview = Image.open(io.BytesIO(make_preview(data, quality=100)))
    assert preview.getpixel((8, 24)) == pytest.approx((255, 255, 255), abs=6)
    assert preview.getpixel((56, 24)) == pytest.approx((0, 0, 128), abs=12)
