"""The table of jobs, those that are on or wait or those that ended, and of one of them a few lines more."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from topoctl.render.jobs import cpus, elapsed, gpus, hosts, ident, label, priority, ranges, restarts
from topoctl.render.style import printable
from topod.protocol.units import format_duration
from topod.protocol.views import JobLine
from topotui.blocks import fit
from topotui.line_table import HEADING, LineTable
from topotui.palette import color_of
from topotui.panes import STATE_SIGNS
from topotui.picture import Picture

ENDED_SIGNS: Final = {"succeeded": "✓", "failed": "✗", "lost": "✗", "cancelled": "-", "returned": "↩"}
NARROW: Final = 110
"""From so many columns on all columns are shown."""
ALL: Final = ("ID", "NAME", "USER", "PRIO", "STATE", "TIME", "GPUS", "CPUS", "RST", "REASON")
SOME: Final = ("ID", "NAME", "PRIO", "STATE", "TIME", "GPUS", "REASON")
ALL_ENDED: Final = ("ID", "NAME", "USER", "PRIO", "STATE", "EXIT", "RAN", "ENDED", "RST", "REASON")
SOME_ENDED: Final = ("ID", "NAME", "STATE", "EXIT", "RAN", "ENDED", "REASON")
CLOCKS: Final = {"TIME": 6, "ENDED": 10}
"""How wide what goes on by itself is: `59m59s`, `59m59s ago`."""


@dataclass(frozen=True, slots=True)
class Known:
    """A job, and what is shown of it that only changes with it."""

    job: JobLine
    cells: Mapping[str, str]
    words: str
    """What a filter looks into, in lower case."""


class JobTable(LineTable):
    """A line for each job, made anew when the job has changed; its times, while they are seen."""

    def __init__(self, *, ended: bool) -> None:
        super().__init__()
        self._ended = ended
        self._known: dict[str, Known] = {}
        self._widths: dict[str, int] = {}
        self._clocks: dict[str, tuple[str, str]] = {}
        """What the lines on the screen said when they were drawn."""
        self._now = 0.0

    def update_from(self, jobs: Iterable[JobLine], now: float, words: Sequence[str]) -> tuple[int, int]:
        """Show those of the jobs that have these words; return how many they are, and of how many."""
        self._now = now
        before, self._known = self._known, {}
        for job in jobs:
            key = str(job.id)
            known = before.get(key)
            self._known[key] = known if known is not None and known.job is job else _known(job)
        keys = [key for key, one in self._known.items() if all(word in one.words for word in words)]
        seen = self.keys[self.scroll_offset.y :][: self.size.height]
        same = {key for key in seen if self._is_drawn(key, before)}
        self._clocks = {key: self._clocks[key] for key in same}
        if self._fit(before):
            self.show(keys, None)
        else:
            self.show(keys, {*self._drawn, *seen} - same)
        return len(keys), len(self._known)

    def _is_drawn(self, key: str, before: Mapping[str, Known]) -> bool:
        one = self._known.get(key)
        return one is not None and before.get(key) is one and self._clocks.get(key) == self._clock(key)

    def heading(self, width: int) -> list[Segment]:
        cells = [fit(name, size or len(name)) for name, size in self._widths.items()]
        return [Segment(fit(f" {'  '.join(cells)}", width), HEADING)]

    def line(self, key: str, width: int) -> list[Segment]:
        one = self._known.get(key)
        if one is None:
            return []
        time, ended = self._clocks[key] = self._clock(key)
        cells = {**one.cells, "TIME": time, "ENDED": ended}
        segments = [Segment(" ")]
        left = width - 1
        for name, size in self._widths.items():
            style = Style(color=color_of(one.job.priority)) if name == "PRIO" else None
            room = size or max(1, left)
            segments += [Segment(fit(cells[name], room), style), Segment("  ")]
            left -= room + 2
        return segments

    def _clock(self, key: str) -> tuple[str, str]:
        job, now = self._known[key].job, self._now
        ended = "-" if job.ended_at is None else f"{format_duration(max(0.0, now - job.ended_at))} ago"
        return elapsed(job, now), ended

    def _fit(self, before: Mapping[str, Known]) -> bool:
        """Make the columns as wide as what is in them; return whether that changed them.

        The last has what is left.
        """
        wide = self.app.size.width >= NARROW
        names = (ALL_ENDED if wide else SOME_ENDED) if self._ended else (ALL if wide else SOME)
        known = self._known
        if (
            self._widths.keys() == set(names)
            and len(known) == len(before)
            and all(before.get(key) is one for key, one in known.items())
        ):
            return False
        widths = {
            name: max(
                len(name), CLOCKS.get(name, 0), *(cell_len(one.cells[name]) for one in known.values()), 0
            )
            for name in names[:-1]
        }
        changed, self._widths = {**widths, names[-1]: 0} != self._widths, {**widths, names[-1]: 0}
        return changed


class JobsPane(Vertical):
    """The jobs that run and the queue; or with `ended` those that ended, the last first."""

    def __init__(self, ended: bool = False, **keywords: str | None) -> None:
        super().__init__(**keywords)  # type: ignore[arg-type]  # Textual names id, classes and name
        self._ended = ended
        self._lengths: list[int] = []
        self.filter = ""
        self.counts = (0, 0)
        """How many jobs are shown, and of how many."""

    def compose(self) -> ComposeResult:
        yield JobTable(ended=self._ended)
        yield Static(id="detail")

    @property
    def selected(self) -> int | None:
        """Return the number of the job under the cursor."""
        key = self.query_one(JobTable).cursor
        return None if key is None else int(key)

    def select(self, job: int) -> None:
        """Put the cursor on a job, where it is shown."""
        table = self.query_one(JobTable)
        if str(job) in table.keys:
            table.move_to(list(table.keys).index(str(job)))

    def show(self, picture: Picture) -> None:
        """Bring the table up to date: only the lines on the screen that differ are drawn."""
        jobs = reversed(picture.ended.values()) if self._ended else [*picture.running(), *picture.queue()]
        words = self.filter.lower().split()
        self.counts = self.query_one(JobTable).update_from(jobs, picture.now, words)
        self.show_detail(picture)

    def show_detail(self, picture: Picture) -> None:
        """Say more about the job under the cursor."""
        job = picture.ended.get(self.selected or 0) or picture.jobs.get(self.selected or 0)
        text = detail(job, picture.now) if job else no_job(self.filter, ended=self._ended)
        # To lay the screen out anew costs most, and seconds that pass make no line longer.
        lengths = [len(line) for line in text.plain.split("\n")]
        self.query_one("#detail", Static).update(text, layout=lengths != self._lengths)
        self._lengths = lengths


def has_words(job: JobLine, words: str) -> bool:
    """Say whether a job has all these words, in any case."""
    text = _words(job)
    return all(word in text for word in words.lower().split())


def _words(job: JobLine) -> str:
    parts = (ident(job), job.name, job.user, job.state, priority(job), *job.hosts, job.reason)
    return " ".join(parts).lower()


def _known(job: JobLine) -> Known:
    # Of what passes only RAN is used, of jobs that ended: both ends of it are in the job.
    return Known(job, row_of(job, job.submitted_at), _words(job))


def no_job(words: str, *, ended: bool) -> Text:
    """Return why a table of jobs is empty."""
    nothing = "no job has ended yet" if ended else "no job: topoctl submit --gpus 1 -- COMMAND"
    return Text(f"no job has these words: {words}; Escape: all" if words else nothing, "dim")


def row_of(job: JobLine, now: float) -> dict[str, str]:
    """Return the cells of a job by their columns."""
    sign = STATE_SIGNS.get(job.state) or ENDED_SIGNS.get(job.state, " ")
    ended = "-" if job.ended_at is None else f"{format_duration(max(0.0, now - job.ended_at))} ago"
    return {
        "ID": ident(job),
        "NAME": printable(job.name)[:16],
        "USER": printable(job.user)[:10],
        "PRIO": priority(job),
        "STATE": f"{sign} {job.state}",
        "TIME": elapsed(job, now),
        "RAN": elapsed(job, now),
        "ENDED": ended,
        "EXIT": "-" if job.exit_code is None else str(job.exit_code),
        "HOST": hosts(job, wide=False),
        "GPUS": gpus(job),
        "CPUS": cpus(job),
        "RST": str(restarts(job)),
        "REASON": printable(job.reason),
    }


def detail(job: JobLine, now: float, hint: str = "; Enter: all about it") -> Text:
    """Return a job in a few lines; its reason in full. `hint`: what is said behind them."""
    state = f"{job.state}{f' ({job.stage})' if job.stage else ''}"
    where = f" on {', '.join(job.hosts)}" if job.hosts else ""
    lines = [Text(printable(f"{label(job)}: {state}{where}"), style="bold")]
    if job.reason:
        lines.append(Text(printable(job.reason)))
    affinity = f", {job.affinity} {job.policy}" if job.gpus > 1 else ""
    each = f" on each of {job.host_count} hosts" if job.host_count > 1 else ""
    asked = f"asks for {job.gpus} GPU{'' if job.gpus == 1 else 's'}{each}{affinity}, CPUs {job.cpus}"
    if job.gpu_indices and job.state in {"starting", "running", "stopping"}:
        many = "" if len(job.gpu_indices) == 1 else "s"
        asked += f"; has GPU{many} {ranges(job.gpu_indices)}, CPUs {job.cpu_list or 'of the shared pool'}"
    lines.append(Text(asked))
    counts = (
        f"started {_times(job.starts)}, preempted {_times(job.preemptions)}"
        f"{f', failed {_times(job.failures)} in a row' if job.failures else ''}"
    )
    waited = format_duration(max(0.0, now - job.submitted_at))
    lines.append(Text(f"submitted {waited} ago; {counts}{hint}", style="dim"))
    return Text("\n").join(lines)


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")
