"""Makes the environment of each other library on demand: `.cache/peers/NAME`, by venv and pip."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[2] / ".cache" / "peers"
_REDIS: Final = ("redis==8.1.0", "hiredis==3.5.0")
_LOOP: Final = "uvloop==0.23.0"
REQUIREMENTS: Final = {
    "faststream": (
        "faststream[redis,otel,prometheus]==0.7.8",
        "opentelemetry-sdk==1.45.2",
        "opentelemetry-exporter-otlp-proto-grpc==1.45.2",
        *_REDIS,
        _LOOP,
    ),
    "redis_stream_queue": ("redis-stream-queue==0.1.3", *_REDIS, _LOOP),
    "taskiq": ("taskiq-redis==1.2.4", "taskiq==0.13.0", *_REDIS, _LOOP),
    "dramatiq": ("dramatiq[redis]==2.2.1", *_REDIS),
    "streaq": ("streaq==7.2.0", "coredis==6.9.0", _LOOP),
    "docket": ("pydocket==0.27.0", *_REDIS, _LOOP),
}
_INSTALL_SECONDS: Final = 300


class MissingError(RuntimeError):
    """Report that an environment cannot be made; the message says why."""


def python_of(name: str) -> Path:
    """Return the Python of a library's environment; make the environment if needed. Raises MissingError."""
    folder = FOLDER / name
    python = folder / "bin" / "python"
    wanted = "\n".join(REQUIREMENTS[name])
    mark = folder / "installed"
    if mark.is_file() and mark.read_text() == wanted:
        return python
    for step in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS[name]],
    ):
        try:
            done = subprocess.run(  # noqa: S603 - our own command lines
                step, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MissingError(
                f"{name} is left out, its environment {folder} cannot be made: {error}"
            ) from None
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
            raise MissingError(f"{name} is left out, its environment {folder} cannot be made: {lines[-1]}")
    mark.write_text(wanted)
    return python
