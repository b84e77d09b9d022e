"""What others chose cannot steer a terminal, and cannot look like a line of ours."""

from __future__ import annotations

import io

import pytest
import structlog

from shared.settings import Settings
from shared.telemetry.logs import configure_logging
from shared.telemetry.printable import printable

HOSTILE = "a\x1b[2Jb\u2028c\u061cd\u202ee\x9bf\r"


def test_controls_separators_and_direction_marks_are_escaped() -> None:
    assert printable(HOSTILE) == r"a\x1b[2Jb\u2028c\u061cd\u202ee\x9bf\r"
    assert printable("Küche 厨房 🏗️\n\ttab") == "Küche 厨房 🏗️\n\ttab"
    assert printable("a\nb", one_line=True) == r"a\nb"


@pytest.mark.usefixtures("logged")
def test_a_log_line_for_people_is_one_line_whatever_a_file_is_called() -> None:
    stream = io.BytesIO()
    configure_logging(Settings(log_format="console"), stream=stream)
    structlog.get_logger().info("taken\n12:00:00 [error] forged", file_name=HOSTILE + "\nforged")
    text = stream.getvalue().decode()
    assert text.count("\n") == 1
    assert not set(text) & set("\x1b\u2028\u061c\u202e\x9b\r")
