"""One shell in a scratch folder beside a real topod or a real fleet; a page's commands are typed into it."""

import contextlib
import getpass
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.documents.page import Command, unlike
from tests.integration.daemon_process import ROOT, Topod
from tests.integration.fleet_process import Fleet

SYSTEM = re.compile(r"(?<![\w.])/(?=(?:etc/topod|run/topod|var/lib/topod|opt/topod|backup)\b)")
SECONDS = 60.0
LOOKS = re.compile(
    r"(?:\S*/)?(?:topoctl (?:--\S+ \S+ )*(?:ps|show|logs|hosts|topo|plan|events|quota|history)|curl)\b"
)
"""What only looks is typed again until it shows what the page says: a reader is slower than a test."""


class Typist:
    """`close` leaves nothing behind."""

    def __init__(self, folder: Path, host: str, *, fleet: bool) -> None:
        self.root = folder / "r"
        for name in ("home", "etc/topod", "run", "var/lib", "opt/topod", "backup"):
            (self.root / name).mkdir(parents=True)
        (self.root / "home/train.py").write_text("import time\ntime.sleep(600)\n")
        self.host, self.fleet_folder = host, folder / "f" if fleet else None
        self.topod: Topod | None = None
        self.fleet: Fleet | None = None
        self.stack = contextlib.ExitStack()
        self.shell: subprocess.Popen[bytes] | None = None
        self.number = 0

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TOPOD_", "XDG_", "DOCKER_", "COLUMNS"))
        }
        socket = self.fleet.coordinator.socket if self.fleet else self.root / "run/topod.sock"
        return {
            **kept,
            "HOME": str(self.root / "home"),
            "PATH": f"{self.root / 'bin'}:{Path(sys.executable).parent}:{kept.get('PATH', '')}",
            "TOPOD_SOCKET": str(socket),
            "TOPOD_CONFIG": str(self.root / "etc/topod/topod.toml"),
            "COLUMNS": "110",
        }

    def serve(self, *options: str) -> None:
        """Start topod, or the fleet, unless it is there."""
        if self.fleet_folder is not None and self.fleet is None:
            self.fleet = self.stack.enter_context(Fleet(self.fleet_folder, hosts=("a", "b")))
        if self.fleet is not None or (self.topod is not None and self.topod.process is not None):
            return
        config = self.root / "etc/topod/topod.toml"
        self.topod = self.topod or Topod(self.root / "run", host=self.host, log_level="info")
        self.topod.environment = {
            **self.environment,
            "TOPOD_CONFIG": str(config) if config.exists() else "",
        }
        if not config.exists():
            del self.topod.environment["TOPOD_CONFIG"]
        self.topod.state_dir = self.root / "var/lib/topod"
        if "--host" in options:
            self.topod.host = options[options.index("--host") + 1]
        self.topod.start()

    def type(self, command: Command) -> None:
        """Do what is typed and compare what is printed."""
        words = command.words.removeprefix("sudo ").split("  #")[0].strip()
        match words.split():
            case ["topod", *options]:
                self.serve(*options)
                assert self.topod is not None
                told, status = self.topod.log.read_text(), 0
            case ["systemctl", "stop", "topod"]:
                assert self.topod is not None
                self.topod.stop()
                told, status = "", 0
            case ["systemctl", "start" | "restart", "topod"]:
                if self.topod is not None and self.topod.process is not None:
                    self.topod.stop()
                self.serve()
                told, status = "", 0
            case ["systemctl", "reload", "topod"]:
                assert self.topod is not None
                assert self.topod.process is not None
                self.topod.process.send_signal(signal.SIGHUP)
                told, status = "", 0
            case _:
                told, status = self.run(words)
        end = time.monotonic() + SECONDS
        while (missing := unlike(command.printed, told.splitlines())) is not None:
            wrong = f"{words}\ndoes not print\n{missing}\nbut\n{told}"
            assert LOOKS.match(words), wrong
            assert time.monotonic() < end, wrong
            time.sleep(0.1)
            told, status = self.run(words)
        refused = any(line.startswith("error:") for line in command.printed)
        fine = {0, 10, 11} if re.match(r"topoctl (plan|rebalance)|topoctl submit --dry-run", words) else {0}
        assert refused or status in fine, f"{words}\nends with {status}:\n{told}"
        assert not refused or status, f"{words}\nis not refused"

    def run(self, words: str) -> tuple[str, int]:
        """Type into the shell; return what is printed, and the exit status."""
        if self.shell is None:
            self.serve()
            self.shell = subprocess.Popen(
                ["bash", "--noprofile", "--norc"],
                cwd=self.root / "home",
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.number += 1
        typed = self.root / f"typed-{self.number}"
        typed.write_text(SYSTEM.sub(f"{self.root}/", words) + "\n")
        mark = f"\n=={self.number}== "
        assert self.shell.stdin is not None
        self.shell.stdin.write(f". {typed} </dev/null; printf '\\n=={self.number}== %d\\n' $?\n".encode())
        self.shell.stdin.flush()
        told = self._until(mark.encode(), words)
        printed, _, status = told.rpartition(mark)
        printed = printed.replace(str(self.root), "").replace(str(ROOT), "")
        return re.sub(rf"\b{getpass.getuser()}\b", "alice", printed), int(status)

    def _until(self, mark: bytes, words: str) -> str:
        assert self.shell is not None
        assert self.shell.stdout is not None
        told, end = b"", time.monotonic() + SECONDS
        while not (mark in told and told.endswith(b"\n")):
            ready, _, _ = select.select([self.shell.stdout], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self.shell.stdout.fileno(), 1 << 16) if ready else b""
            assert data, f"{words}\ndoes not end:\n{told.decode()}"
            told += data
        return told.decode()

    def close(self) -> None:
        if self.shell is not None:
            assert self.shell.stdin is not None
            assert self.shell.stdout is not None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.shell.pid, signal.SIGKILL)
            self.shell.wait()
            self.shell.stdin.close()
            self.shell.stdout.close()
        if self.topod is not None:
            self.topod.close()
        self.stack.close()
