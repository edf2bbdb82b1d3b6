"""Gathers the parts of a bug report: from topod where it answers, from the machine in any case."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from topoctl.bundle import local
from topoctl.bundle.local import NotHadError
from topoctl.bundle.scrub import Scrubber, event_without_private, private_words, without_private
from topod.errors import TopodError
from topod.protocol.client import Client
from topod.protocol.replies import (
    AnyReply,
    Configuration,
    Counts,
    Events,
    Fairness,
    Host,
    Hosts,
    JobLines,
    Jobs,
    Welcome,
)
from topod.protocol.requests import (
    AnyRequest,
    GetConfig,
    GetCounts,
    GetFairness,
    GetHost,
    GetHosts,
    Hello,
    ListJobs,
    ReadEvents,
)

ENDED: Final = 200
EVENTS: Final = 2000
LOG_LINES: Final = 5000
ANSWER_SECONDS: Final = 15.0
CONFIG: Final = Path("/etc/topod/topod.toml")
R = TypeVar("R")


@dataclass(slots=True)
class Parts:
    """What was had, by its name in the bundle, and why the rest was not."""

    plain: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    private: list[str] = field(default_factory=list)
    """Words that must stand nowhere."""

    def text(self, name: str, get: Callable[[], str]) -> None:
        """Take in a text, or why it cannot be had."""
        try:
            self.texts[name] = get()
        except (NotHadError, OSError) as error:
            self.missing[name] = str(error)

    def json(self, name: str, get: Callable[[], Any]) -> Any:
        """Take in plain values and return them; None, where they cannot be had."""
        try:
            self.plain[name] = found = get()
        except TopodError as error:
            self.missing[name] = error.message
        except (NotHadError, OSError, ValueError) as error:
            self.missing[name] = str(error)
        else:
            return found
        return None

    def files(self) -> dict[str, bytes]:
        """Return the files of the bundle, without secrets, and a list of them."""
        scrub = Scrubber(self.private)
        files = {name: scrub.text(text).encode() for name, text in self.texts.items()}
        for name, value in self.plain.items():
            files[name] = scrub.dumped(value).encode()
        files["README.txt"] = scrub.text(self._about(files)).encode()
        return files

    def _about(self, files: Mapping[str, bytes]) -> str:
        had = [f"{name}  {len(data)} bytes" for name, data in sorted(files.items())]
        lacks = [f"{name}: {why}" for name, why in sorted(self.missing.items())]
        return "\n".join([_ABOUT, "In it:", *had, "", "Not to be had:", *(lacks or ["nothing"]), ""])


_ABOUT: Final = """\
A support bundle of topod, made by `topoctl support-bundle`.

Taken out: the values of jobs' environments, the arguments of their commands, what they and their hooks
printed, and all that looks like a key, a token or a password. Still in it: names of jobs, users, hosts and
images, labels, paths, the topology of the machine. Look through it before you send it.
"""


def gather_answers(
    parts: Parts, connected: Callable[[], Client], *, through_fleet: bool = False
) -> Welcome | None:
    """Ask topod for all that it tells; None: it does not answer, or a coordinator asks it for us."""
    try:
        with connected() as client:
            if through_fleet:
                _ask_all(parts, client, fleet=False)
                return None
            welcome = _asked(client, Hello(), Welcome)
            parts.plain["topod/welcome.json"] = msgspec.to_builtins(welcome)
            _ask_all(parts, client, fleet=welcome.fleet)
            return welcome
    except (TopodError, NotHadError) as error:
        parts.missing["topod/"] = error.message if isinstance(error, TopodError) else str(error)
        return None


def _ask_all(parts: Parts, client: Client, *, fleet: bool) -> None:
    _ask_jobs(parts, client, "topod/jobs.json", ListJobs())
    _ask_jobs(parts, client, "topod/ended.json", ListJobs(ended=True, limit=ENDED))
    story = ReadEvents(since=-EVENTS, limit=EVENTS)
    events = parts.json("topod/events.json", lambda: _plain(client, story, Events)["events"])
    if events is not None:
        parts.plain["topod/events.json"] = [event_without_private(event) for event in events]
    parts.json("topod/rules.json", lambda: _plain(client, GetFairness(), Fairness))
    parts.json("topod/config.json", lambda: _plain(client, GetConfig(), Configuration))
    if fleet:
        parts.json("topod/hosts.json", lambda: _plain(client, GetHosts(), Hosts))
        parts.json("topod/counts.json", lambda: _plain(client, GetCounts(), Counts))
    else:
        parts.json("topod/host.json", lambda: _plain(client, GetHost(), Host))


def _ask_jobs(parts: Parts, client: Client, name: str, request: ListJobs) -> None:
    jobs = parts.json(name, lambda: _plain(client, request, Jobs)["jobs"])
    if jobs is None:
        # Too many for one answer, perhaps.
        brief = msgspec.structs.replace(request, brief=True)
        parts.json(name.replace(".json", "-brief.json"), lambda: _plain(client, brief, JobLines)["jobs"])
        return
    for job in jobs:
        parts.private += private_words(job)
    parts.plain[name] = [without_private(job) for job in jobs]


def gather_machine(
    parts: Parts,
    welcome: Welcome | None,
    *,
    logs: Iterable[Path],
    config: Path | None,
    doctor: Callable[[], Any],
    state_dir: Path,
) -> None:
    """Look at this machine: what topod does not tell of itself, and all where it does not answer."""
    parts.json("versions.json", local.versions)
    parts.json("doctor.json", doctor)
    fleet = welcome is not None and welcome.fleet
    if not fleet:
        parts.text("nvidia-smi.txt", lambda: local.run("nvidia-smi", "-q"))
        parts.text("nvidia-smi-topo.txt", lambda: local.run("nvidia-smi", "topo", "-m"))
        if welcome is None:
            parts.json("topology.json", local.topology)
    named = config or Path(os.environ.get("TOPOD_CONFIG") or CONFIG)
    parts.text("topod.toml", lambda: local.tail(named))
    for path in sorted((named.parent / "conf.d").glob("*.toml")):
        parts.text(f"conf.d/{path.name}", partial(local.tail, path))
    files = list(logs)
    for number, path in enumerate(files, 1):
        parts.text(f"log-{number}.txt", partial(local.tail, path))
    if not files:
        unit = "topod-coordinator" if fleet else "topod"
        parts.text("log.txt", lambda: local.journal(unit, LOG_LINES))
    folder = Path(welcome.state_dir) if welcome is not None else state_dir
    parts.text("state-folder.txt", lambda: local.folder(folder))
    if welcome is None:
        parts.missing["metrics.txt"] = "topod does not answer"
    elif not welcome.metrics_url:
        parts.missing["metrics.txt"] = "metrics are off"
    else:
        parts.text("metrics.txt", lambda: local.scraped(welcome.metrics_url))


def _plain(client: Client, request: AnyRequest, kind: type[AnyReply]) -> Any:
    return msgspec.to_builtins(_asked(client, request, kind))


def _asked(client: Client, request: AnyRequest, kind: type[R]) -> R:
    reply = client.ask(request, ANSWER_SECONDS)
    if not isinstance(reply, kind):
        raise NotHadError(f"topod answered with {type(reply).__name__}")
    return reply
