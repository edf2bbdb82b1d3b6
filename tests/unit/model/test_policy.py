"""What a site's policy lets a job ask for."""

from typing import Any

import pytest

from topod.model import image
from topod.model.job import Device, JobSpec, Mount, Network, Secret
from topod.model.policy import HostPaths, JobPolicy, Submitter, judge, takes_gpus
from topod.model.request import ResourceRequest

ALICE = Submitter(name="alice", uid=1000, gid=100, gids=frozenset({100, 200}))
LINKS = {"/data/out": "/etc", "/data/run": "/run", "/tricky": "/data/alice"}
PROTECTED = ("/run/docker.sock", "/proc", "/dev", "/var/lib/topod")
D = "sha256:" + "ab" * 32


def real(path: str) -> str:
    """Follow the links of a small file system."""
    parts = path.split("/")
    for size in range(len(parts), 0, -1):
        head = "/".join(parts[:size])
        if head in LINKS:
            return "/".join([LINKS[head], *parts[size:]])
    return path


def refusals(policy: JobPolicy, who: Submitter = ALICE, **fields: Any) -> tuple[str, ...]:
    spec = JobSpec(name="t", command=("x",), **{"image": "busybox", **fields})
    return judge(policy, spec, who, HostPaths(real=real, protected=PROTECTED)).refusals


def vetted(policy: JobPolicy, who: Submitter = ALICE, **fields: Any) -> JobSpec:
    spec = JobSpec(name="t", command=("x",), **{"image": "busybox", **fields})
    verdict = judge(policy, spec, who, HostPaths(real=real, protected=PROTECTED))
    assert verdict.refusals == ()
    return verdict.spec


@pytest.mark.parametrize(
    ("reference", "whole"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest"),
        ("pytorch/pytorch:2.5", "docker.io/pytorch/pytorch:2.5"),
        ("index.docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("lab:5000/ml/x", "lab:5000/ml/x:latest"),
        (f"ghcr.io/a/b:1@{D}", f"ghcr.io/a/b@{D}"),
        ("", "docker.io/library/:latest"),
    ],
)
def test_an_image_has_one_full_name(reference: str, whole: str) -> None:
    assert image.canonical(reference) == whole


@pytest.mark.parametrize(
    "reference",
    [
        "bb",
        "lab.example:5000/ml/x_y/a__b/c--d:v1.2_A-b",
        "localhost/x",
        "[::1]:5000/x",
        "Registry/x",
        f"ghcr.io/a/b:1@{D}",
        "ab" * 32,
        D,
    ],
)
def test_what_docker_takes_for_a_name_is_one(reference: str) -> None:
    assert image.is_reference(reference)


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "lab:5000/../../containers/1",
        "bb/../../containers/1",
        "./bb",
        "bb//x",
        "/bb",
        "bb/",
        "bb:",
        "bb@",
        "bb@sha256:12",
        "Upper",
        "lab:5000/Upper",
        "bb?all=1",
        "bb#x",
        "bb%2e",
        "bb x",
        "bb\n",
        "bb:a/b:c:d",
        "bb:" + "t" * 129,
        "a" * 256,
        "\u0441\u0441",
    ],
)
def test_what_docker_does_not_take_for_a_name_is_none_and_no_pattern_means_it(reference: str) -> None:
    assert not image.is_reference(reference)
    assert not image.matches(reference, "lab:5000/*")
    assert not image.matches(reference, "bb*")


