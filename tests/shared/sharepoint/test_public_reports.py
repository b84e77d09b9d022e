"""Situations that others reported in public about uploads through Graph, each with its source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.retry.classify import Kind, classify, retry_after_of
from shared.retry.errors import PostponeError
from shared.sharepoint.answers import GraphError
from shared.sharepoint.items import as_item
from shared.sharepoint.names import clean
from shared.sharepoint.publication import publish
from shared.sharepoint.uploads import ItemChangedError, NameTakenError
from shared.sharepoint.wire import DriveItem, ListItem
from tests.shared.sharepoint.stub import Reply, Stub, refusal
from tests.shared.sharepoint.test_uploads import CREATE, DATA, uploader, wants

if TYPE_CHECKING:
    from shared.sharepoint.client import GraphClient
    from shared.sharepoint.uploads import Uploader
    from tests.shared.sharepoint.desk import Desk

__all__ = ["uploader"]

DRAFT = ListItem(fields={"_UIVersionString": "0.1"})


def test_a_full_width_space_at_the_ends_of_a_name_is_removed() -> None:
    """OneDrive/onedrive-api-docs issue 1488: OneDrive for Business refuses it."""
    assert clean("\u3000Dach\u3000.jpg\u3000") == "Dach .jpg"


@pytest.mark.parametrize("name", ["dummy_vti_file", "_VTI_x", "a__vti__b"])
def test_a_name_holds_no_vti_anywhere(name: str) -> None:
    """OneDrive/onedrive-api-docs issue 1653: the upload is refused wherever in the name it stands."""
    assert "_vti_" not in clean(name).casefold()


def test_a_name_holds_no_semicolon() -> None:
    """microsoftgraph/microsoft-graph-docs issue 20952: there is no way to upload it, encoded or not."""
    assert clean("Dach; Kran;.jpg") == "Dach_ Kran_.jpg"


async def test_a_name_with_brackets_is_stored_as_it_is(desk: Desk) -> None:
    """microsoftgraph/msgraph-sdk-php issue 226: round brackets failed in a path."""
    path = f"/drives/{desk.library.drive_id}/root:/Bild%20(1)%20[2].jpg:/content"
    answer = await desk.client.send("PUT", path, doing="storing", data=b"x")
    assert b'"name":"Bild (1) [2].jpg"' in answer.body.replace(b": ", b":")


async def test_a_chunk_that_arrived_although_the_answer_was_503_is_not_sent_twice(
    graph: Stub, uploader: Uploader
) -> None:
    """OneDrive/onedrive-api-docs issue 64: the repeated fragment was answered 416 fragmentOverlap."""
    graph.on("POST", CREATE, Reply(body={"uploadUrl": f"{graph.url}/up/1", "expirationDateTime": "x"}))
    graph.on(
        "PUT",
        "/up/1",
        refusal(503, "serviceNotAvailable"),
        refusal(416, "invalidRange", "fragmentOverlap"),
        Reply(201, {"id": "1", "name": "a.jpg"}),
    )
    graph.on("GET", "/up/1", wants(0), wants(327_680))
    item = await uploader.create("d", "a.jpg", DATA, "image/jpeg")
    assert item.item_id == "1"
    assert graph.calls("PUT")[-1].headers["Content-Range"].startswith("bytes 327680-")


@pytest.mark.parametrize("status", [409, 412])
async def test_a_session_that_is_refused_for_a_changed_file_is_not_taken_for_a_taken_name(
    graph: Stub, uploader: Uploader, status: int
) -> None:
    """OneDrive/onedrive-api-docs issue 1707: 409 resourceModified for a file that was not there yet."""
    graph.on("POST", CREATE, refusal(status, "resourceModified", message="The resource has changed"))
    with pytest.raises(ItemChangedError):
        await uploader.create("d", "a.jpg", DATA, "image/jpeg")
    graph.on("POST", CREATE, refusal(409, "nameAlreadyExists"))
    with pytest.raises(NameTakenError):
        await uploader.create("d", "a.jpg", DATA, "image/jpeg")


async def test_a_header_in_small_letters_is_the_same_header(graph: Stub, client: GraphClient) -> None:
    """microsoftgraph/microsoft-graph-docs-contrib issue 1060: some servers write retry-after."""
    graph.on("PUT", "/up/1", Reply(429, {}, {"retry-after": "7"}))
    with pytest.raises(GraphError) as caught:
        await client.plain("PUT", f"{graph.url}/up/1", doing="uploading", data=b"x")
    assert retry_after_of(caught.value) == 7


async def test_a_503_without_retry_after_is_tried_again(graph: Stub, client: GraphClient) -> None:
    """SharePoint/sp-dev-docs issue 3320: SharePoint leaves the header out at times."""
    graph.on("GET", "/v1.0/x", refusal(503, "serviceNotAvailable"))
    with pytest.raises(GraphError) as caught:
        await client.send("GET", "/x", doing="reading")
    assert (classify(caught.value), retry_after_of(caught.value)) == (Kind.TRANSIENT, None)


async def test_a_file_in_use_is_waited_for(graph: Stub, client: GraphClient) -> None:
    """OneDrive/onedrive-api-docs issue 912: 423 has the code accessDenied, which is no missing right."""
    graph.on("PATCH", "/v1.0/x", refusal(423, "accessDenied", message="Lock token does not match"))
    with pytest.raises(PostponeError):
        await client.send("PATCH", "/x", doing="writing", json={})


async def test_a_file_that_somebody_took_meanwhile_is_left_to_them(graph: Stub, client: GraphClient) -> None:
    """microsoft-graph-docs-contrib issue 222: the check-out of a file that another has is answered 500."""
    taken = {
        "id": "i",
        "name": "a.jpg",
        "publication": {"level": "checkout", "checkedOutBy": {"user": {"displayName": "x"}}},
    }
    graph.on("POST", "/v1.0/drives/d/items/i/checkout", refusal(500, "generalException"))
    graph.on("GET", "/v1.0/drives/d/items/i", Reply(body=taken))
    shown = await publish(client, "d", as_item(DriveItem(id="i", name="a.jpg", list_item=DRAFT)))
    assert shown.checked_out == "somebody"
    graph.on("GET", "/v1.0/drives/d/items/i", Reply(body={"id": "i", "name": "a.jpg"}))
    with pytest.raises(GraphError, match="answered 500"):
        await publish(client, "d", as_item(DriveItem(id="i", name="a.jpg", list_item=DRAFT)))


async def test_a_check_out_that_does_not_exist_there_is_a_person_s_to_do(
    graph: Stub, client: GraphClient
) -> None:
    """microsoft-graph-docs-contrib issue 583: some drives answer 400 "API not found"."""
    graph.on(
        "POST", "/v1.0/drives/d/items/i/checkout", refusal(400, "invalidRequest", message="API not found")
    )
    graph.on("GET", "/v1.0/drives/d/items/i", Reply(body={"id": "i", "name": "a.jpg"}))
    shown = await publish(client, "d", as_item(DriveItem(id="i", name="a.jpg", list_item=DRAFT)))
    assert shown.checked_out == ""
