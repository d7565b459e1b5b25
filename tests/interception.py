"""Intercept each system call of a program that changes a file, to kill the program there or to let the call fail.

strace can inject faults as well, but it counts the calls of each thread separately (strace(1), ``when=``), so some calls of a
thread with fewer calls are never reached. Here the calls of all threads and processes of a program are one sequence
(seccomp_unotify(2)), and each call is intercepted before it is done.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

# Name: (number on x86_64, index of the argument with the descriptor or path, index of the one with the path's folder).
_OF_DESCRIPTORS = {
    "write": (1, 0), "pwrite64": (18, 0), "writev": (20, 0), "sendfile": (40, 0), "fsync": (74, 0), "fdatasync": (75, 0),
    "ftruncate": (77, 0), "copy_file_range": (326, 2),
}  # fmt: skip
_OF_PATHS = {
    "truncate": (76, 0, None), "rename": (82, 1, None), "mkdir": (83, 0, None), "rmdir": (84, 0, None), "link": (86, 1, None),
    "unlink": (87, 0, None), "symlink": (88, 1, None), "openat": (257, 1, 0), "mkdirat": (258, 1, 0), "unlinkat": (263, 1, 0),
    "renameat": (264, 3, 2), "linkat": (265, 3, 2), "renameat2": (316, 3, 2),
}  # fmt: skip
_NAMES = {number: name for name, (number, *_) in {**_OF_DESCRIPTORS, **_OF_PATHS}.items()}

_AT_FDCWD = -100
_PR_SET_NO_NEW_PRIVS = 38
_SYS_SECCOMP, _SECCOMP_SET_MODE_FILTER, _NEW_LISTENER = 317, 1, 8
_USER_NOTIF, _ALLOW = 0x7FC00000, 0x7FFF0000
_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER_AT, _FLAGS_AT = 0, 16 + 2 * 8
_RECEIVE, _SEND, _CONTINUE = 0xC0502100, 0xC0182101, 1
_NOTICE = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")


class Call(NamedTuple):
    """A call that is about to change a file.

    Attributes:
        name: Name of the system call.
        path: The file; "" for a file without a name, such as a pipe, and for a call that fails anyway.
        process: Id of the calling thread.
    """

    name: str
    path: str
    process: int


Verdict = Callable[[Call], int]


def guard() -> int:
    """Make this process and its children wait for permission before each such call; return the descriptor with their requests."""
    if platform.machine() != "x86_64":
        raise OSError(errno.ENOSYS, f"the numbers of system calls are known for x86_64, not for {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    steps = _program()
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(steps), ctypes.addressof(code)))
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    listener: int = libc.syscall(_SYS_SECCOMP, _SECCOMP_SET_MODE_FILTER, _NEW_LISTENER, program)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp_unotify(2) is needed: Linux 5.8 or newer, outside another such filter")
    return listener


def _program() -> list[tuple[int, int, int, int]]:
    """Return the filter: intercept the calls in the tables, but ``openat`` only if it creates or truncates a file."""
    numbers = sorted(number for number in _NAMES if _NAMES[number] != "openat")
    count = len(numbers)
    return [
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_EQUAL, count + 2, 0, _OF_PATHS["openat"][0]),
        *((_JUMP_EQUAL, count - index, 0, number) for index, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _USER_NOTIF),
        (_LOAD, 0, 0, _FLAGS_AT),
        (_JUMP_SET, 0, 1, os.O_CREAT | os.O_TRUNC),
        (_RETURN, 0, 0, _USER_NOTIF),
        (_RETURN, 0, 0, _ALLOW),
    ]


def supervise(listener: int, verdict: Verdict) -> None:
    """Respond to the requests of a guarded process and its children until all have ended.

    Args:
        listener: The descriptor that :func:`guard` returned; closed at the end.
        verdict: Returns 0 to permit a call, or the errno with which it fails. It may kill the caller.
    """
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    with os.fdopen(listener):
        while poll.poll()[0][1] & select.POLLIN:
            notice = bytearray(_NOTICE.size)
            # The caller may have been killed meanwhile.
            with suppress(OSError):
                fcntl.ioctl(listener, _RECEIVE, notice)
                number, process, _, call, _, _, *arguments = _NOTICE.unpack(notice)
                error = verdict(Call(_NAMES[call], _path_if_any(process, _NAMES[call], arguments), process))
                fcntl.ioctl(listener, _SEND, _ANSWER.pack(number, 0, -error, 0 if error else _CONTINUE))


def _path_if_any(process: int, name: str, arguments: list[int]) -> str:
    try:
        return _path(process, name, arguments)
    # The descriptor or address may be invalid, for example after another thread closed it; the caller needs a response all the same.
    except OSError:
        return ""


def _path(process: int, name: str, arguments: list[int]) -> str:
    """Return the file of a call; "" for a file without a name, such as a pipe."""
    if name in _OF_DESCRIPTORS:
        target = _of_descriptor(process, arguments[_OF_DESCRIPTORS[name][1]])
        return target if target.startswith("/") else ""
    _, path_at, folder_at = _OF_PATHS[name]
    path = _text(process, arguments[path_at])
    folder = _AT_FDCWD if folder_at is None else ctypes.c_int(arguments[folder_at]).value
    base = os.readlink(f"/proc/{process}/cwd") if folder == _AT_FDCWD else _of_descriptor(process, folder)
    return os.path.normpath(os.path.join(base, path))


def _of_descriptor(process: int, descriptor: int) -> str:
    return os.readlink(f"/proc/{process}/fd/{descriptor}")


def _text(process: int, address: int) -> str:
    with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        data = b""
        while b"\0" not in data and (block := memory.read(256 - (address + len(data)) % 256)):
            data += block
        return os.fsdecode(data.partition(b"\0")[0])
