"""What is fuzzed: for each reader of input, damaged input and what must hold of the answer.

Always: a value, or one line of error with the documented exit status; never another exception.
"""

import json
import os
import tempfile
import tomllib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st

from tests.fuzz import samples
from tests.fuzz.mutations import json_documents, texts
from topoctl.batch import Batch
from topod.adapters.authorized import format_entry, parse_authorized
from topod.discovery.document import dump_host, load_host
from topod.discovery.load import load_host_bytes
from topod.errors import TopodError
from topod.model.job import JobSpec, Mount, Secret
from topod.model.policy import HostPaths, JobPolicy, Submitter, judge
from topod.protocol.codec import (
    RequestEnvelope,
    decode_event,
    decode_reply,
    decode_request,
    encode,
    request_head,
)
from topod.protocol.jobfile import Origin, build_spec, read_job_file
from topod.protocol.link_codec import comes_from_host, decode_from_host, decode_to_host
from topod.protocol.requests import Submit
from topod.shell.config_file import health_rules_of, rules_of
from topod.shell.config_reading import parse_config
from topod.shell.toml_places import places_in


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One reader: its input and the check of what it makes of it."""

    name: str
    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], None]
    weight: int = 1
    """Its share of the cases."""


def refused(error: TopodError, statuses: Collection[int], source: str = "", hidden: str = "\n") -> None:
    """Check that an error is one line that begins with its source, with one of these exit statuses."""
    assert error.message.startswith(source)
    assert "\n" not in error.message, error.message
    assert hidden not in error.message
    assert "\r" not in error.message, error.message
    assert error.message.strip(), "an error says something"
    assert error.exit_status in statuses, (error.exit_status, error.message)


def _scratch(name: str, data: bytes) -> str:
    folder = Path(tempfile.gettempdir()) / f"topod-fuzz-{os.getuid()}-{os.getpid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / name
    path.write_bytes(data)
    return str(path)


def _job_file(kind: str) -> Callable[[bytes], None]:
    def check(data: bytes) -> None:
        try:
            file = read_job_file(_scratch(f"job.{kind}", data))
            spec = build_spec(file, Origin(), environ={"MODE": "x"}, user="u")
        except TopodError as error:
            refused(error, (2, 4, 65))
            return
        # What a file may say can be sent, and comes out as it went in.
        sent = encode(RequestEnvelope(v=1, id="1", body=Submit(spec=spec)))
        assert decode_request(sent).body == Submit(spec=spec)

    return check


def _flags(values: dict[str, Any]) -> None:
    try:
        spec = build_spec(None, Origin(values={"command": ["x"], **values}), environ={}, user="u")
    except TopodError as error:
        refused(error, (2, 4, 65))
        return
    assert spec.command


def _matrix(data: bytes) -> None:
    try:
        found = load_host_bytes(data, "m", name="h")
    except TopodError as error:
        refused(error, (65,), source="m")
        return
    assert load_host(dump_host(found.topology), "again").topology == found.topology


def _host(data: bytes) -> None:
    try:
        found = load_host(data, "h")
    except TopodError as error:
        refused(error, (65,))
        return
    again = load_host(dump_host(found.topology, found.occupancy), "again")
    assert (again.topology, again.occupancy) == (found.topology, found.occupancy)


def _config(data: bytes) -> None:
    try:
        text = data.decode(errors="replace")
        config = parse_config(text, "c")
    except TopodError as error:
        refused(error, (65,), source="c")
        return
    rules_of(config)
    health_rules_of(config)
    assert {key[0] for key in places_in(text)} == set(tomllib.loads(text))


def _authorized(data: bytes) -> None:
    try:
        found = parse_authorized(data.decode(errors="replace"), "k")
    except TopodError as error:
        refused(error, (65,), source="k:", hidden=samples.SECRET_KEY)
        return
    again = parse_authorized("\n".join(map(format_entry, found.values())), "again")
    assert [(key, one.who, one.roles) for key, one in again.items()] == [
        (key, one.who, one.roles) for key, one in found.items()
    ]


def _message(data: bytes) -> None:
    request_head(data)
    for decode in (decode_request, decode_reply, decode_event):
        try:
            value: object = decode(data)
        except TopodError as error:
            refused(error, (76,))
        else:
            encode(value)


def _link(data: bytes) -> None:
    comes_from_host(data)
    for decode in (decode_from_host, decode_to_host):
        try:
            value: object = decode(data)
        except TopodError as error:
            refused(error, (76,))
        else:
            encode(value)


def _batch(data: bytes) -> None:
    batch = Batch(samples.ROOT / "fixtures" / "hosts")
    for line in data.splitlines():
        if not line.isspace():
            answer = batch.answer(line)
            assert b"\n" not in answer
            json.loads(answer)


# --- the policy, against a small file system full of links ------------------------------------------------

_NAMES: Final = ("a", "b", "out", "up", "loop", "in", "..", ".", "", "x", "engine.sock", "run")


def _tree() -> str:
    """Make the links once for this process and return their folder."""
    top = Path(tempfile.gettempdir()).resolve() / f"topod-fuzz-{os.getuid()}-{os.getpid()}" / "tree"
    if not top.exists():
        (top / "data/a/b").mkdir(parents=True)
        (top / "data/b").mkdir()
        (top / "run").mkdir()
        (top / "run/engine.sock").touch()
        for name, to in (("out", "/etc"), ("up", "../run"), ("loop", "loop"), ("in", "a")):
            (top / "data" / name).symlink_to(to)
            (top / "data/a" / name).symlink_to(to)
    return str(top)


_PATHS: Final = st.tuples(
    st.sampled_from(("", "data", "data/a", "run")), st.lists(st.sampled_from(_NAMES), max_size=5)
).map(lambda drawn: "/".join([drawn[0], *drawn[1]]))
_POLICIES: Final = st.tuples(
    st.lists(_PATHS, max_size=3), st.lists(_PATHS, max_size=2), _PATHS, st.booleans(), _PATHS
)


def _followed(roots: Iterable[str]) -> list[Path]:
    found = []
    for root in roots:
        try:
            found.append(Path(root).resolve())
        except RuntimeError:  # a link to itself, which leads nowhere else
            found.append(Path(os.path.realpath(root)))
    return found


def _policy(drawn: tuple[list[str], list[str], str, bool, str]) -> None:
    top = _tree()
    roots, readable, source, read_only, secret = drawn
    protected = f"{top}/run/engine.sock"
    policy = JobPolicy(
        mounts=tuple(f"{top}/{root}" for root in roots),
        mounts_read_only=tuple(f"{top}/{root}" for root in readable),
    )
    spec = JobSpec(
        name="t",
        command=(),
        mounts=(Mount(source=f"{top}/{source}", target="/m", read_only=read_only),),
        secrets=(Secret(name="s", source=f"{top}/{secret}"),),
    )
    paths = HostPaths(real=os.path.realpath, protected=(protected,))
    verdict = judge(policy, spec, Submitter(name="u"), paths)
    if verdict.refusals:
        assert all("\n" not in text for text in verdict.refusals)
        return
    # Written anew, with the kernel's eyes: what the engine would get lies below a root.
    allowed = _followed(policy.mounts)
    looked = [*allowed, *_followed(policy.mounts_read_only)]
    (mount,), (key,) = verdict.spec.mounts, verdict.spec.secrets
    for path, among in ((mount.source, looked if read_only else allowed), (key.source, looked)):
        real = Path(path)
        assert any(real == root or root in real.parents for root in among), (path, drawn)
        assert Path(protected) in among or (Path(protected) != real and real not in Path(protected).parents)


_VALUES: Final = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ("4", "auto", "8G", "5m", "1-00:00:00", "high", "a=b", "/a:/b", "on-failure:3", "nvlink")
    ),
)
_FLAG_NAMES: Final = (
    *("gpus", "cpus", "memory", "priority", "grace", "max_runtime", "restart", "env", "label", "volume"),
    *("ulimit", "user", "affinity", "policy", "device", "cap_add", "network", "shm_size", "workdir", "name"),
)

TARGETS: Final = (
    Target(name="job-yaml", inputs=texts([samples.JOB_YAML]), check=_job_file("yaml"), weight=3),
    Target(name="job-toml", inputs=texts([samples.JOB_TOML]), check=_job_file("toml"), weight=2),
    Target(
        name="flags",
        inputs=st.dictionaries(
            st.sampled_from(_FLAG_NAMES), _VALUES | st.lists(_VALUES, max_size=3), max_size=4
        ),
        check=_flags,
    ),
    Target(name="message", inputs=json_documents(samples.requests()), check=_message, weight=4),
    Target(name="reply", inputs=json_documents(samples.replies()), check=_message, weight=2),
    Target(name="link", inputs=json_documents(samples.link()), check=_link, weight=4),
    Target(name="matrix", inputs=texts(samples.MATRICES), check=_matrix, weight=3),
    Target(name="host", inputs=json_documents([*samples.HOSTS, samples.HELD_HOST]), check=_host, weight=2),
    Target(name="config", inputs=texts([samples.CONFIG]), check=_config, weight=3),
    Target(name="authorized", inputs=texts([samples.AUTHORIZED]), check=_authorized, weight=3),
    Target(name="batch", inputs=json_documents(samples.BATCH), check=_batch, weight=1),
    Target(name="policy", inputs=_POLICIES, check=_policy, weight=2),
)