@pytest.mark.parametrize(
    ("reference", "pattern", "meant"),
    [
        ("anything/at:all", "*", True),
        ("abcdef123456", "*", True),
        ("abcdef123456", "docker.io/*", False),  # may be the number of any image that is here
        (D, "docker.io/*", False),
        ("ubuntu:24.04", "ubuntu", True),
        ("ubuntu:24.04", "ubuntu:24.*", True),
        ("ubuntu:22.04", "ubuntu:24.*", False),
        (f"ubuntu:24.04@{D}", "ubuntu:24.*", False),  # the engine takes the digest, whatever the tag says
        (f"ubuntu@{D}", "ubuntu", True),
        (f"ubuntu@{D}", f"ubuntu@{D}", True),
        (f"ubuntu@{D}", "ubuntu@sha256:00", False),
        (f"evil.io/x@{D}", f"*@{D}", True),
        ("pytorch/pytorch", "pytorch/*", True),
        ("pytorch/pytorch", "docker.io/*", True),
        ("evil.io/pytorch/pytorch", "pytorch/*", False),
        ("evil.io/docker.io/pytorch/pytorch", "docker.io/*", False),
        ("lab:5000/ml/x:1", "lab:5000/ml/*", True),
        ("lab:5000/mlx/x:1", "lab:5000/ml/*", False),
        ("ubuntuevil", "ubuntu", False),
        ("ubuntu/evil", "ubuntu", False),
    ],
)
def test_a_pattern_means_these_images(reference: str, pattern: str, meant: bool) -> None:
    assert image.matches(reference, pattern) is meant


def test_a_policy_that_says_nothing_allows_a_plain_job_and_no_more() -> None:
    policy = JobPolicy()
    assert vetted(policy) == JobSpec(name="t", command=("x",), image="busybox")
    assert refusals(policy, network=Network.HOST) == ("network host is not among bridge, none",)
    assert refusals(policy, cap_add=("IPC_LOCK",)) == ("capability IPC_LOCK is not allowed here: none is",)
    assert len(refusals(policy, devices=(Device(source="/dev/fuse", target="/dev/fuse"),))) == 1
    assert len(refusals(policy, mounts=(Mount(source="/data", target="/d"),))) == 1
    assert len(refusals(policy, secrets=(Secret(name="k", source="/data/key"),))) == 1


def test_a_digest_can_be_demanded() -> None:
    policy = JobPolicy(require_digest=True)
    assert refusals(policy) == ("image busybox names no digest (IMAGE@sha256:...)",)
    assert refusals(policy, image=f"busybox@{D}") == ()
    assert len(refusals(policy, image="busybox@sha256:ab")) == 1


@pytest.mark.parametrize(
    ("source", "refusal"),
    [
        ("/data/alice", None),
        ("/data", None),
        ("/tricky/deep", None),
        ("/database", "is not below"),
        ("/data/out/passwd", "(which is /etc/passwd) is not below /data"),
        ("/data/run", "(which is /run) holds /run/docker.sock"),
        ("/", "holds /run/docker.sock"),
        ("/run/docker.sock", "holds /run/docker.sock"),
        ("data", "is no absolute path"),
    ],
)
def test_a_volume_lies_below_a_root_wherever_its_links_lead(source: str, refusal: str | None) -> None:
    found = refusals(JobPolicy(mounts=("/data",)), mounts=(Mount(source=source, target="/d"),))
    assert len(found) == (refusal is not None)
    assert refusal is None or refusal in found[0]


def test_what_gives_the_host_away_must_be_named_itself() -> None:
    mount = Mount(source="/run/docker.sock", target="/d")
    assert refusals(JobPolicy(mounts=("/",)), mounts=(mount,))
    assert not refusals(JobPolicy(mounts=("/run/docker.sock",)), mounts=(mount,))
    shm = Mount(source="/dev/shm/x", target="/d")
    assert refusals(JobPolicy(mounts=("/",)), mounts=(shm,))
    assert not refusals(JobPolicy(mounts=("/dev/shm",)), mounts=(shm,))


def test_the_engine_gets_the_path_that_was_judged() -> None:
    spec = vetted(JobPolicy(mounts=("/data",)), mounts=(Mount(source="/tricky/x", target="/d"),))
    assert spec.mounts == (Mount(source="/data/alice/x", target="/d"),)


