# noqa: INP001 - a command, run by its path
"""Makes an environment with the schemas of Kubernetes: ``kubernetes_schemas.py FOLDER``."""

import subprocess
import sys
import venv
from pathlib import Path

PACKAGE = "kubernetes-validate==1.37.0"

folder = Path(sys.argv[1])
venv.create(folder, with_pip=True, clear=True)
pip = [
    str(folder / "bin" / "python"),
    "-m",
    "pip",
    "install",
    "--quiet",
    "--disable-pip-version-check",
    PACKAGE,
]
sys.exit(subprocess.run(pip, check=False).returncode)  # noqa: S603 - our own command line
