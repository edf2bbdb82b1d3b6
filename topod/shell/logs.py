"""The daemon's log: events with keys, to stderr, as text for people or as JSON lines for programs."""

import json
import logging
import sys
import time
from typing import Final


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


_KEYS: Final[tuple[str, ...]] = tuple(value for name, value in vars(Key).items() if name.isupper())


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {key: vars(record)[key] for key in _KEYS if key in vars(record)}


class TextFormatter(logging.Formatter):
    """`2025-01-31 12:00:00 INFO job.started job=3 detail="..."`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, and its traceback below if it has one."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        extras = _extras(record)
        extras.pop(Key.DATA, None)
        words = [f"{name}={_plain(value)}" for name, value in extras.items()]
        line = " ".join([stamp, record.levelname, record.getMessage(), *words])
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


def set_up(style: str, level: str) -> None:
    """Send the log to stderr as `text` or `json`, from `level` (`debug`, `info`, ...) up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Their chatter (one line per request to the engine) is of no use at our levels.
    for chatty in ("docker", "urllib3", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


def _plain(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or set(text) & set(' "=\n') else text
