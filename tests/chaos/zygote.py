"""Agent processes in a few milliseconds each: forked from one that has imported everything.

``python -m tests.chaos.zygote`` reads one JSON line per process to start (`Order`) and writes one per process
that was started or has ended (`News`). A child runs `consumers.__main__.main`, as ``python -m consumers``
does; what a test wants different is changed in the child alone, never by a flag in the product.
"""

from __future__ import annotations

import gc
import os
import random
import selectors
import signal
import sys
import traceback
from typing import Final

import msgspec
import uvloop  # noqa: F401 - before the forks, as all that the agents need

import consumers.__main__
import shared.delivery.process
import shared.telemetry.manager  # noqa: F401
from events import topology
from sandbox.children import end_with_parent
from tests.chaos import bugs, hooks, light_agents

REAL: Final = topology.CONSUMERS


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A process to start."""

    number: int
    """Comes back in the news of its start."""
    agent: str
    light: bool
    newer: bool
    """Run a later version of the code, whose events have a field more."""
    bug: str = ""
    environment: dict[str, str]
    folder: str
    log: str


class News(msgspec.Struct, frozen=True, kw_only=True):
    """A process was started (`number`), or has ended (`code`, negative: by that signal)."""

    pid: int
    number: int | None = None
    code: int | None = None


_ORDERS: Final = msgspec.json.Decoder(Order)


def _run(order: Order) -> int:
    """What the child does, until it ends."""
    log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.environ.update(order.environment)
    os.chdir(order.folder)
    random.seed()
    if order.agent == topology.NOTIFIER.agent:
        hooks.patient()
    elif order.light:
        vars(consumers.__main__)["agent_class"] = light_agents.LIGHT.__getitem__
    if order.newer:
        bugs.write_a_field_more()
    if order.bug:
        bugs.PLANT[order.bug]()
    return consumers.__main__.main([order.agent])


def _start(order: Order) -> None:
    arm = end_with_parent()
    pid = os.fork()
    if pid:
        _tell(News(pid=pid, number=order.number))
        return
    code = 1
    try:
        if arm:
            arm()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        code = _run(order)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


def _tell(news: News) -> None:
    os.write(1, msgspec.json.encode(news) + b"\n")


def main() -> None:
    """Serve until standard input ends."""
    for name in REAL:
        consumers.__main__.agent_class(name)
    gc.collect()
    gc.freeze()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wake)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    rest = b""
    while True:
        for key, _ in selector.select():
            data = os.read(key.fd, 1 << 16)
            if key.fd == 0:
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    _start(_ORDERS.decode(line))
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            _tell(News(pid=pid, code=os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    main()
