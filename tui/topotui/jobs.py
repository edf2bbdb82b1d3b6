"""The table of jobs, those that are on or wait or those that ended, and of one of them a few lines more."""

from typing import Final

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import DataTable, Static

from topoctl.render.jobs import cpus, elapsed, gpus, hosts, ident, label, priority, ranges, restarts
from topoctl.render.style import printable
from topod.protocol.units import format_duration
from topod.protocol.views import JobLine
from topotui.palette import color_of
from topotui.panes import STATE_SIGNS
from topotui.picture import Picture

ENDED_SIGNS: Final = {"succeeded": "✓", "failed": "✗", "lost": "✗", "cancelled": "-", "returned": "↩"}
Rows = dict[str, dict[str, str]]
"""By the number of the job the cells by their columns."""
NARROW: Final = 110
"""From so many columns on all columns are shown."""
ALL: Final = ("ID", "NAME", "USER", "PRIO", "STATE", "TIME", "GPUS", "CPUS", "RST", "REASON")
SOME: Final = ("ID", "NAME", "PRIO", "STATE", "TIME", "GPUS", "REASON")
ALL_ENDED: Final = ("ID", "NAME", "USER", "PRIO", "STATE", "EXIT", "RAN", "ENDED", "RST", "REASON")
SOME_ENDED: Final = ("ID", "NAME", "STATE", "EXIT", "RAN", "ENDED", "REASON")


class JobsPane(Vertical):
    """The jobs that run and the queue; or with `ended` those that ended, the last first."""

    def __init__(self, ended: bool = False, **keywords: str | None) -> None:
        super().__init__(**keywords)  # type: ignore[arg-type]  # Textual names id, classes and name
        self._ended = ended
        self._columns: tuple[str, ...] = ()
        self._rows: Rows = {}
        self.filter = ""

    def compose(self) -> ComposeResult:
        table: DataTable[Text] = DataTable(cursor_type="row", zebra_stripes=True)
        yield table
        yield Static(id="detail")

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
        wanted = {str(job.id): job for job in jobs if has_words(job, self.filter)}
        table = self.query_one(DataTable)
        rows = {key: row_of(job, picture.now) for key, job in wanted.items()}
        self._cut(rows)
        columns = self._fitting()
        if columns != self._columns:
            self._columns, self._rows = columns, {}
            table.clear(columns=True)
            for name in columns:
                table.add_column(name, key=name)
            self._refill(table, wanted, rows)
        elif [*wanted] != [*self._rows]:
            self._refill(table, wanted, rows)
        else:
            self._update(table, wanted, rows)
        self.show_detail(picture)

    def show_detail(self, picture: Picture) -> None:
        """Say more about the job under the cursor."""
        job = picture.ended.get(self.selected or 0) or picture.jobs.get(self.selected or 0)
        told = detail(job, picture.now) if job else no_job(self.filter, ended=self._ended)
        self.query_one("#detail", Static).update(told)

    def _fitting(self) -> tuple[str, ...]:
        wide = self.app.size.width >= NARROW
        if self._ended:
            return ALL_ENDED if wide else SOME_ENDED
        return ALL if wide else SOME

    def _cut(self, rows: Rows) -> None:
        """Cut the reasons to what room the other columns leave; whole they stand below the table."""
        others = [name for name in self._fitting() if name != "REASON"]
        taken = sum(max([len(name), *(len(row[name]) for row in rows.values())]) + 2 for name in others)
        room = max(12, self.app.size.width - taken - 6)
        for row in rows.values():
            if len(row["REASON"]) > room:
                row["REASON"] = f"{row['REASON'][: room - 1]}…"

    def _update(self, table: "DataTable[Text]", wanted: dict[str, JobLine], rows: Rows) -> None:
        for key, job in wanted.items():
            row, before = rows[key], self._rows[key]
            for name in self._columns:
                if before[name] != row[name]:
                    table.update_cell(key, name, _cell(name, row[name], job), update_width=True)
        self._rows = rows

    def _refill(self, table: "DataTable[Text]", wanted: dict[str, JobLine], rows: Rows) -> None:
        here = self.selected
        table.clear()
        self._rows = rows
        for key, job in wanted.items():
            table.add_row(*(_cell(name, rows[key][name], job) for name in self._columns), key=key)
        if here is not None and str(here) in self._rows:
            table.move_cursor(row=[*self._rows].index(str(here)))


def has_words(job: JobLine, words: str) -> bool:
    """Say whether a job has all these words, in any case."""
    parts = (ident(job), job.name, job.user, job.state, priority(job), *job.hosts, job.reason)
    text = " ".join(parts).lower()
    return all(word in text for word in words.lower().split())


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


def _cell(name: str, value: str, job: JobLine) -> Text:
    return Text(value, style=color_of(job.priority) if name == "PRIO" else "", no_wrap=True)


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
        asked += f"; has GPUs {ranges(job.gpu_indices)}, CPUs {job.cpu_list or 'of the shared pool'}"
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
