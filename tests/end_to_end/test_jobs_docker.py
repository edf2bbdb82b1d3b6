"""Jobs as people run them, with a real engine: attached, in arrays, with secrets."""

import contextlib
import hashlib
import json
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import docker
import pytest

from tests.engine import PrivateEngine
from tests.integration.daemon_process import Topod
from tests.integration.test_cli import Cli

pytestmark = pytest.mark.docker

SECONDS = 60
# The containers count each other: each has a folder while it runs. The first two wait until they have met.
MEMBER = """
set -e
mkdir /shared/in.$TOPOD_ARRAY_INDEX
count() { ls -d /shared/in.* | wc -l; }
until [ -e /shared/met ]; do [ "$(count)" -lt 2 ] || touch /shared/met; sleep 0.02; done
for look in 1 2 3 4 5 6 7 8; do echo "saw $(count)"; sleep 0.05; done
rmdir /shared/in.$TOPOD_ARRAY_INDEX
"""
READER = """
cat /run/secrets/hf-token | sha256sum
(echo x > /run/secrets/hf-token) 2> /dev/null || echo "not to be written"
until [ -e /shared/seen ]; do sleep 0.02; done
"""


class Site:
    """topod with the private engine on an emulated host, used through `topoctl`."""

    def __init__(self, topod: Topod, engine: PrivateEngine) -> None:
        self.topod = topod
        self.cli = Cli(topod)
        self.job = ("--image", engine.image, "--grace", "5s", "--gpus", "1")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, engine: PrivateEngine) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("j")
    with Topod(folder, host="dgx1", runtime="docker", engine=engine.base_url) as topod:
        topod.start()
        yield Site(topod, engine)


@pytest.fixture
def client(engine: PrivateEngine) -> Iterator[docker.DockerClient]:
    with contextlib.closing(engine.client()) as client:
        yield client


def running(client: docker.DockerClient) -> set[str]:
    return {str(container.id) for container in client.containers.list()}


def test_run_passes_on_what_a_container_prints_and_how_it_ends(site: Site) -> None:
    done = site.cli.run("run", *site.job, "--", "sh", "-c", "echo out; echo err >&2; exit 3", status=3)
    assert sorted(done.stdout.splitlines()) == ["err", "out"]
    assert "runs on GPU" in done.stderr
    site.cli.run("run", "-q", *site.job, "--", "/no/such/program", status=127)


def test_an_interrupt_stops_the_container_and_its_last_words_are_heard(
    site: Site, client: docker.DockerClient
) -> None:
    before = running(client)
    script = "trap 'echo saved; exit 0' TERM; echo ready; exec 2>/dev/null; while :; do sleep 0.05; done"
    attached = site.cli.start("run", *site.job, "--", "sh", "-c", script)
    assert attached.stdout is not None
    assert attached.stdout.readline() == "ready\n"
    assert len(running(client) - before) == 1
    attached.send_signal(signal.SIGINT)
    out, err = attached.communicate(timeout=SECONDS)
    assert (attached.returncode, out) == (130, "saved\n"), err
    assert running(client) == before


def test_never_more_containers_of_an_array_at_a_time_than_it_says(site: Site, tmp_path: Path) -> None:
    shared = ("--volume", f"{tmp_path}:/shared", "--array", "0-3%2", "--parsable")
    first = int(site.cli.out("submit", *shared, *site.job, "--", "sh", "-c", MEMBER))
    assert site.cli.out("wait", str(first)).count("succeeded") == 4
    seen = [site.topod.output(job).splitlines() for job in range(first, first + 4)]
    assert all(len(lines) == 8 for lines in seen)
    counts = {line for lines in seen for line in lines}
    assert "saw 2" in counts
    assert counts <= {"saw 1", "saw 2"}


def test_a_secret_is_read_inside_and_written_down_nowhere(
    site: Site, client: docker.DockerClient, tmp_path: Path
) -> None:
    content = "hf_7Jx0nQ4w-secret"
    token = tmp_path / "token"
    token.write_text(content)
    flags = ("--secret", f"hf-token={token}", "--volume", f"{tmp_path}:/shared")
    before = running(client)
    job = int(site.cli.submit(*flags, *site.job, "--", "sh", "-c", READER))
    digest = hashlib.sha256(content.encode()).hexdigest()
    expected = f"{digest}  -\nnot to be written\n"
    site.topod.until(partial(_printed, site.topod, job, expected))
    (container,) = running(client) - before
    inspected = json.dumps(client.api.inspect_container(container))
    (tmp_path / "seen").touch()
    assert site.topod.wait(job).state == "succeeded"
    shown = json.dumps(site.cli.json("show", str(job)))
    told = " ".join(repr(event) for event in site.topod.events())
    # The file's name may be known, so what is searched here is the right place.
    assert str(token) in inspected
    assert str(token) in shown
    assert f"job {job} " in told
    kept = [path for path in site.topod.folder.rglob("*") if path.is_file()]
    assert "state.db" in {path.name for path in kept}
    assert not [path for path in kept if content.encode() in path.read_bytes()]
    assert content not in inspected + shown + told


def _printed(topod: Topod, job: int, expected: str) -> bool:
    return topod.printed(job).decode() == expected
