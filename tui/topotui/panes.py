"""What the tabs of a host show, but the first; each is told when the picture changed and draws only then."""

import time
from collections.abc import Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import DataTable, RichLog, Static

from topoctl.render.jobs import cpus, gpus, ident, priority_name
from topoctl.render.style import printable
from topod.protocol.units import format_duration
from topod.protocol.views import EventView, JobLine
from topotui.palette import color_of
from topotui.picture import Picture
from topotui.timeline import Preemption

STATE_SIGNS = {"running": "▶", "pending": "…", "starting": "◌", "stopping": "◐", "preempted": "◐"}


class JobsPane(Vertical):
    """The jobs that run and the queue, as a table with details of one below it."""

    COLUMNS = ("ID", "NAME", "USER", "PRIO", "STATE", "TIME", "GPUS", "CPUS", "RST", "REASON")

    def __init__(self, ended: bool = False, **keywords: str | None) -> None:
        super().__init__(**keywords)  # type: ignore[arg-type]  # Textual names id, classes and name
        self._ended = ended
        self._rows: dict[str, tuple[str, ...]] = {}
        self.filter = ""

    def compose(self) -> ComposeResult:
        table: DataTable[Text] = DataTable(cursor_type="row", zebra_stripes=True)
        yield table
        yield Static(id="detail")

    def on_mount(self) -> None:
        for name in self.COLUMNS:
            self.query_one(DataTable).add_column(name, key=name)

    @property
    def selected(self) -> int | None:
        """Return the number of the job under the cursor."""
        table = self.query_one(DataTable)
        if not table.row_count:
            return None
        return int(str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value))

    def show(self, picture: Picture) -> None:
        """Bring the table up to date: only the cells that differ are touched."""
        jobs = (
            list(reversed(picture.ended.values())) if self._ended else [*picture.running(), *picture.queue()]
        )
        wanted = {str(job.id): job for job in jobs if self._fits(job)}
        table = self.query_one(DataTable)
        if [*wanted] != [*self._rows]:
            self._refill(table, wanted, picture.now)
        else:
            for key, job in wanted.items():
                row = _row(job, picture.now)
                for name, old, new in zip(self.COLUMNS, self._rows[key], row, strict=True):
                    if old != new:
                        table.update_cell(key, name, _cell(name, new, job), update_width=True)
                self._rows[key] = row
        self.show_detail(picture)

    def show_detail(self, picture: Picture) -> None:
        """Say more about the job under the cursor."""
        job = picture.ended.get(self.selected or 0) or picture.jobs.get(self.selected or 0)
        self.query_one("#detail", Static).update(_detail(job, picture.now) if job else "")

    def _fits(self, job: JobLine) -> bool:
        parts = (ident(job), job.name, job.user, job.state, priority_name(job.priority), job.reason)
        words = " ".join(parts).lower()
        return all(word in words for word in self.filter.lower().split())

    def _refill(self, table: "DataTable[Text]", wanted: dict[str, JobLine], now: float) -> None:
        here = self.selected
        table.clear()
        self._rows = {}
        for key, job in wanted.items():
            row = _row(job, now)
            self._rows[key] = row
            cells = [_cell(name, value, job) for name, value in zip(self.COLUMNS, row, strict=True)]
            table.add_row(*cells, key=key)
        if here is not None and str(here) in self._rows:
            table.move_cursor(row=[*self._rows].index(str(here)))


