"""`topoctl simulate`: what a way to choose is worth, on hosts and jobs of one's own."""

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from topoctl import exit_codes
from topoctl.session import TextOrJson, TextOrJsonOption, note, show, show_json, style
from topod.errors import ConflictError, StoreError, UsageError

if TYPE_CHECKING:
    from topoctl.simulate.runs import Plot, Result
    from topod.simulate.worth import Worth

EXAMPLES = """
topoctl simulate --example day/
topoctl simulate day/fleet.toml day/work.toml
topoctl simulate day/fleet.toml day/work.toml --runs 5 --html day.html
topoctl simulate day/fleet.toml --trace jobs.csv --period 14d
sacct -a -X -P -S 2026-11-01 -o Submit,ElapsedRaw,AllocTRES > jobs.txt
topoctl simulate day/fleet.toml --sacct jobs.txt
"""
STANDARD = "topod,imp,reprieve,slurm,kube,nomad"


def _file(text: str) -> Any:
    return typer.Option(metavar="FILE", help=text, show_default=False)


def simulate(
    ctx: typer.Context,
    fleet: Annotated[
        Path | None, typer.Argument(metavar="FLEET", help="The file of the hosts.", show_default=False)
    ] = None,
    work: Annotated[
        Path | None, typer.Argument(metavar="[WORK]", help="The file of the jobs.", show_default=False)
    ] = None,
    *,
    trace: Annotated[Path | None, _file("Jobs of a trace.")] = None,
    sacct: Annotated[Path | None, _file("Jobs that Slurm's sacct -P printed.")] = None,
    policy: Annotated[str, typer.Option(metavar="NAME,...", help="Ways to choose.")] = STANDARD,
    period: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long; else as the file says.", show_default=False)
    ] = None,
    stop: Annotated[str, typer.Option(metavar="TIME", help="How long victims take to go.")] = "10s",
    seed: Annotated[int, typer.Option(metavar="N", help="Of the first run.")] = 1,
    runs: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="With a seed each.")] = 1,
    workers: Annotated[
        int, typer.Option(metavar="N", min=0, max=256, help="Processes; 0: one a processor.")
    ] = 0,
    worth: Annotated[Path | None, _file("What links are worth; else topod's own model.")] = None,
    html: Annotated[Path | None, _file("Write charts as well.")] = None,
    example: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write two files to begin with.", show_default=False)
    ] = None,
    output: TextOrJsonOption = TextOrJson.TABLE,
) -> int:
    """Simulate a fleet under several ways to choose.

    Jobs come, preempt and end in virtual time; topod's own planner decides, or a model of another scheduler.
    """
    if example is not None:
        return _write_example(example)
    policies = _policies(policy)
    plot = _plot(fleet, work, trace, sacct, period, stop, _worth(worth))
    seeds = range(seed, seed + (runs if plot.jobs is None else 1))
    results = _live(plot, policies, seeds, workers or os.cpu_count() or 1)
    _show(ctx, plot, policies, results, output, html)
    return exit_codes.OK


def _show(  # noqa: PLR0917 - what was made, and how it is to be told
    ctx: typer.Context,
    plot: "Plot",
    policies: list[str],
    results: "list[Result]",
    output: TextOrJson,
    html: Path | None,
) -> None:
    from topoctl.outfile import write
    from topoctl.simulate.figures import means
    from topoctl.simulate.page import simulation_page
    from topoctl.simulate.text import comparison

    found = {name: means([one.figures for one in results if one.policy == name]) for name in policies}
    command = shlex.join(("topoctl", "simulate", *_words(ctx)))
    if output is TextOrJson.JSON:
        show_json(_as_json(plot, results, command))
    else:
        show(_head(plot, results) + comparison(found, style(ctx)) + f"\n{command}\n")
    if html is not None:
        write(html, simulation_page(found, _about(plot, results), command))
        note(f"wrote {html}")


def _words(ctx: typer.Context) -> Iterator[str]:
    """Yield what was said on the command line, but for how it is told."""
    for param in ctx.command.params:
        name, value = param.name or "", ctx.params.get(param.name or "")
        if str(ctx.get_parameter_source(name)).endswith("COMMANDLINE") and name not in {"html", "output"}:
            if param.param_type_name == "option":
                yield param.opts[0]
            yield str(value)


def _policies(text: str) -> list[str]:
    from topoctl.simulate.runs import POLICIES
    from topod.protocol.jobfields import near

    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in POLICIES:
            raise UsageError(
                f"--policy: no policy is called {name!r}{near(name, POLICIES)}", hint=", ".join(POLICIES)
            )
    if not names:
        raise UsageError("--policy: names none", hint=", ".join(POLICIES))
    return list(dict.fromkeys(names))


