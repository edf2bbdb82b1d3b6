"""What the tabs of a fleet show; each is told when the picture changed, and draws what is on the screen."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from topoctl.render.jobs import ident
from topoctl.render.style import printable
from topod.protocol.views import FleetRow, JobLine
from topotui.blocks import fit
from topotui.fleet_lines import HEAD, SORTS, Columns, columns_for, heading, line_of, order
from topotui.fleet_picture import FleetPicture, News, Stops
from topotui.fleet_tiles import NOTHING, alerts_of, groups_text, kept_of
from topotui.jobs import NARROW, detail, has_words, no_job, row_of
from topotui.line_table import LineTable
from topotui.palette import BAD_COLOR, color_of

ALL = News(whole=True)
Now = Callable[[], FleetPicture]
"""Returns the picture; of a replay that goes back it is another one."""


class HostLines(LineTable):
    """One line per host."""

    def __init__(self, picture: Now) -> None:
        super().__init__(id="hosts")
        self.sort = SORTS[0]
        self.backwards = False
        self.filter = ""
        self._picture = picture
        self._columns: Columns | None = None

    def update_from(self, news: News) -> None:
        """Bring the lines up to date."""
        rows = self._picture().rows
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
        row = self._picture().rows.get(key)
        return (
            []
            if row is None
            else line_of(row, self._picture().layouts, self._fit(width), self._picture().now)
        )

    def _order(self) -> list[str]:
        return order(self._picture().rows, self.filter, self.sort, backwards=self.backwards)

    def _on_screen(self) -> Sequence[str]:
        top = self.scroll_offset.y
        return self.keys[top : top + self.size.height]

    def _fit(self, width: int) -> Columns:
        if self._columns is None or self._columns.width != width:
            rows = self._picture().rows.values()
            kinds = {row.kind for row in rows}
            layouts = [layout for kind, layout in self._picture().layouts.items() if kind in kinds]
            self._columns = columns_for(width, max((len(row.name) for row in rows), default=4), layouts)
        return self._columns


class HostsPane(Vertical):
    """The hosts, and more about the one under the cursor."""

    def __init__(self, picture: Now) -> None:
        super().__init__()
        self._picture = picture

    def compose(self) -> ComposeResult:
        yield HostLines(self._picture)
        yield Static(id="about-host")

    @property
    def lines(self) -> HostLines:
        """The table."""
        return self.query_one(HostLines)

    @property
    def selected(self) -> FleetRow | None:
        """The host under the cursor."""
        return self._picture().rows.get(self.lines.cursor or "")

    def show(self, news: News) -> None:
        """Draw what changed."""
        self.lines.update_from(news)
        if news.whole or news.jobs or self.lines.cursor in news.hosts:
            self.show_detail()

    def show_detail(self) -> None:
        """Say more of the host under the cursor."""
        row = self.selected
        told = _about_host(row, self._picture()) if row else self._no_host()
        self.query_one("#about-host", Static).update(told)

    def _no_host(self) -> Text:
        words = self.lines.filter
        nothing = "no host has joined the fleet yet: docs/howto/build-a-fleet.md"
        return Text(f"no host has these words: {words}; Escape: all" if words else nothing, "dim")


def _about_host(row: FleetRow, picture: FleetPicture) -> Text:
    labels = " ".join(f"{key}={value}" for key, value in sorted(row.labels.items()))
    emulated = " (emulated)" if row.emulated else ""
    kind = row.kind.partition(" [")[0]  # what follows tells apart hosts that differ in details
    lines = [Text(printable(f"{row.name}{emulated}: {row.state}  {kind}  {labels}"), style="bold")]
    jobs = [f"{ident(job)} {job.name}" for job in picture.jobs_on(row.name)]
    own = [held.ident for held in row.held if held.job is None]
    told = ", ".join([*jobs, *own]) or "none"
    if wrong := alerts_of(row, picture.now):
        lines.append(Text("; ".join(wrong), style=BAD_COLOR))
    if kept := kept_of(row):
        lines.append(Text("; ".join(kept)))
    lines.append(Text(printable(f"free: {groups_text(row.free) or 'nothing'} · jobs: {told}")))
    return Text("\n").join(lines)


class JobLines(LineTable):
    """One line per job: those that run, then the queue; or those that ended."""

    COLUMNS: Final = {
        "ID": 9, "NAME": 16, "USER": 10, "PRIO": 10, "STATE": 12, "TIME": 8, "HOST": 18, "GPUS": 8, "RST": 3,
        "REASON": 0,
    }  # fmt: skip
    ENDED: Final = {
        "ID": 9, "NAME": 16, "USER": 10, "PRIO": 10, "STATE": 12, "EXIT": 4, "RAN": 8, "ENDED": 12,
        "HOST": 18, "RST": 3, "REASON": 0,
    }  # fmt: skip
    """Columns with their widths; the last has the rest."""
    NARROW: Final = {
        "NAME": 12,
        "USER": 0,
        "PRIO": 7,
        "STATE": 11,
        "TIME": 6,
        "HOST": 10,
        "GPUS": 7,
        "RST": 0,
    }

    def __init__(self, picture: Now, *, ended: bool, id: str) -> None:  # noqa: A002 - as Textual names it
        super().__init__(id=id)
        self.filter = ""
        self._picture = picture
        self._ended = ended
        self._ident = 3
        """Columns of the longest number."""

    def update_from(self, news: News) -> None:
        """Bring the lines up to date; times go on by themselves."""
        keys = self._order() if news.jobs or news.whole else self.keys
        self._ident = max([3, *(len(ident(job)) for key in keys if (job := self.job(key)) is not None)])
        self.show(keys, None)

    def heading(self, width: int) -> list[Segment]:
        cells = [fit(name, size) if size else name for name, size in self._fit(width)]
        return [Segment(" ".join(cells)[:width].ljust(width), HEAD)]

    def line(self, key: str, width: int) -> list[Segment]:
        job = self.job(key)
        if job is None:
            return []
        texts = row_of(job, self._picture().now)
        segments, left = [], width
        for name, size in self._fit(width):
            text = f"{fit(texts[name], size)} " if size else fit(texts[name], left)
            left -= len(text)
            segments.append(Segment(text, Style(color=color_of(job.priority)) if name == "PRIO" else NOTHING))
        return segments

    def job(self, key: str | None) -> JobLine | None:
        """Return the job of a line."""
        number = int(key) if key else 0
        return self._picture().ended.get(number) or self._picture().jobs.get(number)

    def _fit(self, width: int) -> list[tuple[str, int]]:
        """Return the columns; a narrow screen has narrow ones, and fewer."""
        columns = {**(self.ENDED if self._ended else self.COLUMNS), "ID": self._ident}
        if width < NARROW:
            some = {name: self.NARROW.get(name, size) for name, size in columns.items()}
            columns = {name: size for name, size in some.items() if size or name == "REASON"}
            if self._ended:
                del columns["PRIO"]
        return [*columns.items()]

    def _order(self) -> list[str]:
        picture = self._picture()
        found = reversed(picture.ended.values()) if self._ended else [*picture.running(), *picture.queue()]
        return [str(job.id) for job in found if has_words(job, self.filter)]


class FleetJobsPane(Vertical):
    """The jobs of the fleet, and more about the one under the cursor."""

    def __init__(self, picture: Now, *, ended: bool = False) -> None:
        super().__init__()
        self._picture = picture
        self._ended = ended

    def compose(self) -> ComposeResult:
        yield JobLines(self._picture, ended=self._ended, id="ended-lines" if self._ended else "job-lines")
        yield Static(id="detail")

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
        told = (
            no_job(self.lines.filter, ended=self._ended) if job is None else detail(job, self._picture().now)
        )
        self.query_one("#detail", Static).update(told)


class StopsLines(LineTable):
    """One line per preemption, the newest first."""

    def __init__(self, picture: Now) -> None:
        super().__init__(id="stops")
        self._picture = picture

    def update_from(self, news: News) -> None:
        """Bring the lines up to date."""
        count = len(self._picture().preemptions.all)
        if news.rest or news.whole or len(self.keys) != count:
            self.show([str(at) for at in reversed(range(count))], None)

    def heading(self, width: int) -> list[Segment]:
        return [Segment(f"{'WHEN':<9}{'STOP':>8}{'START':>8}  {'RESULT':<9}WHO".ljust(width)[:width], HEAD)]

    def line(self, key: str, width: int) -> list[Segment]:
        one = self._picture().preemptions.all[int(key)]
        when = time.strftime("%H:%M:%S", time.localtime(one.at))
        return [Segment(fit(f"{when:<9}{_phases(one)}  {_result(one):<9}{printable(one.text)}", width))]


def _phases(one: Stops) -> str:
    freed, begun = one.freed_at, one.started_at
    stop = f"{max(0.0, freed - one.at):.1f} s" if freed is not None else "-"
    start = f"{max(0.0, begun - (freed or one.at)):.1f} s" if begun is not None else "-"
    return f"{stop:>8}{start:>8}"


def _result(one: Stops) -> str:
    return "runs" if one.started_at is not None else "gave up" if one.gave_up else "going on"


class StopsPane(Vertical):
    """Who was stopped for whom, and all that is told of the one under the cursor."""

    def __init__(self, picture: Now) -> None:
        super().__init__()
        self._picture = picture

    def compose(self) -> ComposeResult:
        yield StopsLines(self._picture)
        yield Static(id="detail")

    def show(self, news: News) -> None:
        """Draw what changed."""
        self.query_one(StopsLines).update_from(news)
        self.show_detail()

    def show_detail(self) -> None:
        """Say more of the preemption under the cursor."""
        key, found = self.query_one(StopsLines).cursor, self._picture().preemptions.all
        one = found[int(key)] if key is not None and int(key) < len(found) else None
        told = (
            Text("no preemption, as far back as events are kept", "dim") if one is None else _about_stop(one)
        )
        self.query_one("#detail", Static).update(told)


def _about_stop(one: Stops) -> Text:
    gone = sum(at is not None for at in one.victims.values())
    stopped = f"{gone} of {len(one.victims)} stopped: {', '.join(f'job {name}' for name in one.victims)}"
    lines = [Text(printable(one.text), style="bold"), Text(printable(stopped))]
    if one.gave_up:
        lines.append(Text(printable(f"given up: {one.gave_up}")))
    lines.append(Text("why these: Enter on its host (tab 1), then tab 4", style="dim"))
    return Text("\n").join(lines)
