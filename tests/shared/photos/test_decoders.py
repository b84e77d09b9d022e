"""Foreign bytes are decoded in a process of their own, and cost nobody but themselves."""

from __future__ import annotations

import asyncio
import resource
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil
import pytest
import structlog
from PIL import Image

from sandbox.heic import heic
from shared.photos import decoder_child, system_calls
from shared.photos.decoder_child import DecoderError
from shared.photos.decoders import Decoders, Limits
from shared.retry.classify import Kind, classify
from shared.retry.errors import PermanentError, TransientError
from shared.retry.limit import TimeLimits
from tests.shared.photos.bombs import BOMBS
from tests.shared.photos.pictures import jpeg, picture, saved
from tests.shared.photos.test_open import (
    interlaced_png,
    jpeg_of_size,
    png_header,
    repeated_heic,
    webp_canvas,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT: Final = Path(__file__).parents[3]
PHOTO: Final = jpeg()
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
async def decoders() -> AsyncIterator[Decoders]:
    async with Decoders() as decoders:
        yield decoders


def processes(parent: int | None = None) -> list[psutil.Process]:
    """The decoder processes of this process, or of another one."""
    return [
        child
        for child in psutil.Process(parent).children()
        if child.status() != psutil.STATUS_ZOMBIE and "shared.photos.decoder_process" in child.cmdline()
    ]


async def warm(decoders: Decoders) -> psutil.Process:
    """The one process, which has had a photo."""
    await decoders.examine(PHOTO)
    (process,) = processes()
    return process


async def test_a_photo_is_examined_and_made_smaller(decoders: Decoders, tmp_path: Path) -> None:
    file = tmp_path / "photo"
    file.write_bytes(PHOTO)
    examined = await decoders.examine(file)
    assert (examined.header.media_type, examined.header.width) == ("image/jpeg", 48)
    assert await decoders.examine(PHOTO) == examined
    assert (await decoders.preview(saved(picture(640, 480)), 320)).startswith(b"\xff\xd8")
    assert len(processes()) == 1


async def test_what_is_no_photo_is_refused_with_its_sentence(decoders: Decoders) -> None:
    with pytest.raises(PermanentError, match=r"^the file is a PDF document, not a photo \(named a\.jpg\)"):
        await decoders.examine(b"%PDF-1.7\n", name="a.jpg")


def test_an_agent_does_not_load_a_decoder_itself() -> None:
    script = (
        "import sys, consumers.photo_fetcher, consumers.validation_reporter, consumers.vision_analyzer\n"
        "print([name for name in ('pyvips', 'pi_heif') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True)
    assert found.stdout.strip() == b"[]"


@needs_linux
async def test_the_process_has_no_secrets_no_files_and_no_way_to_open_any(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", "CANARY")
    process = await warm(decoders)
    folder = Path(f"/proc/{process.pid}")
    assert (folder / "environ").read_bytes() == b""
    opened = {entry.name: str(entry.readlink()) for entry in (folder / "fd").iterdir()}
    assert sorted(opened) == ["0", "1", "2", "3"]
    assert opened["0"].startswith("socket:")
    assert opened["1"] == opened["2"] == "/dev/null"
    assert "memfd:" in opened["3"]
    assert process.rlimit(resource.RLIMIT_NOFILE) == (5, 5)
    assert process.rlimit(resource.RLIMIT_FSIZE) == (0, 0)
    assert process.rlimit(resource.RLIMIT_AS)[1] < 600_000_000
    status = (folder / "status").read_text()
    assert "NoNewPrivs:\t1" in status
    # 2: the kernel filters its calls
    assert "Seccomp:\t2" in status


_ATTEMPTS: Final = """
import os, socket, sys, threading
from shared.photos import decoder_process
from shared.photos.decoder_messages import Failed

AGENT = os.getppid()

def tries():
    os.close(2)  # so that no limit of descriptors is in the way
    yield "socket", lambda: socket.socket()
    yield "pair", lambda: socket.socketpair()
    yield "file", lambda: open("/etc/passwd")
    yield "environment of the agent", lambda: open(f"/proc/{AGENT}/environ")
    yield "program", lambda: os.execv("/bin/true", ["true"])
    yield "signal", lambda: os.kill(AGENT, 0)

def attempt(_request, _photo):
    said = []
    def run():
        for name, call in tries():
            try:
                call()
                said.append(f"{name}: it went")
            except OSError as error:
                said.append(f"{name}: {error.strerror}")
    # a thread from before the filter has it too
    go.set()
    done.wait()
    run()
    return Failed(text="; ".join(said + [f"in a thread, {line}" for line in early]))

go, done, early = threading.Event(), threading.Event(), []

def of_a_thread():
    go.wait()
    try:
        socket.socket()
        early.append("socket: it went")
    except OSError as error:
        early.append(f"socket: {error.strerror}")
    done.set()

def work():
    threading.Thread(target=of_a_thread, daemon=True).start()
    return attempt

decoder_process._work = work
decoder_process.main()
"""


@needs_linux
async def test_code_in_the_process_reaches_no_network_no_file_and_no_other_process(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_child, "COMMAND", (sys.executable, "-B", "-c", _ATTEMPTS))
    with pytest.raises(RuntimeError) as caught:
        await decoders.examine(PHOTO)
    names = ("socket", "pair", "file", "environment of the agent", "program", "signal", "in a thread, socket")
    refused = "; ".join(f"{name}: Operation not permitted" for name in names)
    assert str(caught.value) == f"the photo decoder failed: {refused}"


@needs_linux
async def test_a_kernel_that_filters_nothing_is_said_once_and_photos_are_decoded(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = (
        "from shared.photos import decoder_process\n"
        "decoder_process.refuse_calls = lambda: 'Function not implemented'\n"
        "decoder_process.main()"
    )
    monkeypatch.setattr(decoder_child, "COMMAND", (sys.executable, "-B", "-c", refusing))
    decoder_child._say_once.cache_clear()
    with structlog.testing.capture_logs() as lines:
        await decoders.examine(PHOTO)
        for process in psutil.Process().children():
            if "-B" in process.cmdline():
                process.kill()
        await decoders.examine(PHOTO)
    assert lines == [
        {
            "event": "the system calls of the photo decoder are not filtered",
            "error": "Function not implemented",
            "log_level": "warning",
        }
    ]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_is_a_program_that_the_kernel_takes(machine: str) -> None:
    steps = [struct.unpack("HBBI", step) for step in system_calls._steps(system_calls._MACHINES[machine])]
    ends = {len(steps) - 1: "refused", len(steps) - 2: "allowed", 2: "killed"}

    def verdict(architecture: int, number: int) -> str:
        at, loaded = 0, 0
        while at not in ends:
            code, if_true, if_false, value = steps[at]
            if code == 0x20:
                loaded = {0: number, 4: architecture}[value]
                at += 1
            else:
                holds = loaded == value if code == 0x15 else loaded >= value
                at += 1 + (if_true if holds else if_false)
        return ends[at]

    known = system_calls._MACHINES[machine]
    assert {verdict(known.audit, number) for number in known.refused} == {"refused"}
    others = set(range(600)) - set(known.refused)
    assert {verdict(known.audit, number) for number in others} == {"allowed"}
    assert verdict(known.audit, 0x40000000) == verdict(known.audit, 0x40000000 + 41) == "refused"
    assert verdict(0x40000003, 1) == "killed"


@needs_linux
def test_the_process_ends_with_its_agent() -> None:
    script = (
        "import asyncio, sys\n"
        "from shared.photos.decoders import Decoders\n"
        "async def main():\n"
        "    decoders = Decoders()\n"
        "    await decoders.examine(bytes.fromhex(sys.argv[1]))\n"
        "    print('started', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    agent = subprocess.Popen([sys.executable, "-c", script, PHOTO.hex()], cwd=ROOT, stdout=subprocess.PIPE)
    assert agent.stdout is not None
    assert agent.stdout.readline() == b"started\n"
    (decoder,) = processes(agent.pid)
    # it waits for nothing: a process that is stopped does not read its connection either
    decoder.suspend()
    agent.kill()
    agent.communicate()
    assert psutil.wait_procs([decoder], timeout=20)[1] == []


async def test_a_signal_for_the_agents_group_does_not_end_a_photo(decoders: Decoders) -> None:
    process = await warm(decoders)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
    await decoders.examine(PHOTO)
    assert processes() == [process]


async def test_too_much_computing_is_the_photos_fault_and_the_next_photo_is_decoded() -> None:
    slow = repeated_heic(12_000, 9_990)
    async with Decoders(limits=Limits(cpu_seconds=1)) as decoders:
        process = await warm(decoders)
        with pytest.raises(PermanentError, match=r"^the photo \(named a\.heic\) takes more than 1 s of comp"):
            await decoders.preview(slow, name="a.heic")
        assert process not in processes()
        await decoders.preview(PHOTO)


async def test_too_much_memory_is_the_photos_fault_and_the_next_photo_is_decoded() -> None:
    large = interlaced_png(4_000, 4_000)
    async with Decoders(limits=Limits(memory_bytes=20_000_000)) as decoders:
        with pytest.raises(PermanentError, match="takes more than 20 MB of memory to decode"):
            await decoders.preview(large)
        await decoders.preview(PHOTO)


async def test_a_machine_that_is_too_busy_is_not_the_photos_fault(decoders: Decoders) -> None:
    process = await warm(decoders)
    decoders._limits = Limits(seconds=0.2)
    process.suspend()
    with pytest.raises(TransientError, match=r"not decoded within 0\.2 s: this machine is busy"):
        await decoders.examine(PHOTO)
    assert process not in processes()
    decoders._limits = Limits()
    await decoders.examine(PHOTO)


async def test_a_crash_is_looked_at_again_alone(decoders: Decoders) -> None:
    process = await warm(decoders)
    process.suspend()
    asked = asyncio.create_task(decoders.examine(PHOTO))
    await asyncio.sleep(0)
    process.send_signal(signal.SIGSEGV)
    process.resume()
    assert (await asked).header.width == 48


FAKE: Final = """
import os, signal, socket, sys
connection = socket.socket(fileno=0)
connection.sendall(bytes([0, 0, 0, len(READY)]) + READY)
connection.recv(1000)
os.kill(os.getpid(), NUMBER)
"""


def fake(number: int) -> tuple[str, ...]:
    """A decoder that ends by that signal with its first photo."""
    ready = b"\x81\xa4type\xa5ready"
    return sys.executable, "-c", FAKE.replace("READY", repr(ready)).replace("NUMBER", str(int(number)))


async def test_a_crash_that_repeats_in_a_fresh_process_is_the_photos_fault(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_child, "COMMAND", fake(signal.SIGABRT))
    with pytest.raises(PermanentError, match=r"makes its decoder fail \(SIGABRT\), twice"):
        await decoders.examine(PHOTO)


async def test_a_process_killed_from_outside_is_not_the_photos_fault(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_child, "COMMAND", fake(signal.SIGKILL))
    with pytest.raises(TransientError, match="killed from outside, twice"):
        await decoders.examine(PHOTO)


@pytest.mark.parametrize("command", [(sys.executable, "-c", "raise SystemExit(1)"), ("/no/such/program",)])
async def test_a_decoder_that_does_not_start_is_this_machines_fault(
    decoders: Decoders, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_child, "COMMAND", command)
    with pytest.raises(DecoderError, match="the photo decoder does not start") as caught:
        await decoders.examine(PHOTO)
    assert classify(caught.value) is not Kind.PERMANENT


async def test_a_photo_that_is_given_up_ends_its_process(decoders: Decoders) -> None:
    process = await warm(decoders)
    process.suspend()
    asked = asyncio.create_task(decoders.examine(PHOTO))
    done, _ = await asyncio.wait([asked], timeout=0.1)
    assert not done
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await decoders.examine(PHOTO)
    assert process not in processes()


async def test_waiting_for_a_decoder_burns_no_deadline(decoders: Decoders) -> None:
    await warm(decoders)
    task: asyncio.Task[None] | None = asyncio.current_task()
    assert task is not None
    limits = TimeLimits(0.4)
    watcher = asyncio.create_task(limits.watch())
    await decoders._turns.acquire()
    asyncio.get_running_loop().call_later(1.2, decoders._turns.release)
    with limits.of(task) as limit:
        limit.since = time.monotonic()
        await decoders.examine(PHOTO)
    watcher.cancel()


async def test_photos_wait_for_their_turn_in_order(decoders: Decoders) -> None:
    order: list[int] = []

    async def examine(number: int) -> None:
        await decoders.examine(PHOTO)
        order.append(number)

    await asyncio.gather(*map(examine, range(6)))
    assert order == list(range(6))
    assert len(processes()) == 1


async def test_no_process_is_left_behind() -> None:
    async with Decoders(size=2) as decoders:
        await decoders.open()
        assert len(processes()) == 2
    assert processes() == []


@needs_linux
@pytest.mark.timeout(600)
async def test_the_largest_photos_and_the_bombs_stay_within_memory_and_time() -> None:
    """One after the other in one process; the most it ever needed is what counts."""
    taken = {
        "progressive.jpg": saved(Image.new("RGB", (6_900, 6_900), "#306030"), progressive=True),
        "largest.png": saved(Image.new("RGBA", (10_950, 10_950)), "PNG", compress_level=1),
        "widest.png": saved(Image.new("RGBA", (16_384, 7_300)), "PNG", compress_level=1),
        "interlaced.png": interlaced_png(5_470, 5_470),
        "lossless.webp": saved(
            Image.new("RGBA", (6_320, 6_320), "#60a03080"), "WEBP", lossless=True, method=0
        ),
        "120 megapixels.heic": repeated_heic(12_000, 9_990),
        "one piece.heic": heic(Image.new("RGB", (3_200, 3_000), "#306090")),
    }
    refused = {
        "header.png": png_header(50_000, 50_000),
        "header.jpg": jpeg_of_size(jpeg(), 65_000, 65_000),
        "canvas.webp": webp_canvas(1 << 24, 1 << 24),
    }
    outcomes: dict[str, str] = {}
    async with Decoders(limits=Limits(seconds=300)) as decoders:
        process = await warm(decoders)
        for name, data in (taken | refused | {name: make() for name, make in BOMBS.items()}).items():
            before = process.cpu_times()
            try:
                await decoders.examine(data, name=name)
                await decoders.preview(data, name=name)
                outcomes[name] = "taken"
            except PermanentError as error:
                outcomes[name] = str(error)
            after = process.cpu_times()
            if name in BOMBS:
                assert after.user + after.system - before.user - before.system < 2
        assert [outcomes[name] for name in taken] == ["taken"] * len(taken)
        assert all("are decoded: make it smaller" in outcomes[name] for name in refused)
        # not even one of them ended it
        assert processes() == [process]
        status = await asyncio.to_thread(Path(f"/proc/{process.pid}/status").read_text)
        assert 0 < int(status.partition("VmHWM:")[2].split()[0]) // 1024 < 220


def test_a_decoder_imports_what_decoding_needs_and_no_more() -> None:
    """An import costs each decoder time and memory, and what is not there cannot be attacked."""
    code = "import sys, shared.photos.decoder_process as p; p._work(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    heavy = {"aiohttp", "asyncio", "email", "http", "opentelemetry", "structlog", "redis"}
    assert heavy.isdisjoint(name.partition(".")[0] for name in modules.split())