def _plot(  # noqa: PLR0917 - what a simulation is made of
    fleet: Path | None,
    work: Path | None,
    trace: Path | None,
    sacct: Path | None,
    period: str | None,
    stop: str,
    worth: "Worth",
) -> "Plot":
    from topoctl.simulate.files import read_fleet, read_work
    from topoctl.simulate.runs import Plot, check_possible
    from topoctl.simulate.trace import read_sacct, read_trace

    if fleet is None or sum(path is not None for path in (work, trace, sacct)) != 1:
        raise UsageError(
            "give a file of hosts and one of jobs: WORK, --trace or --sacct",
            hint="topoctl simulate --example DIR writes two files to begin with",
        )
    hosts = read_fleet(fleet)
    seconds = _duration("--period", period) if period is not None else None
    if seconds == 0:
        raise UsageError("--period: nothing happens in no time", hint="write 24h or 7d")
    stops = _duration("--stop", stop)
    if work is not None:
        parts = read_work(work)
        plot = Plot(
            hosts=hosts,
            seconds=seconds or parts.seconds,
            stop_seconds=stops,
            worth=worth,
            online=parts.online,
            batch=parts.batch,
        )
        check_possible(plot, parts.requests)
        return plot
    jobs = tuple(read_trace(trace) if trace is not None else read_sacct(sacct or Path()))
    if not jobs:
        raise UsageError(f"{trace or sacct}: has no jobs")
    last = max(job.submit + job.run for job in jobs)
    plot = Plot(hosts=hosts, seconds=seconds or last, stop_seconds=stops, worth=worth, jobs=jobs)
    check_possible(plot, sorted({(job.part, job.request) for job in jobs}, key=repr))
    return plot


def _worth(path: Path | None) -> "Worth":
    from importlib.resources import as_file, files

    from topoctl.simulate.files import read_worth

    if path is not None:
        return read_worth(path)
    with as_file(files("topoctl.simulate") / "worth.toml") as own:
        return read_worth(own)


def _duration(option: str, text: str) -> float:
    from topod.protocol.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def _live(plot: "Plot", policies: list[str], seeds: range, workers: int) -> "list[Result]":
    from topoctl.simulate.runs import live_all

    results: list[Result] = []
    days = len(policies) * len(seeds)
    with typer.progressbar(
        length=days, label="simulating", file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:
        for result in live_all(plot, policies, seeds, min(workers, days)):
            results.append(result)
            bar.update(1)
    return sorted(results, key=lambda one: (policies.index(one.policy), one.seed))


def _head(plot: "Plot", results: "list[Result]") -> str:
    gpus = sum(tables.count for _, tables in plot.hosts)
    jobs = sum(one.jobs for one in results) // len(results)
    seeds = len({one.seed for one in results})
    runs = f", mean of {seeds} runs ± 95 % confidence" if seeds > 1 else ""
    return f"{len(plot.hosts)} hosts, {gpus} GPUs, {plot.seconds / 3600:g} hours, {jobs:,} jobs{runs}\n\n"


def _about(plot: "Plot", results: "list[Result]") -> list[tuple[str, str, str]]:
    gpus = sum(tables.count for _, tables in plot.hosts)
    seeds = len({one.seed for one in results})
    events = sum(one.events for one in results)
    return [
        ("Hosts", f"{len(plot.hosts):,}", f"{gpus:,} GPUs"),
        ("Period", f"{plot.seconds / 3600:g} h", f"{seeds} run{'s' if seeds > 1 else ''}"),
        ("Jobs", f"{sum(one.jobs for one in results) // len(results):,}", f"{events:,} events in all"),
    ]


def _as_json(plot: "Plot", results: "list[Result]", command: str) -> dict[str, Any]:
    return {
        "command": command,
        "hosts": len(plot.hosts),
        "gpus": sum(tables.count for _, tables in plot.hosts),
        "seconds": plot.seconds,
        "runs": [
            {
                "policy": one.policy,
                "seed": one.seed,
                "jobs": one.jobs,
                "events": one.events,
                "took_seconds": round(one.took, 3),
                **one.figures,
            }
            for one in results
        ],
    }


def _write_example(folder: Path) -> int:
    from importlib.resources import files

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("fleet.toml", "work.toml"):
            path = folder / name
            with path.open("x", encoding="utf-8") as file:
                file.write((files("topoctl.simulate") / name).read_text(encoding="utf-8"))
            note(f"wrote {path}")
    except FileExistsError as error:
        raise ConflictError(f"{error.filename} exists; it is not overwritten") from None
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror}") from None
    return exit_codes.OK
