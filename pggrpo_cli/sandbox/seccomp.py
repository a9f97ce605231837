"""A seccomp filter: the system calls that no programming task needs, refused by the kernel.

Without fork there is no fork bomb and no daemon, whatever the limits do (RLIMIT_NPROC does not bind root). Threads are
allowed. Sockets are refused whatever their family: a network namespace does not hold those of virtual machines (AF_VSOCK).
Pairs of AF_UNIX remain, which asyncio needs and which reach nobody. The rest is what would go round the memory limit or widens
the kernel's surface.
"""

from __future__ import annotations

import errno
import platform
import struct

from pggrpo_cli.errors import ConfigError

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_* of linux/audit.h."""

CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3 = 435
CLONE_THREAD = 0x00010000
SOCKETPAIR = {"x86_64": 53, "aarch64": 199}
AF_UNIX = 1
REFUSED = {
    "x86_64": {
        **{"fork": 57, "vfork": 58, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311},
        **{"mount": 165, "unshare": 272, "setns": 308, "add_key": 248, "request_key": 249, "keyctl": 250},
        **{"bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425},
        **{"socket": 41, "memfd_create": 319, "shmget": 29, "msgget": 68, "semget": 64, "mq_open": 240},
    },
    "aarch64": {
        **{"ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271},
        **{"mount": 40, "unshare": 97, "setns": 268, "add_key": 217, "request_key": 218, "keyctl": 219},
        **{"bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "io_uring_setup": 425},
        **{"socket": 198, "memfd_create": 279, "shmget": 194, "msgget": 186, "semget": 190, "mq_open": 180},
    },
}
X32_CALLS = 0x40000000
"""On x86_64 the same calls have a second set of numbers from here on."""

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000


def filter_bytes(machine: str | None = None) -> bytes:
    """The filter as bubblewrap's --seccomp reads it: an array of struct sock_filter. Raises ConfigError."""
    name = machine or platform.machine()
    if name not in MACHINES:
        raise ConfigError(
            f"`reward.code_tests.sandbox`: the filter of system calls knows {', '.join(MACHINES)}, not {name!r}; "
            "sandbox=rlimits is what remains there, and docs/sandbox.md says what it does not do."
        )
    refuse = [(_RETURN, 0, 0, _ERROR | errno.EPERM)]
    program = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 1, 0, MACHINES[name]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if name == "x86_64":
        program += [(_AT_LEAST, 0, 1, X32_CALLS), *refuse]
    for number in REFUSED[name].values():
        program += [(_EQUAL, 0, 1, number), *refuse]
    program += [
        (_EQUAL, 0, 1, CLONE3),  # its flags lie in memory that a filter cannot read; the C library falls back to clone
        (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
        (_EQUAL, 0, 4, CLONE[name]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, 1, 0, CLONE_THREAD),
        *refuse,
        (_RETURN, 0, 0, _ALLOW),
        (_EQUAL, 0, 3, SOCKETPAIR[name]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_EQUAL, 1, 0, AF_UNIX),
        *refuse,
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
