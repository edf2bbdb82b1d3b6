"""The log of a daemon: events with keys, to stderr, as text for people or as JSON lines for programs.

`docs/reference/logs.md` explains the lines and their keys. What may be secret is in none of them: no value of
a job's environment, no argument of its command, nothing that it or its hooks printed.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import Final

from topod.protocol.views import EventView


class Key:
    """The well-known keys; every key of a log line is one of these."""

    JOB: Final = "job"
    TEXT: Final = "detail"
    ERROR: Final = "error"
    EFFECT: Final = "effect"
    EVENT: Final = "event"
    SEQ: Final = "seq"
    DATA: Final = "data"
    HOST: Final = "host"
    RUNTIME: Final = "runtime"
    SOCKET: Final = "socket"
    STATE_DIR: Final = "state_dir"
    GENERATION: Final = "generation"
    VERSION: Final = "version"
    PROBLEM: Final = "problem"
    SIGNAL: Final = "signal"
    JOBS: Final = "jobs"
    PEER: Final = "peer"
    LEADER: Final = "leader"
    RETRY_SECONDS: Final = "retry_seconds"
    METRICS: Final = "metrics"
    USER: Final = "user"
    NAME: Final = "job_name"
    OUTCOME: Final = "outcome"
    REASON: Final = "reason"
    PRIORITY: Final = "priority"
    WANTED: Final = "wanted"
    HOSTS: Final = "hosts"
    GPUS: Final = "gpus"
    CPUS: Final = "cpus"
    AFFINITY: Final = "affinity"
    SATISFIED: Final = "satisfied"
    VICTIMS: Final = "victims"
    COST: Final = "cost"
    DECIDE_MS: Final = "decide_ms"
    CREATE_MS: Final = "create_ms"
    STOP_MS: Final = "stop_ms"
    FREE_MS: Final = "free_ms"
    START_MS: Final = "start_ms"
    TOTAL_MS: Final = "total_ms"


_KEYS: Final = frozenset(value for name, value in vars(Key).items() if name.isupper())
_SYSLOG: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""From what level on which priority of syslog; below: 7, debug."""
_NOT_LOGGED: Final = frozenset({"plan", "output"})
"""Data of an event: what the line of the decision tells, and what a job's hook printed."""


def of_event(event: EventView) -> dict[str, object]:
    """Return the keys of the line that tells one event of the story."""
    data = {name: value for name, value in event.data.items() if name not in _NOT_LOGGED}
    # Behind these words stands what the hook printed; `topoctl events` has it.
    text = event.text.partition(" failed: ")[0] + " failed" if event.name == "hook.failed" else event.text
    extra = {Key.JOB: event.job, Key.TEXT: text, Key.SEQ: event.seq, Key.DATA: data or None}
    return {key: value for key, value in extra.items() if value is not None}


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key in _KEYS}


def of_effect(effect: object) -> dict[str, object]:
    """Return the keys that name an effect; what else it holds may be secret."""
    job = getattr(effect, "job", None)
    return {Key.EFFECT: type(effect).__name__, **({} if job is None else {Key.JOB: job})}


class TextFormatter(logging.Formatter):
    """`2025-01-31 12:00:00 INFO job.started job=3 detail="..."`; without time and level for the journal."""

    def __init__(self, *, journal: bool = False) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, and its traceback below if it has one."""
        extras = _extras(record)
        extras.pop(Key.DATA, None)
        words = [f"{name}={_plain(value)}" for name, value in extras.items()]
        stamp = [] if self._journal else [_stamp(record.created), record.levelname]
        line = " ".join([*stamp, record.getMessage(), *words])
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `at`, `level`, `message` and the keys."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        entry: dict[str, object] = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **_extras(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class JournalFormatter(logging.Formatter):
    """The lines of another formatter, each with its priority before it as the journal reads it: `<6>`."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines; those of a traceback have its priority too."""
        number = next((number for level, number in _SYSLOG if record.levelno >= level), 7)
        return "\n".join(f"<{number}>{line}" for line in self._inner.format(record).split("\n"))


def to_journal(environ: Mapping[str, str]) -> bool:
    """Say whether stderr is the journal: systemd names its device and inode to who writes to it."""
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def set_up(style: str, level: str, environ: Mapping[str, str] | None = None) -> None:
    """Send the log to stderr as `text` or `json`, from `level` (`debug`, `info`, ...) up.

    Where that is systemd's journal, each line has its priority before it, and text has no time of its own.
    """
    journal = to_journal(os.environ if environ is None else environ)
    formatter: logging.Formatter = JsonFormatter() if style == "json" else TextFormatter(journal=journal)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JournalFormatter(formatter) if journal else formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Their chatter (one line per request to the engine) is of no use at our levels.
    for chatty in ("docker", "urllib3", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


def _stamp(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return json.dumps(value, separators=(",", ":"), default=str)
    if isinstance(value, bool):
        return str(value).lower()
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return json.dumps(text, ensure_ascii=False) if not text or set(text) & set(' "=\n') else text


def tell_upgrade(done: object | None) -> None:
    """Say in the log what was done to a database of an earlier topod; None: nothing."""
    if done is not None:
        logging.getLogger(__name__).info("store.upgraded", extra={Key.TEXT: str(done)})
