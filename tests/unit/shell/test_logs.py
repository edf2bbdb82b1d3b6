"""The log: one line an event, for people, programs and the journal; what jobs printed is not in it."""

import json
import logging
import os
import sys
from typing import Any

from topod.protocol.views import EventView
from topod.shell.logs import JournalFormatter, JsonFormatter, Key, TextFormatter, of_event, to_journal


def record(level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    return logging.getLogger("x").makeRecord("x", level, "f", 1, "job.started", (), None, extra=extra)


def test_a_line_of_text_has_its_keys_in_the_order_given_and_quotes_what_needs_it() -> None:
    extra: dict[str, Any] = {
        Key.JOB: 3,
        Key.TEXT: 'a "b"\nc',
        Key.VICTIMS: [1, 2],
        Key.SATISFIED: True,
        Key.COST: {"a": [1]},
    }
    line = TextFormatter(journal=True).format(record(**extra))
    assert line == 'job.started job=3 detail="a \\"b\\"\\nc" victims=1,2 satisfied=true cost={"a":[1]}'


def test_the_journal_gets_the_priority_before_every_line_of_a_traceback() -> None:
    told = record(logging.ERROR)
    try:
        int("x")
    except ValueError:
        told.exc_info = sys.exc_info()
    lines = JournalFormatter(TextFormatter(journal=True)).format(told).splitlines()
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines)
    levels = {logging.WARNING: "<4>", logging.INFO: "<6>", logging.DEBUG: "<7>"}
    for level, mark in levels.items():
        line = JournalFormatter(JsonFormatter()).format(record(level))
        assert line.startswith(mark)
        assert json.loads(line[3:])["message"] == "job.started"


def test_stderr_is_the_journal_where_systemd_names_just_that_file() -> None:
    found = os.fstat(2)
    assert to_journal({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
    assert not to_journal({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"})
    assert not to_journal({})


def test_what_a_hook_printed_is_no_part_of_a_line() -> None:
    done = EventView(seq=1, at=0.0, name="hook.done", job=1, text="done", data={"output": "SECRET"})
    failed = EventView(seq=2, at=0.0, name="hook.failed", job=1, text="the hook of a failed: 1: SECRET")
    plan = EventView(seq=3, at=0.0, name="job.x", job=1, text="t", data={"plan": {}, "by": 4})
    told = [of_event(event) for event in (done, failed, plan)]
    assert "SECRET" not in str(told)
    assert [one.get(Key.DATA) for one in told] == [None, None, {"by": 4}]
