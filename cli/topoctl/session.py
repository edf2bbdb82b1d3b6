"""What every command needs: the connection, the style of the output, job ids, and printing."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import cache
from typing import Annotated, Final, TypeVar

import typer

from topoctl.place import place
from topoctl.render.jobs import ENDED
from topoctl.render.style import Style
from topod.errors import DaemonUnavailableError, NotFoundError, TopodError, UsageError
from topod.protocol.client import Client
from topod.protocol.codec import ProtocolError, encode
from topod.protocol.jobextras import indices
from topod.protocol.replies import AnyReply, JobLines, Jobs
from topod.protocol.requests import AnyRequest, GetArray, ListJobs
from topod.protocol.views import JobLine, JobView

LATEST = "latest"
AWAY_SECONDS = 120.0
MANY: Final = 20
"""More words than this are looked up in the list of all jobs."""
MISSING_TOLD: Final = 3
"""So many indices are told that an array does not have."""
R = TypeVar("R")


class Output(StrEnum):
    """How a list is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    NAME = "name"


class TextOrJson(StrEnum):
    """How anything else is printed."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[
    Output,
    typer.Option("-o", "--output", help="wide: nothing is cut; name: job ids only.", show_default=False),
]
TextOrJsonOption = Annotated[
    TextOrJson, typer.Option("-o", "--output", help="json is for programs.", show_default=False)
]
JobArgument = Annotated[
    str, typer.Argument(metavar="ID", help="A job id, 12[3] of an array, or `latest`.", show_default=False)
]
JobsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="ID...", help="Job ids, 12[3] or 12[*] of an array, or `latest`.", show_default=False
    ),
]


@contextmanager
def connect(ctx: typer.Context, host: str = "") -> Iterator[Client]:
    """Yield a client of the topod, or of the coordinator, that the options or the environment name.

    `host`, or the option of that name: the host of the fleet that is asked.
    """
    with Client(place(ctx), host=host or (ctx.obj or {}).get("host") or "") as client:
        yield client


def ask(client: Client, request: AnyRequest, kind: type[R], timeout: float = 10.0) -> R:
    """Ask for a reply of one kind; any other is a protocol error."""
    return expect(client.ask(request, timeout), kind)


def ask_patiently(client: Client, request: AnyRequest, kind: type[R], timeout: float) -> R:
    """Ask as `ask` does, and go on through a restart of topod: its jobs live on.

    Raises `DaemonUnavailableError` when it has not come back after two minutes. Only for requests that change
    nothing: this may ask twice.
    """
    gone: float | None = None
    while True:
        try:
            return ask(client, request, kind, timeout)
        except DaemonUnavailableError:
            if gone is None:
                # The first call of a command has been answered before, so topod was there.
                gone = time.monotonic()
                note("topod does not answer; waiting for it to come back")
            elif time.monotonic() - gone > AWAY_SECONDS:
                raise
            time.sleep(0.5)


def expect(reply: AnyReply, kind: type[R]) -> R:
    """Return the reply if it is of the expected kind."""
    if not isinstance(reply, kind):
        raise ProtocolError(f"topod answered with {type(reply).__name__}, not {kind.__name__}")
    return reply


def one_job(jobs: Jobs) -> JobView:
    """Return the job of a reply that must hold exactly one."""
    if len(jobs.jobs) != 1:
        raise ProtocolError(f"topod answered with {len(jobs.jobs)} jobs, not 1")
    return jobs.jobs[0]


def job_ids(
    client: Client, words: Sequence[str], *, whole: bool = False, live: bool = False, running: bool = False
) -> list[int]:
    """Turn the words of a command line into job ids, each once, in order; `latest` is the newest job.

    `12[3]`, `12[1-4]` and `12[*]` are jobs of array 12. With `whole` the number of an array (of its first
    job) means all of it; with `live` only those of an array that have not ended, where there are any, and
    with `running` only those that run.
    """
    found, unknown = known_ids(client, words, whole=whole, live=live, running=running)
    if unknown:
        raise unknown[0]
    return found


def known_ids(
    client: Client, words: Sequence[str], *, whole: bool = False, live: bool = False, running: bool = False
) -> tuple[list[int], list[TopodError]]:
    """Turn words into job ids as `job_ids` does, and return apart what was found to be no job's.

    A word that can be no job raises `UsageError` all the same: then nothing that was named is meant for sure.
    """
    wanted = _runs if running else _goes_on if live else _any
    groups = _going_on(client, wanted) if whole and wanted is not _any and len(words) > MANY else {}
    arrays = _Arrays(client)
    found: dict[int, None] = {}
    for word in dict.fromkeys(words):
        try:
            found |= dict.fromkeys(groups.get(word) or _ids(arrays, word, whole, wanted))
        except TopodError as error:
            if error.code != NotFoundError.code:
                raise
            arrays.unknown.append(error)
    return list(found), arrays.unknown


def _any(job: JobLine | JobView) -> bool:
    del job
    return True


def _goes_on(job: JobLine | JobView) -> bool:
    return job.state not in ENDED


def _runs(job: JobLine | JobView) -> bool:
    return job.state == "running"


class _Arrays:
    """Arrays by the number of their first job, each asked for once."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.unknown: list[TopodError] = []
        """What was named and is not there, while the rest of the word is."""
        self.of = cache(self._ask)
        self.by_index = cache(self._by_index)

    def _ask(self, first: int) -> list[JobView]:
        return ask(self.client, GetArray(job=first), Jobs).jobs

    def _by_index(self, first: int) -> dict[int | None, JobView]:
        return {job.array_index: job for job in self.of(first)}