class PreemptionsPane(Vertical):
    """A timeline of preemptions, and why the victims of one."""

    def compose(self) -> ComposeResult:
        table: DataTable[str] = DataTable(cursor_type="row", zebra_stripes=True)
        yield table
        yield Static(id="why")

    def on_mount(self) -> None:
        self.query_one(DataTable).add_columns(
            "WHEN", "PREEMPTOR", "VICTIMS", "MAKE", "STOP", "START", "RESULT"
        )

    def show(self, picture: Picture) -> None:
        """Draw the table anew: preemptions are few."""
        table = self.query_one(DataTable)
        at = table.cursor_row
        table.clear()
        for one in reversed(picture.timeline.all):
            table.add_row(*_preemption(one))
        if table.row_count:
            table.move_cursor(row=min(at, table.row_count - 1))
        self.show_why(picture)

    def show_why(self, picture: Picture) -> None:
        """Say why the victims of the one under the cursor."""
        table = self.query_one(DataTable)
        found = picture.timeline.all
        one = found[len(found) - 1 - table.cursor_row] if 0 <= table.cursor_row < len(found) else None
        self.query_one("#why", Static).update(_why(one) if one else Text("no preemption so far", style="dim"))


class EventsPane(Vertical):
    """The host's story, the newest last."""

    def compose(self) -> ComposeResult:
        yield RichLog(max_lines=5000, wrap=True, markup=False)

    def add(self, events: Sequence[EventView]) -> None:
        """Show what happened since."""
        log = self.query_one(RichLog)
        for event in events:
            stamp = time.strftime("%H:%M:%S", time.localtime(event.at))
            log.write(Text.assemble((f"{stamp} ", "dim"), printable(event.text or event.name)))


def _row(job: JobLine, now: float) -> tuple[str, ...]:
    since = job.started_at if job.started_at is not None else job.submitted_at
    until = job.ended_at if job.ended_at is not None else now
    return (
        ident(job),
        printable(job.name)[:16],
        printable(job.user)[:10],
        priority_name(job.priority),
        f"{STATE_SIGNS.get(job.state, ' ')} {job.state}",
        format_duration(max(0.0, until - since)),
        gpus(job),
        cpus(job),
        str(job.preemptions),
        printable(job.reason),
    )


def _cell(name: str, value: str, job: JobLine) -> Text:
    return Text(value, style=color_of(job.priority) if name == "PRIO" else "", no_wrap=True)


def _detail(job: JobLine, now: float) -> Text:
    asked = f"asks for {job.gpus} GPUs, affinity {job.affinity} ({job.policy}), CPUs {job.cpus}"
    lines = [Text(f"{job.label or f'job {job.id}'}: {job.state}", style="bold"), Text(asked)]
    if job.gpu_indices:
        lines.append(
            Text(f"GPUs {', '.join(map(str, job.gpu_indices))}; CPUs {job.cpu_list or 'the shared pool'}")
        )
    if job.reason:
        lines.append(Text(printable(job.reason)))
    counts = f"{job.starts} starts, {job.preemptions} preemptions, {job.failures} failures in a row"
    lines.append(
        Text(f"submitted {format_duration(max(0.0, now - job.submitted_at))} ago; {counts}", style="dim")
    )
    return Text("\n").join(lines)


def _preemption(one: Preemption) -> tuple[str, ...]:
    phases = dict(one.phases())
    spans = [f"{phases[name] * 1000:.0f} ms" if name in phases else "-" for name in ("make", "stop", "start")]
    result = "runs" if one.started_at is not None else "gave up" if one.gave_up else "going on"
    when = time.strftime("%H:%M:%S", time.localtime(one.placed_at))
    return (when, printable(one.label), ", ".join(str(victim.job) for victim in one.victims), *spans, result)


def _why(one: Preemption) -> Text:
    lines = [Text(printable(one.label), style="bold")]
    lines += [
        Text.assemble(("✗ ", "#d55e00"), f"job {victim.job}: {printable(victim.why)}")
        for victim in one.victims
    ]
    costs = one.plan.get("cost_text") or []
    lines += [Text(f"  {cost.get('key')}: {cost.get('value')}", style="dim") for cost in costs]
    other = one.plan.get("alternative")
    if isinstance(other, dict):
        names = ", ".join(str(job) for job in other.get("victims") or []) or "nobody"
        lines.append(
            Text(f"next best: GPUs {other.get('gpus')}, stopping {names}; lost by {other.get('decided_by')}")
        )
    if one.gave_up:
        lines.append(Text(printable(one.gave_up)))
    return Text("\n").join(lines)
