"""The small process that starts one job as a plain process, outlives topod and writes down how it ended.

Run as `python -I -S process_shim.py [DIRECTORY]`; imports nothing of topod. Without a directory it waits for
one on a line of its stdin, ready to go on at once, and ends when nobody is left who could send one. With a
command behind the directory it becomes that one, beside the job. What it finds and leaves in the directory:

`spec.json`     what to run (written by topod)
`claim.json`    this shim's identity; made by link(2), so of several shims only one goes on
`started.json`  the job's identity; durable before the job's first instruction runs
`exit.json`     exit code and time; written after every process of the job is gone (`alone`), or cannot be
                killed

On stdout it says `started EPOCH_SECONDS` or `claimed`, then closes it.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
STRAGGLER_SECONDS = 10.0
"""How long unkillable processes of a job (in a driver call) hold back the news of its end."""
LOOK_SECONDS = 0.02
NOT_FOUND = 127
CANNOT_RUN = 126
NEVER_RAN = 125
PUNCH_HOLE = 0x02 | 0x01  # linux/falloc.h; 0x01: the size stays
TRIM_BLOCK = 1 << 16
TRIM_SECONDS = (0.05, 0.5)
"""How often the size of the log is looked at: at a job that prints much, and at any other."""


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/PID/stat, see proc_pid_stat(5). `start` in clock ticks since boot."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    start: int

    @property
    def alive(self) -> bool:
        """Whether it still runs code: not a zombie and not dead."""
        return self.state not in "ZX"


def read_process(pid: int) -> Process | None:
    """Return the process, or None when there is none of that number."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return None
    try:
        text = os.read(descriptor, 4096).decode(errors="replace")
    except OSError:
        return None
    finally:
        os.close(descriptor)
    # The name in brackets may hold spaces and brackets itself; the fields after it are plain.
    fields = text.rpartition(")")[2].split()
    return Process(pid, fields[0], int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def all_processes() -> Iterator[Process]:
    """Yield every process of the machine."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - Path.iterdir is slow here, and this runs in a loop
        if name.isdecimal() and (process := read_process(int(name))) is not None:
            yield process


def descendants(pid: int) -> set[int]:
    """Return the living processes that descend from `pid`, without itself."""
    children: dict[int, list[Process]] = {}
    for process in all_processes():
        children.setdefault(process.parent, []).append(process)
    found: set[int] = set()
    todo = [pid]
    while todo:
        for child in children.get(todo.pop(), ()):
            todo.append(child.pid)
            if child.alive:
                found.add(child.pid)
    return found


def boot_id() -> str:
    """Return what tells one boot of the machine from another."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def write_durably(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON file so that after any crash it is there whole or not at all."""
    draft = _draft(path, document)
    draft.rename(path)
    _sync_directory(path.parent)


def claim(directory: Path) -> bool:
    """Become the one shim of this attempt; False when another is."""
    path = directory / "claim.json"
    draft = _draft(path, _identity(os.getpid()))
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    # That it is there gets durable together with `started.json`; before that nothing has happened.
    return True


def trim(log: int, most: int) -> bool:
    """Give the beginning of a log back to the disk where it takes more than `most` bytes; say if it did.

    At least three quarters of `most` are kept. What is gone becomes a hole, so no position in the file moves
    and whoever appends to it notices nothing. File systems that cannot do that keep everything.
    """
    state = os.fstat(log)
    cut = (state.st_size - most + most // 4) // TRIM_BLOCK * TRIM_BLOCK
    if state.st_blocks * 512 <= most or cut <= 0:
        return False
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate64
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return bool(fallocate(log, PUNCH_HOLE, 0, cut) == 0)


def main(named: Path | None) -> None:
    """Run the job of this directory, or of the one that comes on stdin, unless it was run before."""
    # Orphans of the job become children of this process, so none can hide from the clean-up.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if os.fork():
        os._exit(0)  # the shim proper is nobody's child, so topod need not reap it
    os.setsid()
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    directory = _told() if named is None else named
    if directory is None:
        return
    if not claim(directory):
        _say("claimed")
        return
    spec = json.loads((directory / "spec.json").read_text())
    go_read, go_write = os.pipe()
    job = os.fork()
    if job == 0:
        os.close(go_write)
        _become_job(spec, go_read)
    os.close(go_read)
    # Only now: a job that inherited "ignored" would lose a SIGTERM that comes before its first instruction.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    started_at = time.time()
    write_durably(directory / "started.json", {**_identity(job), "started_at": started_at})
    os.write(go_write, b"g")
    os.close(go_write)
    _say(f"started {started_at!r}")
    _until_ended(job, Path(spec["log"]), spec.get("log_bytes"))
    # The zombie is kept until the end: as long as it is there, its number names no other process group.
    info = os.waitid(os.P_PID, job, os.WEXITED | os.WNOWAIT)
    assert info is not None, "waitid without WNOHANG waits"
    code = info.si_status if info.si_code == os.CLD_EXITED else 128 + info.si_status
    if code == 128 + signal.SIGTERM:
        _let_group_finish(job, float(spec["grace_seconds"]))
    _kill_rest(job)
    end = {"exit_code": code, "ended_at": time.time(), "alone": _alone()}
    write_durably(directory / "exit.json", end)
    os.waitpid(job, 0)


def _told() -> Path | None:
    """Return the directory that comes on stdin; None when there is nobody any more to send one."""
    text = b""
    while not text.endswith(b"\n"):
        piece = os.read(0, 4096)
        if not piece:
            return None
        text += piece
    return Path(os.fsdecode(text[:-1]))


def _become_job(spec: dict[str, Any], go: int) -> NoReturn:
    """Wait for the word, then turn into the job's command. The log file is opened with topod's rights."""
    status = NEVER_RAN
    try:
        for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):  # those that Python changes
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        if not os.read(go, 1):
            os._exit(NEVER_RAN)  # the shim died before the start was on record
        log = os.open(spec["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        nothing = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        status = CANNOT_RUN
        _limit(spec)
        os.chdir(spec["workdir"])
        os.execvpe(spec["command"][0], spec["command"], spec["environment"])  # noqa: S606 - the job's command
    except FileNotFoundError as error:
        if error.filename == spec["workdir"]:
            _complain(f"no such directory: {spec['workdir']}")
        else:
            status = NOT_FOUND
            _complain(f"command not found: {spec['command'][0]}")
    except (OSError, ValueError, KeyError) as error:
        _complain(f"cannot start {spec['command'][0]}: {error}")
    finally:
        os._exit(status)


def _limit(spec: dict[str, Any]) -> None:
    if spec["cpus"]:
        os.sched_setaffinity(0, spec["cpus"])
    for name, value in spec["ulimits"].items():
        limit = getattr(resource, f"RLIMIT_{name.upper()}")
        try:
            resource.setrlimit(limit, (value, value))
        except (OSError, ValueError) as error:
            _complain(f"ulimit {name}={value} is not set: {error}")
    if spec["gid"] is not None:
        os.setgroups(spec["groups"])
        os.setgid(spec["gid"])
    if spec["uid"] is not None:
        os.setuid(spec["uid"])


def enter(directory: Path, command: list[str]) -> NoReturn:
    """Become a command beside the job of this directory: its user, limits, CPUs, folder and variables.

    It ends when the topod that started it does: nobody else reads its output.
    """
    status = CANNOT_RUN
    try:
        spec = json.loads((directory / "spec.json").read_text())
        started = json.loads((directory / "started.json").read_text())
        _limit(spec)
        # After the change of user, which would undo it.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):  # those that Python changes
            signal.signal(number, signal.SIG_DFL)
        os.chdir(spec["workdir"])
        # As `job_environment.JOB_PID` has it.
        environment = {**spec["environment"], "TOPOD_JOB_PID": str(started["pid"])}
        os.execvpe(command[0], command, environment)  # noqa: S606 - the user's command
    except FileNotFoundError:
        status = NOT_FOUND
        _complain(f"command not found: {command[0]}")
    except (OSError, ValueError, KeyError) as error:
        _complain(f"cannot start {command[0]}: {error}")
    finally:
        os._exit(status)


def _until_ended(job: int, path: Path, most: int | None) -> None:
    """Wait for the end of the job, and bound its log meanwhile. A spec of an older topod has no bound."""
    if most is None:
        return
    ended = select.poll()
    descriptor, log, over = os.pidfd_open(job), -1, False
    ended.register(descriptor, select.POLLIN)
    soon, later = TRIM_SECONDS
    pause = soon
    while not over:
        over = bool(ended.poll(pause * 1000))
        with contextlib.suppress(OSError):  # not there yet, or a full disk: looked at again
            log = os.open(path, os.O_WRONLY | os.O_CLOEXEC) if log < 0 else log
            pause = soon if trim(log, most) else min(later, pause * 2)
    os.close(descriptor)
    if log >= 0:
        os.close(log)


def _let_group_finish(job: int, grace_seconds: float) -> None:
    """Wait for the job's group: a shell dies of SIGTERM while its program still saves its work."""
    deadline = time.monotonic() + grace_seconds
    while time.monotonic() < deadline and not _alone():
        if not any(p.group == job and p.alive for p in all_processes()):
            return
        time.sleep(LOOK_SECONDS)


def _alone() -> bool:
    """Say whether nothing of the job lives, quickly; False where the kernel does not tell.

    A child that ended stays in the list until it is waited for, and what an ended process leaves behind
    becomes a child of this one: so where all in the list have ended, nothing hides.
    """
    try:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    except OSError:
        return False
    processes = [read_process(int(pid)) for pid in children.split()]
    return not any(process is not None and process.alive for process in processes)


def _kill_rest(job: int) -> None:
    """Kill whatever the job left running, also what went into the background as a daemon."""
    deadline = time.monotonic() + STRAGGLER_SECONDS
    while time.monotonic() < deadline and not _alone():
        rest = descendants(os.getpid())
        if not rest:
            return
        for pid in rest:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(LOOK_SECONDS / 10)
        for pid in rest - {job}:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue


def _identity(pid: int) -> dict[str, Any]:
    process = read_process(pid)
    assert process is not None, "the caller knows that it runs"
    return {"pid": pid, "start": process.start, "boot": boot_id()}


def _draft(path: Path, document: dict[str, Any]) -> Path:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    return draft


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _say(text: str) -> None:
    # Nobody listens when topod was killed meanwhile; the job goes on all the same.
    with contextlib.suppress(BrokenPipeError):
        os.write(1, f"{text}\n".encode())
    nothing = os.open("/dev/null", os.O_RDWR)
    for target in (0, 1, 2):
        os.dup2(nothing, target)
    os.close(nothing)


def _complain(text: str) -> None:
    os.write(2, f"topod: {text}\n".encode())


if __name__ == "__main__":
    if sys.argv[2:]:
        enter(Path(sys.argv[1]), sys.argv[2:])
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    os._exit(0)  # there is nothing to clean up, and the news of the job's end waits for this process's