def _going_on(client: Client, wanted: Callable[[JobLine], bool]) -> dict[str, list[int]]:
    """Return what the number of each job that has not ended means: itself, or its array's jobs wanted.

    One question in place of one for each of thousands of words.
    """
    lines = ask(client, ListJobs(brief=True), JobLines).jobs
    groups = {str(line.id): [line.id] for line in lines if line.array_id != line.id}
    for line in lines:
        if line.array_id is not None and wanted(line):
            groups.setdefault(str(line.array_id), []).append(line.id)
    return groups


def _ids(arrays: _Arrays, word: str, whole: bool, wanted: Callable[[JobView], bool]) -> list[int]:
    number, bracket, rest = word.partition("[")
    if not bracket:
        ident = _newest(arrays.client) if word == LATEST else _number(word)
        if not whole:
            return [ident]
        members = arrays.of(ident)
    else:
        members = _members(arrays, _number(number), rest, word)
    chosen = [job.id for job in members if wanted(job)]
    return chosen if chosen and len(members) > 1 else [job.id for job in members]


def _members(arrays: _Arrays, first: int, rest: str, word: str) -> list[JobView]:
    """Return the jobs of `first[rest`."""
    found = arrays.of(first)
    if found[0].array_id != first:
        raise UsageError(f"job {first} is not an array: {word!r}", hint=f"topoctl show {first}")
    if rest == "*]":
        return found
    try:
        if not rest.endswith("]"):
            raise ValueError(f"not a job: {word!r}")  # noqa: TRY301 - told as the parser's own errors are
        wanted = indices(rest[:-1].partition("%")[0])
    except ValueError as error:
        raise UsageError(str(error), hint=f"{first}[3], {first}[1-4] or {first}[*]") from None
    by_index = arrays.by_index(first)
    if missing := [str(index) for index in wanted if index not in by_index]:
        more = f" and {len(missing) - MISSING_TOLD} more" if len(missing) > MISSING_TOLD else ""
        arrays.unknown.append(
            NotFoundError(
                f"no job {first}[{','.join(missing[:MISSING_TOLD])}]{more}",
                hint=f"topoctl show {first} tells how many jobs the array has",
            )
        )
    return [by_index[index] for index in wanted if index in by_index]


def _number(word: str) -> int:
    if not (word.isascii() and word.isdecimal() and len(word) < 18 and int(word) > 0):
        raise UsageError(
            f"not a job id: {word!r}", hint="topoctl ps -a lists the jobs; `latest` is the newest one"
        )
    return int(word)


def _newest(client: Client) -> int:
    waiting = ask(client, ListJobs(), Jobs).jobs
    # A running job may be older than one that has ended.
    ended = ask(client, ListJobs(ended=True, limit=1), Jobs).jobs
    if not waiting and not ended:
        raise NotFoundError("there is no job yet", hint="topoctl submit --gpus 1 -- COMMAND")
    return max(job.id for job in (*waiting, *ended))


def style(ctx: typer.Context) -> Style:
    """Return how this terminal wants its text: width, colour, whether it can show more than ASCII."""
    plain = bool((ctx.obj or {}).get("no_color")) or bool(os.environ.get("NO_COLOR"))
    terminal = sys.stdout.isatty()
    color = terminal and not plain and os.environ.get("TERM") != "dumb"
    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "").replace("_", "")
    unicode, said = encoding.startswith("utf"), _columns()
    return Style(width=said or _width(terminal), piped=not (terminal or said), color=color, unicode=unicode)


def _columns() -> int | None:
    columns = os.environ.get("COLUMNS", "")
    sane = columns.isascii() and columns.isdecimal() and 20 <= int(columns) <= 10_000
    return int(columns) if sane else None


def _width(terminal: bool) -> int:
    if terminal:
        try:
            return max(20, os.get_terminal_size(sys.stdout.fileno()).columns)
        except OSError:
            return 80
    return 80


def show(text: str) -> None:
    """Write data to stdout; whatever the terminal cannot show becomes `?`."""
    sys.stdout.write(encodable(text))
    sys.stdout.flush()


def encodable(text: str) -> str:
    """Return text in which `?` stands for what stdout cannot show."""
    encoding = sys.stdout.encoding or "ascii"
    return text.encode(encoding, "replace").decode(encoding)


def note(text: str) -> None:
    """Write prose to stderr."""
    encoding = sys.stderr.encoding or "ascii"
    sys.stderr.write(text.encode(encoding, "replace").decode(encoding) + "\n")


def show_json(value: object) -> None:
    """Write one JSON document, indented, with the fields of the protocol's views."""
    import msgspec

    show(msgspec.json.format(encode(value), indent=2).decode() + "\n")


def show_json_line(value: object) -> None:
    """Write one JSON document on one line, for streams."""
    show(encode(value).decode() + "\n")
