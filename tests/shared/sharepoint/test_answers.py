from __future__ import annotations

import json
import re

import pytest

from shared.sharepoint.answers import error_of


def _body(document: object) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.parametrize("spelling", ["innerError", "innererror"])
def test_nested_codes_are_found_in_both_spellings(spelling: str) -> None:
    body = _body(
        {
            "error": {
                "code": "invalidRange",
                "message": "Optimistic concurrency failure",
                spelling: {"code": "fragmentOverlap", spelling: {"code": "deeper", "request-id": "r"}},
            }
        }
    )
    error = error_of("uploading a.jpg", 416, {}, body)
    assert error.codes == ("invalidRange", "fragmentOverlap", "deeper")
    assert error.code == "invalidRange"
    assert error.status == 416


def test_the_sentence_says_what_was_done_what_came_and_what_to_do() -> None:
    body = _body({"error": {"code": "accessDenied", "message": "Access denied"}})
    error = error_of("reading the columns of 'Fotos'", 403, {"request-id": "ab-12"}, body)
    assert str(error) == (
        "reading the columns of 'Fotos': SharePoint answered 403 accessDenied (Access denied);"
        " grant the app write access to this site (Sites.Selected, role write) [request-id ab-12]"
    )


def test_a_sign_in_refusal_keeps_its_reason_on_one_line() -> None:
    body = _body(
        {
            "error": "invalid_client",
            "error_description": "AADSTS7000215: Invalid client secret provided.\r\nTrace ID: 1",
        }
    )
    error = error_of("signing in", 401, {}, body)
    assert error.codes == ("invalid_client",)
    assert "AADSTS7000215: Invalid client secret provided. Trace ID: 1" in str(error)


@pytest.mark.parametrize(
    "body", [b"", b"<html>Bad gateway</html>", b"[]", b'{"error": 7}', b'{"error": {"code": 5}}', b"\xff\x00"]
)
def test_a_body_that_is_no_error_of_graphs_is_no_trouble(body: bytes) -> None:
    error = error_of("reading", 502, {}, body)
    assert (error.status, error.codes, error.code) == (502, (), None)
    assert str(error).startswith("reading: SharePoint answered 502")


def test_addresses_in_a_message_lose_their_query() -> None:
    body = _body({"error": {"code": "x", "message": "failed at https://host/up?tempauth=SECRET now"}})
    assert "SECRET" not in str(error_of("uploading", 500, {}, body))


def test_endless_nesting_is_cut_off() -> None:
    document: dict[str, object] = {"code": "c"}
    for number in range(40):
        document = {"code": f"c{number}", "innerError": document}
    assert len(error_of("x", 400, {}, _body({"error": document})).codes) == 8


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (70021, "its federated credential must name the issuer, subject"),
        (700213, "its federated credential must name the issuer, subject"),
        (90002, r"AZURE_TENANT_ID names no tenant of this cloud: copy the Directory \(tenant\) ID"),
        (700016, r"AZURE_CLIENT_ID is no app of this tenant: copy the Application \(client\) ID"),
        (700024, "check this machine's clock"),
        (700027, "upload it under Certificates & secrets"),
        (7000215, "set the secret's value, not its id"),
        (7000222, "has expired: make a new one"),
        (50034, "look at the app"),
    ],
)
def test_each_refusal_of_the_sign_in_has_its_own_advice(number: int, advice: str) -> None:
    body = _body({"error": "invalid_client", "error_description": f"AADSTS{number}: No. Trace ID: x"})
    assert re.search(advice, str(error_of("signing in", 400, {}, body, advice="look at the app")))
