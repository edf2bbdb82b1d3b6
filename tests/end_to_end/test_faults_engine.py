"""The engine dies, loses its containerd, hangs longer than topod waits, or takes its containers with it."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.end_to_end.fault_site import DEAF, FaultSite
from tests.engine import PrivateEngine, private_engine
from topod.model.job import RestartPolicy

pytestmark = pytest.mark.docker

ENGINE_SECONDS = 0.5
"""How long topod waits for an engine that hangs; eight times as long for create, start and remove."""


@pytest.fixture
def site(tmp_path: Path, engine: PrivateEngine) -> Iterator[FaultSite]:
    with FaultSite(tmp_path, engine) as site:
        yield site


def test_the_engine_is_killed_in_the_middle_of_a_preemption(site: FaultSite) -> None:
    bystander = site.submit(gpus=4, priority=1000)
    site.begun(bystander)
    victims = [site.submit(DEAF, gpus=2, grace_seconds=2.0) for _ in range(2)]
    for job in victims:
        site.begun(job)
    serve = site.submit(gpus=4, priority=900)
    site.topod.until(lambda: len(site.lines("heard")) == 2, 60)
    site.engine.kill9()
    site.engine.start()
    site.begun(serve)
    site.release()
    views = site.await_all([bystander, *victims, serve], "succeeded")
    assert (views[bystander].starts, views[serve].starts) == (1, 1)
    assert [(views[job].starts, views[job].preemptions) for job in victims] == [(2, 1), (2, 1)]
    site.check(views)


def test_containerd_is_killed_under_load(site: FaultSite) -> None:
    old = site.submit(gpus=2)
    site.begun(old)
    site.engine.kill9_containerd()
    more = [site.submit("sleep 0.2", gpus=2), site.submit("sleep 0.2", gpus=8, priority=1000)]
    site.await_all(more, "succeeded")
    site.release()
    views = site.await_all([old, *more], "succeeded")
    site.check(views)


@pytest.mark.parametrize("call", ["Create job=3", "Launch job=3", "Deliver job=1"])
def test_the_engine_hangs_longer_than_topod_waits(tmp_path: Path, engine: PrivateEngine, call: str) -> None:
    with FaultSite(tmp_path, engine, "--engine-seconds", str(ENGINE_SECONDS)) as site:
        victims = [site.submit(gpus=4), site.submit(gpus=4)]
        for job in victims:
            site.begun(job)
        before = site.topod.log.stat().st_size
        serve = site.submit(gpus=8, priority=1000)
        site.topod.until(lambda: site.log_says(f"effect.begun effect={call}", before), 60)
        engine.pause()
        # The call ran out of time and topod said so; what the engine has of it, it will do all the same.
        site.topod.until(lambda: site.log_says("effect.delayed", before), 60)
        engine.resume()
        site.begun(serve)
        site.release()
        views = site.await_all([*victims, serve], "succeeded")
        assert views[serve].starts == 1
        assert [views[job].preemptions for job in victims] == [1, 1]
        site.check(views)


def test_an_engine_without_live_restore_takes_its_containers_with_it(tmp_path: Path) -> None:
    with private_engine(live_restore=False) as engine, FaultSite(tmp_path, engine) as site:
        # The engine, too, gives its containers their grace time when it ends.
        never = site.submit(gpus=2, grace_seconds=2.0)
        again = site.submit(gpus=2, grace_seconds=2.0, restart=RestartPolicy.ON_FAILURE)
        victim = site.submit(DEAF, gpus=4, grace_seconds=3.0)
        for job in (never, again, victim):
            site.begun(job)
        serve = site.submit(gpus=4, priority=1000)
        site.topod.until(lambda: bool(site.lines("heard")), 60)
        engine.terminate()
        engine.start()
        view = site.topod.wait(never, timeout=60)
        assert (view.state, view.starts) == ("failed", 1)
        assert view.exit_code in {137, 143}
        site.begun(serve)
        site.release()
        views = site.await_all([again, victim, serve], "succeeded")
        assert (views[again].starts, views[again].failures) == (2, 1)
        assert (views[victim].starts, views[victim].preemptions) == (2, 1)
        assert views[serve].starts == 1
        site.check([never, *views])


class _EmptyRegistry(BaseHTTPRequestHandler):
    """Speaks the registry's protocol and has no image."""

    def do_GET(self) -> None:
        there = self.path == "/v2/"
        body = (
            b"{}" if there else b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
        )
        self.send_response(200 if there else 404)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command == "GET" else b"")

    do_HEAD = do_GET  # noqa: N815 - the base class looks for it

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def empty_registry() -> Iterator[str]:
    """Give the name of a registry on the loopback that has no image."""
    server = HTTPServer(("127.0.0.1", 0), _EmptyRegistry)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_images_that_cannot_be_pulled(site: FaultSite) -> None:
    with empty_registry() as registry:
        unknown = site.submit(image=f"{registry}/none:latest", priority=1000)
        view = site.topod.wait(unknown, timeout=60)
        assert (view.state, view.starts) == ("failed", 0)
        assert "manifest unknown" in view.reason
    # Nobody listens there: it may yet come. Meanwhile it holds nothing, whatever its priority.
    late = site.submit(image="127.0.0.1:1/late:latest", gpus=8, priority=1000)
    site.topod.until(lambda: "connection refused" in site.topod.job(late).reason)
    low = site.submit("sleep 0", gpus=8)
    assert site.topod.wait(low, timeout=60).state == "succeeded"
    assert site.topod.job(late).state == "pending"
    assert "next try in" in site.topod.job(late).reason
    with contextlib.closing(site.docker()) as client:
        client.tag(site.engine.image, "127.0.0.1:1/late", "latest")
        try:
            site.release()
            assert site.topod.wait(late, timeout=60).state == "succeeded"
        finally:
            client.remove_image("127.0.0.1:1/late:latest", force=True)
    site.check([unknown, late, low])
