"""Takes the system calls from this process that decoding never needs: network, files, other processes.

A limit of descriptors alone does not keep hostile code in a decoder from the network, or from the environment
of its agent in /proc: it can close one of its own descriptors and open another in that place. So the kernel
filters the calls of every thread, for good (seccomp(2)). A call that is refused fails with EPERM.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Machine(msgspec.Struct, frozen=True, kw_only=True):
    """How the kernel names things on a kind of processor."""

    audit: int
    """AUDIT_ARCH_… of linux/audit.h."""
    seccomp: int
    """Number of seccomp(2)."""
    refused: tuple[int, ...]
    """Numbers of the calls that are refused, as in asm/unistd_64.h and asm-generic/unistd.h."""


_COMMON: Final = (
    425,  # io_uring_setup, which could make sockets without any of these calls
    426,  # io_uring_enter
    427,  # io_uring_register
    434,  # pidfd_open
    437,  # openat2
    438,  # pidfd_getfd
)
_MACHINES: Final[Mapping[str, _Machine]] = {
    "x86_64": _Machine(
        audit=0xC000003E,
        seccomp=317,
        # open, socket, connect, accept, sendmsg, bind, listen, socketpair, fork, vfork, execve, kill, creat,
        # ptrace, openat, accept4, sendmmsg, process_vm_readv, process_vm_writev, bpf, execveat
        refused=(
            *(2, 41, 42, 43, 46, 49, 50, 53, 57, 58, 59, 62, 85),
            *(101, 257, 288, 307, 310, 311, 321, 322),
            *_COMMON,
        ),
    ),
    "aarch64": _Machine(
        audit=0xC00000B7,
        seccomp=277,
        # openat, ptrace, kill, socket, socketpair, bind, listen, accept, connect, sendmsg, execve, accept4,
        # sendmmsg, process_vm_readv, process_vm_writev, bpf, execveat
        refused=(
            *(56, 117, 129, 198, 199, 200, 201, 202, 203, 211, 221),
            *(242, 269, 270, 271, 280, 281),
            *_COMMON,
        ),
    ),
}
# linux/bpf_common.h, linux/seccomp.h
_LOAD: Final = 0x20
_EQUAL: Final = 0x15
_AT_LEAST: Final = 0x35
_RETURN: Final = 0x06
_OF_X32: Final = 0x40000000
"""Calls of the x32 interface have this bit: the same calls under other numbers."""
_KILL_PROCESS: Final = 0x80000000
_ERRNO: Final = 0x00050000
_ALLOW: Final = 0x7FFF0000
_NUMBER, _ARCHITECTURE = 0, 4
_SET_MODE_FILTER: Final = 1
_ALL_THREADS: Final = 1
_GET_ACTION_AVAIL: Final = 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))


def refuse_calls() -> str:
    """Filter the calls of all threads of this process from now on; return '' or why that is not possible.

    The process must have said before that it gains no privileges (PR_SET_NO_NEW_PRIVS).
    """
    machine = _machine()
    if machine is None:
        return f"no list of system calls for {sys.platform} on {platform.machine()}"
    steps = _steps(machine)
    text = ctypes.create_string_buffer(b"".join(steps))
    program = _Program(len(steps), ctypes.cast(text, ctypes.c_void_p))
    return _called(machine.seccomp, _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(program))


def refusal_possible() -> str:
    """Return '' if the kernel can filter calls, or why it cannot; changes nothing."""
    machine = _machine()
    if machine is None:
        return f"no list of system calls for {sys.platform} on {platform.machine()}"
    action = ctypes.c_uint32(_ERRNO)
    return _called(machine.seccomp, _GET_ACTION_AVAIL, 0, ctypes.byref(action))


def _machine() -> _Machine | None:
    # a 32-bit program on a 64-bit kernel has other numbers
    right = sys.platform == "linux" and sys.maxsize > 2**32
    return _MACHINES.get(platform.machine()) if right else None


def _called(number: int, operation: int, flags: int, argument: object) -> str:
    library = ctypes.CDLL(None, use_errno=True)
    result: int = library.syscall(ctypes.c_long(number), operation, flags, argument)
    if result > 0:
        return f"thread {result} could not be filtered"
    return os.strerror(ctypes.get_errno() or errno.EINVAL) if result else ""


def _steps(machine: _Machine) -> list[bytes]:
    """Return the program: another architecture kills, the calls of the list fail, all others pass."""

    def step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    count = len(machine.refused)
    return [
        step(_LOAD, _ARCHITECTURE),
        step(_EQUAL, machine.audit, 1, 0),
        step(_RETURN, _KILL_PROCESS),
        step(_LOAD, _NUMBER),
        step(_AT_LEAST, _OF_X32, count + 1, 0),
        # jumps count from the step behind them to the last one
        *(step(_EQUAL, number, count - at, 0) for at, number in enumerate(machine.refused)),
        step(_RETURN, _ALLOW),
        step(_RETURN, _ERRNO | errno.EPERM),
    ]
