from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.identities import PhotoId, SchemaDigest, Sha256, StoreUrl
from events.types import ExifFacts, Hints, LibraryRef, PhotoFetched
from shared.retry.errors import PermanentError
from shared.settings import Settings
from shared.sharepoint.names import check_template, clean, stored_name

SHA = "0123456789abcdef" * 4
TEMPLATE = Settings().file_name_template
LIBRARY = LibraryRef(site_id="s", list_id="l", drive_id="d", site="/sites/Bau", library="Fotos", web_url="")


def photo(
    *,
    file_name: str | None = None,
    hints: Hints | None = None,
    taken_at: str | None = None,
    media_type: str = "image/jpeg",
) -> PhotoFetched:
    return PhotoFetched(
        photo_id=PhotoId("p"),
        source_url="file:///a.jpg",
        file_name=file_name,
        hints=hints or Hints(),
        library=LIBRARY,
        schema_digest=SchemaDigest("0"),
        schema_ref=StoreUrl("store:schemas/0.json"),
        dataref=StoreUrl("store:originals/0"),
        sha256=Sha256(SHA),
        size=1,
        media_type=media_type,
        width=1,
        height=1,
        exif=ExifFacts(taken_at=taken_at),
    )


def name(template: str = TEMPLATE, **about: object) -> str:
    return stored_name(template, photo(**about), "Europe/Zurich")  # type: ignore[arg-type]  # as `photo` takes them


@pytest.mark.parametrize(
    ("exif", "hint", "day"),
    [
        ("2024-05-12T23:30:00+02:00", None, "2024-05-12"),
        ("2024-05-12T23:30:00", "2020-01-01", "2024-05-12"),
        # as the date column counts it: the day of the site
        ("2024-05-12T23:30:00-07:00", None, "2024-05-13"),
        ("2024-05-13T03:00:00+09:00", None, "2024-05-12"),
        ("1980-01-01T00:00:00", "2023-04-05", "2023-04-05"),  # a camera's clock that was never set
        ("2999-01-01T00:00:00", None, "undatiert"),
        (None, "2023-04-05T10:00:00Z", "2023-04-05"),
        (None, "irgendwann", "undatiert"),
        (None, None, "undatiert"),
    ],
)
def test_the_name_tells_the_day_and_ends_in_the_content(exif: str | None, hint: str | None, day: str) -> None:
    found = name(taken_at=exif, hints=Hints(taken_at=hint))
    assert found == f"Erni_Referenzfoto_{day}_0123456789ab.jpg"


@pytest.mark.parametrize(
    ("media_type", "extension"),
    [
        ("image/jpeg", "jpg"),
        ("image/png", "png"),
        ("image/webp", "webp"),
        ("image/heic", "heic"),
        ("x/y", "bin"),
    ],
)
def test_the_extension_is_that_of_the_content(media_type: str, extension: str) -> None:
    assert name(media_type=media_type, file_name="a.exe").endswith(f"_0123456789ab.{extension}")


def test_a_template_may_use_what_is_known() -> None:
    found = name(
        "{project} {place} {name} {photographer}.{ext}",
        file_name="IMG/2024/Dach.JPG",
        hints=Hints(project="Schulhaus: Brunnen", place="Seewen", photographer="Büro"),
    )
    assert found == "Schulhaus_ Brunnen Seewen Dach Büro_0123456789ab.jpg"


@pytest.mark.parametrize("template", ["{gibtsnicht}", "{date", "{0}", "{}"])
def test_a_template_that_cannot_be_used_is_told(template: str) -> None:
    with pytest.raises(PermanentError, match="FILE_NAME_TEMPLATE"):
        check_template(template)
    check_template(TEMPLATE)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("../../etc/passwd", "_.._etc_passwd"),
        ('a"b*c:d<e>f?g/h\\i|j', "a_b_c_d_e_f_g_h_i_j"),
        ("100% #1", "100_ _1"),
        ("a\x00b\r\nc\td", "a_b_c_d"),
        ("  ~$tmp. ", "tmp"),
        ("a_vti_b", "a_b"),
        ("a__VTI__b", "a_b"),
        ("\u202egpj.exe\u200b", "gpj.exe"),
        ("Zu\u0308rich", "Zürich"),
        ("...", ""),
        ("\ud800", ""),
    ],
)
def test_what_sharepoint_does_not_take_is_taken_out(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@pytest.mark.parametrize("stem", ["CON", "nul.tar", "COM7", "desktop", ".lock", "LPT0.x"])
def test_reserved_names_are_kept_away_from(stem: str) -> None:
    found = name("{name}.{ext}", file_name=f"{stem}.jpg")
    assert not re.match(r"(?i)(con|prn|aux|nul|com\d|lpt\d|desktop|\.lock)(\.|$)", found)


_FORBIDDEN = re.compile(r'["*:<>?/\\|#%\x00-\x1f]|_vti_', re.IGNORECASE)


@given(
    st.sampled_from([TEMPLATE, "{name}.{ext}", "{project}{place}.{ext}", "{name}_{sha256}.{ext}", "{name}"]),
    st.text(max_size=300),
    st.text(max_size=300),
    st.text(max_size=300),
)
def test_every_name_is_one_that_sharepoint_takes(
    template: str, file_name: str, project: str, place: str
) -> None:
    found = name(template, file_name=file_name, hints=Hints(project=project, place=place))
    assert not _FORBIDDEN.search(found)
    assert found == found.strip()
    assert not found.startswith("~$")
    assert len(found) <= 128
    assert len(found.encode("utf-16-le")) <= 2 * 255
    stem, _, extension = found.rpartition(".")
    assert extension == "jpg"
    assert stem.endswith((SHA[:12], SHA))
    assert found == name(template, file_name=file_name, hints=Hints(project=project, place=place))
