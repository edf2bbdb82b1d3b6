"""What the tabs of a fleet show; each is told when the picture changed, and draws what is on the screen."""

import time
from collections.abc import Iterable, Sequence

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from topoctl.render.jobs import elapsed, gpus, hosts, ident, priority, restarts
from topoctl.render.style import printable
from topod.protocol.units import format_duration
from topod.protocol.views import FleetRow, JobLine
from topotui.fleet_lines import HEAD, SORTS, Columns, columns_for, heading, line_of, order
from topotui.fleet_picture import FleetPicture, News, Stops
from topotui.fleet_tiles import NOTHING, alerts_of, groups_text, kept_of
from topotui.line_table import LineTable
from topotui.palette import BAD_COLOR, color_of
from topotui.panes import STATE_SIGNS

ALL = News(whole=True)


class HostLines(LineTable):
    """One line per host."""

    def __init__(self, picture: FleetPicture) -> None:
        super().__init__(id="hosts")
        self.sort = SORTS[0]
        self.backwards = False
        self.filter = ""
        self._picture = picture
        self._columns: Columns | None = None

    def update_from(self, news: News) -> None:
        """Bring the lines up to date."""
        rows = self._picture.rows
        if news.whole or news.gone or news.hosts - frozenset(self.keys):
            self._columns = None
        if news.whole:
            self.show(self._order(), None)
            return
        silent = {name for name in self._on_screen() if name in rows and rows[name].state == "silent"}
        moved = news.gone or bool(
            news.hosts and (self.filter or self.sort != "host" or self._columns is None)
        )
        self.show(self._order() if moved else self.keys, news.hosts | silent)

    def again(self) -> None:
        """Sort and draw everything anew."""
        self._columns = None
        self.show(self._order(), None)

    def heading(self, width: int) -> list[Segment]:
        return heading(self._fit(width), self.sort, backwards=self.backwards)

    def line(self, key: str, width: int) -> list[Segment]:
        row = self._picture.rows.get(key)
        return [] if row is None else line_of(row, self._picture.layouts, self._fit(width), self._picture.now)

    def _order(self) -> list[str]:
        return order(self._picture.rows, self.filter, self.sort, backwards=self.backwards)

    def _on_screen(self) -> Sequence[str]:
        top = self.scroll_offset.y
        return self.keys[top : top + self.size.height]

    def _fit(self, width: int) -> Columns:
        if self._columns is None or self._columns.width != width:
            rows = self._picture.rows.values()
            kinds = {row.kind for row in rows}
            layouts = [layout for kind, layout in self._picture.layouts.items() if kind in kinds]
            self._columns = columns_for(width, max((len(row.name) for row in rows), default=4), layouts)
        return self._columns


class HostsPane(Vertical):
    """The hosts, and more about the one under the cursor."""

    def __init__(self, picture: FleetPicture) -> None:
        super().__init__()
        self._picture = picture

    def compose(self) -> ComposeResult:
        yield HostLines(self._picture)
        yield Static(id="about-host", classes="about")

    @property
    def lines(self) -> HostLines:
        """The table."""
        return self.query_one(HostLines)

    @property
    def selected(self) -> FleetRow | None:
        """The host under the cursor."""
        return self._picture.rows.get(self.lines.cursor or "")

    def show(self, news: News) -> None:
        """Draw what changed."""
        self.lines.update_from(news)
        if news.whole or news.jobs or self.lines.cursor in news.hosts:
            self.show_detail()

    def show_detail(self) -> None:
        """Say more of the host under the cursor."""
        row = self.selected
        told = _about_host(row, self._picture) if row else "no host"
        self.query_one("#about-host", Static).update(told, layout=False)


def _about_host(row: FleetRow, picture: FleetPicture) -> Text:
    labels = " ".join(f"{key}={value}" for key, value in sorted(row.labels.items()))
    emulated = " (emulated)" if row.emulated else ""
    lines = [Text(printable(f"{row.name}{emulated}: {row.state}  {row.kind}  {labels}"), style="bold")]
    jobs = [f"{ident(job)} {job.name}" for job in picture.jobs_on(row.name)]
    own = [held.ident for held in row.held if held.job is None]
    told = ", ".join([*jobs, *own]) or "none"
    said = [*alerts_of(row, picture.now), *kept_of(row)]
    if said:
        lines.append(Text("; ".join(said), style=BAD_COLOR))
    lines.append(Text(printable(f"free: {groups_text(row.free) or 'nothing'} · jobs: {told}")))
    return Text("\n").join(lines)


