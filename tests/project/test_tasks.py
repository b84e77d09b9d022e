"""What `make` and `.ci/run` do, as far as it can be seen without a fresh machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from tests.tools import ROOT

if TYPE_CHECKING:
    from pathlib import Path

MAKEFILE: Final = (ROOT / "Makefile").read_text()
MAKE: Final = shutil.which("make") or "make"
BASH: Final = shutil.which("bash") or "bash"


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        [MAKE, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_help_lists_every_task() -> None:
    tasks = set(re.findall(r"^\.PHONY: (\w+)$", MAKEFILE, re.MULTILINE))
    assert {"demo", "test", "check", "chaos", "bench", "lock", "clean"} <= tasks
    listed = make(ROOT, "help").stdout
    assert {line.split()[1] for line in listed.splitlines()} == tasks
    assert make(ROOT).stdout == listed


@pytest.mark.parametrize(
    ("version", "code", "said"),
    [
        ("v2.24.0", 0, "Docker Compose 2.24.0 is new enough"),
        ("2.31.0-desktop.2", 0, "is new enough"),
        ("2.9.1", 2, "Docker Compose 2.9.1 is too old: install version 2.24.0 or newer"),
        ("", 2, "there is no Docker Compose here"),
    ],
)
def test_the_version_of_compose_is_checked(tmp_path: Path, version: str, code: int, said: str) -> None:
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\n[ "$*" = "compose version --short" ] && echo "{version}"\n')
    docker.chmod(0o755)
    ran = make(ROOT, "compose", f"PATH={tmp_path}:{os.environ['PATH']}")
    assert ran.returncode == code
    assert said in ran.stdout + ran.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A fresh checkout, as far as the Makefile looks at it."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("missing-python", "no Python 3.11 or newer found (looked for: missing-python)"),
        ("old-python", "no Python 3.11 or newer found"),
        ("python-without-venv", "cannot make virtual environments"),
    ],
)
def test_without_a_python_that_does_the_task_ends_with_a_sentence(
    checkout: Path, python: str, said: str
) -> None:
    programs = checkout / "bin"
    programs.mkdir()
    for name, fails_on in (("old-python", "version_info"), ("python-without-venv", "ensurepip")):
        (programs / name).write_text(f'#!/bin/sh\ncase "$2" in *{fails_on}*) exit 1;; esac\n')
        (programs / name).chmod(0o755)
    chosen = python if python.startswith("missing") else str(programs / python)
    result = make(checkout, "demo", f"PYTHON={chosen}")
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not (checkout / ".venv").exists()


PYTHON_THAT_RECORDS: Final = """\
#!/bin/sh
# stands for python, and for pip in the environment that it makes
case "$*" in
    "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    *"install --require-hashes"*) echo "$*" >>calls; test ! -e broken || exit 1 ;;
    *"pip install"* | *"install --no-deps"*) echo "$*" >>calls ;;
