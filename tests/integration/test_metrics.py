"""What a real topod and a real coordinator tell Prometheus, after a preemption and with a sick GPU."""

import subprocess
import tarfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.integration.daemon_process import Topod
from tests.integration.fleet_process import Fleet
from tests.promtool import promtool
from topoctl.main import run
from topod.protocol.replies import Welcome
from topod.protocol.requests import Drain, Hello
from topod.shell.metrics import catalogue as cat
from topod.shell.metrics.catalogue import Metric

Series = dict[tuple[str, tuple[str, ...]], float]


class Scraped:
    """One answer: its series by name and values of labels, in the order of the labels' names."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.series: Series = {
            (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, *labels: str) -> float:
        return self.series[name, labels]


def scrape(welcome: object) -> Scraped:
    assert isinstance(welcome, Welcome)
    with urllib.request.urlopen(welcome.metrics_url, timeout=60) as reply:
        assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return Scraped(reply.read().decode())


def check_names(scraped: Scraped, metrics: tuple[Metric, ...], *, absent: frozenset[str]) -> None:
    """All of the catalogue is told, nothing else, as the kind that it says."""
    told = {name: family for name, family in scraped.families.items() if name.startswith("topod_")}
    expected = {one.name.removesuffix("_total"): one for one in metrics if one.name not in absent}
    assert told.keys() == expected.keys()
    for name, metric in expected.items():
        assert told[name].type == metric.kind.value, name
        assert told[name].documentation == metric.help
        labels = {key for sample in told[name].samples for key in sample.labels} - {"le"}
        assert labels == metric.labels.keys(), name
    assert all(name.startswith(("topod_", "process_")) for name in scraped.families)


def test_a_host_tells_of_its_gpus_jobs_and_preemptions(tmp_path: Path) -> None:
    faults = tmp_path / "faults.toml"
    faults.write_text("")
    with Topod(tmp_path / "t") as topod:
        topod.environment |= {"TOPOD_METRICS": "0", "TOPOD_EMULATED_FAULTS": str(faults)}
        topod.start()
        for _ in range(2):
            low = topod.submit("sleep", "300", gpus=4, priority=100)
            topod.wait(low.id, "running")
        high = topod.submit("sleep", "300", gpus=4, priority=1000, affinity="nvlink")
        topod.wait(high.id, "running")
        topod.cancel(high.id)
        topod.wait(high.id)
        topod.ask(Drain(gpu="7", reason="look at it"))
        faults.write_text("[gpu.6]\nuncorrected = 12\n")
        topod.until(lambda: ("topod_gpu_cause", ("ecc", "6")) in scrape(topod.ask(Hello())).series)
        topod.until(lambda: scrape(topod.ask(Hello())).value("topod_preemptions_total", "completed") == 1)
        found = scrape(topod.ask(Hello()))
        taken = subprocess.run(
            [*topod.command, "--state-dir", str(tmp_path / "2"), "--socket", str(tmp_path / "2.sock")],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={"TOPOD_METRICS": str(topod_port(found, topod)), "PATH": "/usr/bin:/bin"},
        )
    check_names(found, (*cat.COMMON, *cat.OF_HOST), absent=frozenset({cat.COORDINATOR_UP.name}))
    assert found.value("topod_gpus", "unhealthy") == 1
    assert found.value("topod_gpu_marked", "7", "drained") == 1
    assert found.value("topod_group_gpus", "numa", "4-7", "kept_back") >= 1
    assert found.value("topod_jobs_submitted_total", "low") == 2
    assert found.value("topod_jobs_ended_total", "cancelled") == 1
    assert found.value("topod_victims_total", "low") == 1
    assert found.value("topod_affinity_placements_total", "nvlink", "satisfied") == 1
    assert found.value("topod_decisions_total", "preempting", "high") == 1
    assert found.value("topod_decision_duration_seconds_count", "preempting") == 1
    for phase in ("decide", "create", "stop", "free", "start"):
        assert found.value("topod_preemption_phase_duration_seconds_count", phase) == 1
    assert found.value("topod_preemption_duration_seconds_count") == 1
    assert found.value("topod_queue_wait_seconds_count", "high") == 1
    assert found.value("topod_gpu_marks_total", "drained") == 1
    assert found.value("topod_requests_total", "ok", "Drain") == 1
    assert (taken.returncode, taken.stderr.count("\n")) == (5, 3), taken.stderr
    assert "where metrics were to be" in taken.stderr
    checked = promtool("check", "metrics", text=found.text)
    assert (checked.returncode, checked.stderr) == (0, "")


def topod_port(_: Scraped, topod: Topod) -> int:
    welcome = topod.ask(Hello())
    assert isinstance(welcome, Welcome)
    return int(welcome.metrics_url.split(":")[2].split("/")[0])


@contextmanager
def small_fleet(folder: Path) -> Iterator[Fleet]:
    fleet = Fleet(folder, hosts=("a",))
    config = fleet.coordinator.config
    config.write_text(config.read_text() + 'metrics = "127.0.0.1:0"\n')
    fleet.hosts["a"].environment["TOPOD_METRICS"] = "0"
    with fleet:
        yield fleet


def bundle(fleet: Fleet, out: Path, *words: str) -> set[str]:
    """Return the parts of a support bundle that the coordinator is asked for."""
    command = ["--socket", str(fleet.coordinator.socket), *words, "support-bundle", "--out", str(out)]
    assert run(command) == 0
    with tarfile.open(out) as tar:
        return {name.partition("/")[2] for name in tar.getnames()}


def test_a_coordinator_tells_of_its_hosts_and_jobs_also_in_a_bundle(tmp_path: Path) -> None:
    with small_fleet(tmp_path / "f") as fleet:
        low = fleet.submit("sleep 300", gpus=8, priority=100)
        fleet.wait(low.id, "running")
        high = fleet.submit("sleep 300", gpus=4, priority=1000)
        fleet.wait(high.id, "running")
        found = scrape(fleet.ask(Hello()))
        host = scrape(fleet.hosts["a"].ask(Hello()))
        of_fleet = bundle(fleet, tmp_path / "fleet.tar.gz")
        of_host = bundle(fleet, tmp_path / "host.tar.gz", "--host", "a")
        fleet.cancel(low.id, high.id)
    assert {"topod/jobs.json", "topod/hosts.json", "topod/counts.json", "metrics.txt"} <= of_fleet
    assert of_host == {
        "README.txt",
        "topod/config.json",
        "versions.json",
        *(f"topod/{part}.json" for part in ("jobs", "ended", "events", "rules", "host")),
    }
    # Nothing was refused: then that has no series.
    check_names(found, (*cat.COMMON, *cat.OF_FLEET), absent=frozenset({cat.REFUSED.name}))
    assert found.value("topod_fleet_leads") == 1
    assert found.value("topod_fleet_hosts", "ready") == 1
    assert found.value("topod_fleet_jobs", "high", "running") == 1
    assert sum(value for (name, _), value in found.series.items() if name == "topod_fleet_gpus") == 8
    assert found.value("topod_fleet_decisions_total", "preempting", "high") == 1
    assert found.value("topod_fleet_planned_victims_total") == 1
    assert found.value("topod_fleet_queue_wait_seconds_count", "high") == 1
    assert found.value("topod_port_connections", "all") == 1
    (told,) = [line for line in fleet.coordinator.log.read_text().splitlines() if "=preempting" in line]
    assert f"decision job={high.id} " in told
    assert " victims=a/1 " in told
    assert host.value("topod_coordinator_up") == 1
    assert host.value("topod_victims_total", "low") == 1
    checked = promtool("check", "metrics", text=found.text)
    assert (checked.returncode, checked.stderr) == (0, "")