class JobLines(LineTable):
    """One line per job: those that run, then the queue; or those that ended."""

    COLUMNS = (("ID", 9), ("NAME", 16), ("USER", 10), ("PRIO", 8), ("STATE", 12), ("TIME", 8))
    MORE = (("HOST", 18), ("GPUS", 8), ("RST", 4), ("REASON", 0))

    def __init__(self, picture: FleetPicture, *, ended: bool, id: str) -> None:  # noqa: A002 - as Textual names it
        super().__init__(id=id)
        self.filter = ""
        self._picture = picture
        self._ended = ended

    def update_from(self, news: News) -> None:
        """Bring the lines up to date; times go on by themselves."""
        self.show(self._order() if news.jobs or news.whole else self.keys, None)

    def heading(self, width: int) -> list[Segment]:
        cells = [f"{name:<{size}}"[:size] if size else name for name, size in self._fit(width)]
        return [Segment(" ".join(cells)[:width].ljust(width), HEAD)]

    def line(self, key: str, width: int) -> list[Segment]:
        job = self.job(key)
        if job is None:
            return []
        now = self._picture.now
        texts = {
            "ID": ident(job),
            "NAME": printable(job.name),
            "USER": printable(job.user),
            "PRIO": priority(job),
            "STATE": f"{STATE_SIGNS.get(job.state, ' ')} {job.state}",
            "TIME": elapsed(job, now) if job.state != "pending" else format_duration(now - job.submitted_at),
            "HOST": hosts(job, wide=False),
            "GPUS": gpus(job),
            "RST": str(restarts(job)),
            "REASON": printable(job.reason),
        }
        segments = []
        for name, size in self._fit(width):
            text = f"{texts[name][:size]:<{size}} " if size else texts[name]
            segments.append(Segment(text, Style(color=color_of(job.priority)) if name == "PRIO" else NOTHING))
        return segments

    def job(self, key: str | None) -> JobLine | None:
        """Return the job of a line."""
        number = int(key) if key else 0
        return self._picture.ended.get(number) or self._picture.jobs.get(number)

    def _fit(self, width: int) -> list[tuple[str, int]]:
        """Return the columns; a narrow screen has narrow ones."""
        narrow = {"NAME": 10, "USER": 0, "PRIO": 6, "HOST": 12, "GPUS": 6, "RST": 3} if width < 110 else {}
        found = [(name, narrow.get(name, size)) for name, size in (*self.COLUMNS, *self.MORE)]
        return [(name, size) for name, size in found if size or name == "REASON"]

    def _order(self) -> list[str]:
        picture = self._picture
        found: Iterable[JobLine]
        found = reversed(picture.ended.values()) if self._ended else [*picture.running(), *picture.queue()]
        words = self.filter.lower().split()
        return [str(job.id) for job in found if _has(job, words)]


def _has(job: JobLine, words: Iterable[str]) -> bool:
    parts = (ident(job), job.name, job.user, job.state, priority(job), *job.hosts, job.reason)
    text = " ".join(parts).lower()
    return all(word in text for word in words)


class FleetJobsPane(Vertical):
    """The jobs of the fleet, and more about the one under the cursor."""

    def __init__(self, picture: FleetPicture, *, ended: bool = False) -> None:
        super().__init__()
        self._picture = picture
        self._ended = ended

    def compose(self) -> ComposeResult:
        yield JobLines(self._picture, ended=self._ended, id="ended-lines" if self._ended else "job-lines")
        yield Static(classes="about")

    @property
    def lines(self) -> JobLines:
        """The table."""
        return self.query_one(JobLines)

    @property
    def selected(self) -> JobLine | None:
        """The job under the cursor."""
        return self.lines.job(self.lines.cursor)

    def show(self, news: News) -> None:
        """Draw what changed."""
        self.lines.update_from(news)
        self.show_detail()

    def show_detail(self) -> None:
        """Say more of the job under the cursor."""
        job = self.selected
        told = "no job" if job is None else _about_job(job, self._picture.now)
        self.query_one(".about", Static).update(told, layout=False)


def _about_job(job: JobLine, now: float) -> Text:
    where = f" on {', '.join(job.hosts)}" if job.hosts else ""
    many = f" on each of {job.host_count} hosts" if job.host_count > 1 else ""
    asks = f"asks for {job.gpus} GPUs{many}, affinity {job.affinity} ({job.policy}), CPUs {job.cpus}"
    ago = format_duration(max(0.0, now - job.submitted_at))
    counts = f"{job.starts} starts, {job.preemptions} preemptions, submitted {ago} ago"
    lines = [
        Text(printable(f"{job.label or f'job {ident(job)}'}: {job.state}{where}"), style="bold"),
        *([Text(printable(job.reason))] if job.reason else []),
        Text(printable(f"{asks}; {counts}"), style="dim"),
    ]
    return Text("\n").join(lines)


class StopsLines(LineTable):
    """One line per preemption, the newest first."""

    def __init__(self, picture: FleetPicture) -> None:
        super().__init__(id="stops")
        self._picture = picture

    def update_from(self, news: News) -> None:
        """Bring the lines up to date."""
        count = len(self._picture.preemptions.all)
        if news.rest or news.whole or len(self.keys) != count:
            self.show([str(at) for at in reversed(range(count))], None)

    def heading(self, width: int) -> list[Segment]:
        return [Segment(f"{'WHEN':<9}{'STOP':>8}{'START':>8}  {'RESULT':<9}WHO".ljust(width)[:width], HEAD)]

    def line(self, key: str, width: int) -> list[Segment]:
        one = self._picture.preemptions.all[int(key)]
        when = time.strftime("%H:%M:%S", time.localtime(one.at))
        return [Segment(f"{when:<9}{_phases(one)}  {_result(one):<9}{printable(one.text)}"[:width])]


def _phases(one: Stops) -> str:
    freed, begun = one.freed_at, one.started_at
    stop = f"{max(0.0, freed - one.at):.1f} s" if freed is not None else "-"
    start = f"{max(0.0, begun - (freed or one.at)):.1f} s" if begun is not None else "-"
    return f"{stop:>8}{start:>8}"


def _result(one: Stops) -> str:
    return "runs" if one.started_at is not None else "gave up" if one.gave_up else "going on"


class StopsPane(Vertical):
    """Who was stopped for whom."""

    def __init__(self, picture: FleetPicture) -> None:
        super().__init__()
        self._picture = picture

    def compose(self) -> ComposeResult:
        yield StopsLines(self._picture)
        yield Static("the reasons of each: on the screen of its host", classes="about")

    def show(self, news: News) -> None:
        """Draw what changed."""
        self.query_one(StopsLines).update_from(news)