esac
"""


@pytest.fixture
def installing(checkout: Path) -> Path:
    """A checkout whose python only notes what it is asked to install."""
    (checkout / "python").write_text(PYTHON_THAT_RECORDS)
    (checkout / "python").chmod(0o755)
    return checkout


def install(folder: Path) -> subprocess.CompletedProcess[str]:
    return make(folder, ".venv/.installed", f"PYTHON={folder / 'python'}")


def calls(folder: Path) -> list[str]:
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_the_lock_is_installed_with_its_hashes_once(installing: Path) -> None:
    assert install(installing).returncode == 0
    dependencies, project = calls(installing)
    assert "--require-hashes --no-deps --requirement requirements.lock" in dependencies
    assert "--no-deps --no-build-isolation --editable ." in project
    assert install(installing).returncode == 0
    assert len(calls(installing)) == 2


def test_a_changed_lock_is_installed_again(installing: Path) -> None:
    install(installing)
    later = (installing / ".venv" / ".installed").stat().st_mtime + 5
    os.utime(installing / "requirements.lock", (later, later))
    install(installing)
    assert len(calls(installing)) == 4


def test_an_interrupted_installation_starts_from_nothing(installing: Path) -> None:
    install(installing)
    (installing / ".venv" / ".installed").unlink()
    (installing / ".venv" / ".installing").touch()
    (installing / ".venv" / "half-written").touch()
    install(installing)
    assert not (installing / ".venv" / "half-written").exists()
    assert (installing / ".venv" / ".installed").exists()


def test_a_moved_checkout_starts_from_nothing(installing: Path, tmp_path: Path) -> None:
    install(installing)
    (installing / ".venv" / "of-the-old-place").touch()
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "python", ".venv"):
        (installing / name).rename(moved / name)
    install(moved)
    assert not (moved / ".venv" / "of-the-old-place").exists()
    assert len(calls(moved)) == 2


def test_without_the_network_it_says_so_and_can_be_run_again(installing: Path) -> None:
    (installing / "broken").touch()
    result = install(installing)
    assert result.returncode == 2
    assert "the locked packages could not be installed" in result.stderr
    (installing / "broken").unlink()
    assert install(installing).returncode == 0


EVERYTHING = ("python3", "curl", "gcc", "node", "npm", "chromium", "redis-server", "strace", "promtool")


def ci(
    folder: Path, *, present: tuple[str, ...], refuse: int = 0, system_python: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run .ci/run on a machine that has `present`, whose apt-get fails `refuse` times first."""
    programs = folder / "bin"
    programs.mkdir()
    stubs = dict.fromkeys(present, "exit 0")
    stubs |= {
        "id": "echo 0",
        "sleep": 'echo "sleep $*" >>"$CALLS"',
        "dpkg-deb": "mkdir -p usr/bin && touch usr/bin/promtool && chmod +x usr/bin/promtool",
        "timeout": 'shift 2; "$@"',
        "make": 'echo "make $* REQUIRE_ALL=$REQUIRE_ALL" >>"$CALLS"; echo "7 passed in 1.00s"',
        "apt-get": (
            'echo "apt-get $*" >>"$CALLS"\n'
            f'test "$(grep -c apt-get "$CALLS")" -gt {refuse} || exit 100\n'
            'test ! -e "$POLICY_RC_D" || echo "no service starts" >>"$CALLS"\n'
            'case "$*" in *" download "*) touch prometheus_1.deb ;; esac'
        ),
    }
    for name, body in stubs.items():
        (programs / name).write_text(f"#!{BASH}\n{body}\n")
        (programs / name).chmod(0o755)
    for name in ("bash", "cat", "chmod", "dirname", "grep", "mkdir", "rm", "touch"):
        found = shutil.which(name)
        assert found
        (programs / name).symlink_to(found)
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci")
    environment = {
        "PATH": str(programs),
        "CALLS": str(folder / "calls"),
        "POLICY_RC_D": str(folder / "policy-rc.d"),
        "SYSTEM_PYTHON": system_python,
    }
    command = [BASH, str(folder / ".ci" / "run")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_ci_installs_only_what_is_missing_and_lets_no_service_start(tmp_path: Path) -> None:
    result = ci(tmp_path, present=("python3", "curl", "gcc", "node", "npm"))
    assert result.returncode == 0, result.stderr
    asked = [re.sub(r"-q -o \S+ ", "", line) for line in calls(tmp_path)]
    assert asked == [
        "apt-get update",
        "apt-get download prometheus",
        "apt-get install -y --no-install-recommends chromium fonts-liberation redis-server strace",
        "no service starts",
        "make test REQUIRE_ALL=1",
    ]
    assert (tmp_path / ".cache" / "prometheus" / "usr" / "bin" / "promtool").is_file()
    assert not (tmp_path / "policy-rc.d").exists()
    assert result.stdout.splitlines()[-1] == "7 passed in 1.00s"


def test_ci_with_everything_there_only_runs_the_tests(tmp_path: Path) -> None:
    result = ci(
        tmp_path,
        present=("python3", "curl", "gcc", "node", "npm", "chromium", "redis-server", "strace", "promtool"),
    )
    assert result.returncode == 0
    assert calls(tmp_path) == ["make test REQUIRE_ALL=1"]


def test_ci_runs_the_demo_with_the_distributions_python_first(tmp_path: Path) -> None:
    everything = (
        "python3",
        "system-python",
        "curl",
        "gcc",
        "node",
        "npm",
        "chromium",
        "redis-server",
        "strace",
        "promtool",
    )
    result = ci(tmp_path, present=everything, system_python="system-python")
    assert result.returncode == 0, result.stderr
    assert calls(tmp_path) == [
        "make demo VENV=.cache/system-python PYTHON=system-python ARGS=--photos 6 REQUIRE_ALL=",
        "make test REQUIRE_ALL=1",
    ]


def test_ci_asks_a_mirror_that_fails_once_more(tmp_path: Path) -> None:
    result = ci(
        tmp_path, present=("python3", "curl", "gcc", "node", "npm", "chromium", "redis-server"), refuse=1
    )
    assert result.returncode == 0, result.stdout
    assert "sleep 10" in calls(tmp_path)
    assert calls(tmp_path)[-1] == "make test REQUIRE_ALL=1"


def test_ci_whose_mirror_fails_twice_ends_with_a_sentence(tmp_path: Path) -> None:
    result = ci(
        tmp_path, present=("python3", "curl", "gcc", "node", "npm", "chromium", "redis-server"), refuse=2
    )
    assert result.returncode != 0
    assert "apt-get update failed twice" in result.stdout
    assert not any(line.startswith("make") for line in calls(tmp_path))