def test_some_roots_are_for_reading() -> None:
    policy = JobPolicy(mounts=("/data",), mounts_read_only=("/sets",))
    assert refusals(policy, mounts=(Mount(source="/sets/a", target="/d"),)) == (
        "volume /sets/a may only be read here: write /sets/a:/d:ro",
    )
    assert not refusals(policy, mounts=(Mount(source="/sets/a", target="/d", read_only=True),))


def test_each_user_may_have_a_root() -> None:
    policy = JobPolicy(mounts=("/home/{user}",), secrets=("/keys/{user}",))
    own, other = Mount(source="/home/alice/x", target="/d"), Mount(source="/home/bob", target="/d")
    assert not refusals(policy, mounts=(own,), secrets=(Secret(name="k", source="/keys/alice/k"),))
    assert len(refusals(policy, mounts=(other,), secrets=(Secret(name="k", source="/keys/bob/k"),))) == 2
    for name in ("", "..", "../bob", "a/b"):
        assert refusals(policy, Submitter(name=name), mounts=(Mount(source="/home", target="/d"),))


def test_a_container_may_run_only_as_who_sent_it() -> None:
    policy = JobPolicy(users=("caller",))
    assert vetted(policy).container_user == "1000:100"
    assert vetted(policy, container_user="1000").container_user == "1000:100"
    assert vetted(policy, container_user="1000:200").container_user == "1000:200"
    for other in ("0", "0:100", "1000:0", "root", "1001", "1000:", "1000:100:0", " 1000", "01000"):
        assert refusals(policy, container_user=other), other
    assert refusals(policy, Submitter(name="ghost", uid=5)) == (
        "this host does not know user ghost, as whom the job would run",
    )


def test_other_users_are_named_one_by_one() -> None:
    policy = JobPolicy(users=("nobody", "caller"))
    assert vetted(policy, container_user="nobody").container_user == "nobody"
    assert refusals(JobPolicy(users=("nobody",))) == (
        "a user of the image's own is not among nobody (--user)",
    )


def test_limits_are_kept() -> None:
    policy = JobPolicy(max_gpus=4, ulimits={"nofile": 1024, "memlock": -1})
    assert not refusals(policy, request=ResourceRequest(gpus=4), ulimits={"nofile": 1024, "memlock": -1})
    assert refusals(policy, request=ResourceRequest(gpus=5)) == (
        "5 GPUs are more than the 4 that one job may have",
    )
    assert refusals(policy, ulimits={"nofile": -1}) == ("ulimit nofile=-1 is above 1024",)
    assert refusals(policy, ulimits={"stack": 1}) == ("ulimit stack is not among nofile, memlock",)


def test_a_job_that_names_no_network_gets_an_allowed_one() -> None:
    assert vetted(JobPolicy()).network is None
    assert vetted(JobPolicy(networks=(Network.NONE,))).network is Network.NONE


def test_what_rdma_needs_can_be_allowed() -> None:
    policy = JobPolicy(
        capabilities=("IPC_LOCK",), devices=("/dev/infiniband*",), networks=(Network.HOST, Network.BRIDGE)
    )
    device = Device(source="/dev/infiniband/uverbs0", target="/dev/infiniband/uverbs0")
    assert not refusals(policy, cap_add=("IPC_LOCK",), devices=(device,), network=Network.HOST)
    assert refusals(policy, cap_add=("SYS_ADMIN",))


@pytest.mark.parametrize(
    "path", ["/dev/nvidia0", "/dev", "/", "/dev/dri", "/dev/dri/card0", "/dev/nvidia-caps"]
)
def test_no_job_takes_a_gpu_by_its_device(path: str) -> None:
    def has(source: str) -> str | None:
        spec = JobSpec(name="t", command=(), devices=(Device(source=source, target="/dev/x"),))
        return takes_gpus(spec, HostPaths(real=real))

    assert has(path) == path
    assert has("/dev/nvidia-fs0") is None
    assert has("/dev/infiniband") is None
