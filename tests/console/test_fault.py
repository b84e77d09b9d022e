"""`erni fault` orders faults from a local stand-in, and from nothing else."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, ClassVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.console.conftest import Ran


class _StandIn(BaseHTTPRequestHandler):
    """Takes orders, and keeps them."""

    orders: ClassVar[list[tuple[str, str, object]]] = []
    status: ClassVar[int] = 201

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._take(json.loads(body))

    def do_DELETE(self) -> None:
        self._take(None)

    def _take(self, body: object) -> None:
        self.orders.append((self.command, self.path, body))
        self.send_response(self.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_StandIn]]:
    kind = type("StandIn", (_StandIn,), {"orders": []})
    server = HTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("GRAPH_URL", f"http://127.0.0.1:{server.server_port}/v1.0")
    yield kind
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_fault_is_ordered_for_as_long_as_was_said(
    erni: Callable[..., Ran], stand_in: type[_StandIn]
) -> None:
    ran = erni("fault", "sharepoint", "503", "--for", "1m30s", "--share", "0.5")
    assert ran.code == 0
    assert stand_in.orders == [("POST", "/_erni/fault", {"kind": "503", "for": 90.0, "share": 0.5})]
    assert ran.out.startswith("sharepoint answers 503 for 1m30; look at `erni status --watch`")


def test_it_can_be_healed(erni: Callable[..., Ran], stand_in: type[_StandIn]) -> None:
    assert erni("fault", "sharepoint", "heal").out == "sharepoint behaves again\n"
    assert stand_in.orders == [("DELETE", "/_erni/fault", None)]


def test_somebody_else_on_that_port_is_said(
    erni: Callable[..., Ran], stand_in: type[_StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_in, "status", 404)
    ran = erni("fault", "sharepoint", "reset", "--json")
    assert ran.code == 1
    assert "takes no faults (HTTP 404" in ran.document["error"]


def test_no_time_at_all_is_wrong_usage(erni: Callable[..., Ran], stand_in: type[_StandIn]) -> None:
    ran = erni("fault", "sharepoint", "503", "--for", "0s")
    assert ran.code == 2
    assert "'0s' is no time at all" in ran.err
    assert stand_in.orders == []


@pytest.mark.parametrize(
    ("variables", "part", "sentence"),
    [
        ({}, "sharepoint", "type the command in the folder of your `erni up`"),
        (
            {"GRAPH_URL": "https://graph.microsoft.com/v1.0"},
            "sharepoint",
            "GRAPH_URL (https://graph.microsoft.com) is no local stand-in",
        ),
        ({"GRAPH_URL": "http://127.0.0.1:1/v1.0"}, "sharepoint", "nobody answers on 127.0.0.1:1"),
        ({}, "vision", "VISION_BACKEND=local: photos are described inside the agent"),
        ({"VISION_BACKEND": "openai", "VISION_MODEL": "m"}, "vision", "VISION_URL (https://api.openai.com)"),
    ],
)
def test_a_real_service_is_left_alone(
    erni: Callable[..., Ran],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    part: str,
    sentence: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ran = erni("fault", part, "503")
    assert ran.code == 1
    assert sentence in ran.err
