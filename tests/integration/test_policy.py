"""A site's policy on a real topod with a real engine: at submit, and again when the container is made."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.as_user import as_user
from tests.engine import PrivateEngine
from tests.integration.daemon_process import Topod
from topod.model.job import JobSpec, Mount, Network
from topod.protocol.client import Client, RemoteError
from topod.protocol.replies import Jobs, Planned
from topod.protocol.requests import Drain, DryRun, Resume, Submit
from topod.protocol.views import JobView

pytestmark = pytest.mark.docker
NOBODY = 65534
"""A user that every Linux has by this number."""


class Place:
    """A topod with a policy, and the folder that jobs may mount."""

    def __init__(self, folder: Path, engine: PrivateEngine) -> None:
        self.root = folder / "data"
        self.root.mkdir()
        self.outside = folder / "secret"
        self.outside.mkdir()
        (self.outside / "key").write_text("s3cret")
        (self.root / "mine").mkdir(mode=0o777)
        (self.root / "mine").chmod(0o777)
        config = folder / "topod.toml"
        config.write_text(
            f"""
            [security]
            socket_mode = "0666"
            [security.jobs]
            images = ["bb"]
            mounts = ["{self.root}"]
            users = ["caller"]
            networks = ["none"]
            drop_capabilities = ["NET_RAW"]
            """
        )
        self.topod = Topod(folder, runtime="docker", engine=engine.base_url)
        self.topod.start("--config", str(config))

    def submit(self, script: str, **fields: object) -> JobView:
        """Submit as `nobody`."""
        spec = JobSpec(name="t", image="bb:latest", command=("sh", "-c", script), **fields)  # type: ignore[arg-type]  # test shorthand

        def ask() -> object:
            with Client(self.topod.socket) as client:
                try:
                    return client.ask(Submit(spec=spec), timeout=30)
                except RemoteError as refused:
                    return (refused.exit_status, refused.message)

        reply = as_user(NOBODY, [NOBODY], ask)
        assert isinstance(reply, Jobs), reply
        return reply.jobs[0]

    def mount(self, name: str = "mine") -> tuple[Mount, ...]:
        return (Mount(source=str(self.root / name), target="/mnt"),)


@pytest.fixture(scope="module")
def place(engine: PrivateEngine) -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="topod-policy-"))
    folder.chmod(0o755)
    try:
        made = Place(folder, engine)
        with made.topod:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_an_allowed_job_runs_as_who_sent_it_and_gains_no_rights(place: Place) -> None:
    job = place.submit("id -u; id -g; grep NoNewPrivs /proc/self/status; touch /mnt/x", mounts=place.mount())
    assert job.spec.container_user == f"{NOBODY}:{NOBODY}"
    assert place.topod.wait(job.id).state == "succeeded"
    assert place.topod.output(job.id).split() == [str(NOBODY), str(NOBODY), "NoNewPrivs:", "1"]
    assert (place.root / "mine" / "x").stat().st_uid == NOBODY


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"image": "bb"}, "image bb (write a tag: this could be the number of an image) is not among bb"),
        ({"image": "bb/../../containers/1"}, "image bb/../../containers/1 is not among bb"),
        ({"image": "evil"}, "image evil is not among bb"),
        ({"container_user": "1:1"}, "user 1:1 is not among caller"),
        ({"network": Network.HOST}, "network host is not among none"),
        ({"cap_add": ("SYS_ADMIN",)}, "capability SYS_ADMIN is not allowed here: none is"),
        ({"mounts": (Mount(source="/var/run/docker.sock", target="/s"),)}, "holds /run/docker.sock"),
        ({"mounts": (Mount(source="/etc\0", target="/s"),)}, "cannot be looked at"),
    ],
)
def test_what_the_policy_forbids_is_refused_in_one_line(
    place: Place, fields: dict[str, object], text: str
) -> None:
    spec = JobSpec(**{"name": "t", "image": "bb:latest", "command": ("true",), **fields})  # type: ignore[arg-type]  # test shorthand
    with pytest.raises(RemoteError) as refused:
        place.topod.ask(Submit(spec=spec))
    assert (refused.value.code, refused.value.exit_status) == ("policy", 77)
    assert text in refused.value.message
    assert "\n" not in refused.value.message
    planned = place.topod.ask(DryRun(spec=spec))
    assert planned == Planned(feasible=False, never=True, reason=refused.value.message)


def test_a_plan_for_an_image_alone_is_judged_too(place: Place) -> None:
    planned = place.topod.ask(DryRun(spec=JobSpec(name="t", image="evil", command=())))
    assert isinstance(planned, Planned)
    assert (planned.never, "image evil is not among bb" in planned.reason) == (True, True)


def test_a_plan_without_anything_to_run_needs_no_image(place: Place) -> None:
    assert isinstance(place.topod.ask(DryRun(spec=JobSpec(name="t", image="none", command=()))), Planned)


def test_a_link_that_leads_out_is_refused(place: Place) -> None:
    link = place.root / "out"
    link.symlink_to(place.outside)
    with pytest.raises(AssertionError, match=f"which is {place.outside}"):
        place.submit("cat /mnt/key", mounts=place.mount("out"))


def test_a_folder_that_becomes_a_link_after_the_submit_never_reaches_the_engine(place: Place) -> None:
    folder = place.root / "later"
    folder.mkdir()
    place.topod.ask(Drain(reason="hold"))
    job = place.submit("cat /mnt/key", mounts=place.mount("later"))
    folder.rmdir()
    folder.symlink_to(place.outside)
    place.topod.ask(Resume())
    ended = place.topod.wait(job.id)
    assert ended.state == "failed"
    assert f"which is {place.outside}" in ended.reason
    assert ended.starts == 0
    assert ended.handle is None, "no container was made"
