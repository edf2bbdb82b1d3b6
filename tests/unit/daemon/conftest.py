"""What several tests of the daemon play."""

from pathlib import Path

import pytest

from tests.fakes.link_scene import Play, Scene, Story
from tests.simulation.chance import Chance, World
from tests.simulation.loop import VirtualLoop
from topod.lifecycle import events as ev
from topod.lifecycle.states import HostState


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Return what plays a scene to its end on virtual time, with no faults."""

    def run(story: Story, state: HostState | None = None) -> Scene:
        world = World(Chance(1))
        world.chance.storm = False
        loop = VirtualLoop(world, lambda: None)
        scene = Scene(tmp_path, world, state)

        async def all_of_it() -> None:
            await scene.watch.begin()
            scene.mailbox.start(carry_out=lambda _: None, publish=lambda _: None)
            await scene.mailbox.post(ev.Recovered(containers=()))
            scene.watch.start()
            scene.link.start()
            await story(scene)
            await scene.link.stop()
            await scene.watch.stop()

        task = loop.create_task(all_of_it())
        loop.run_until_complete(task)
        loop.kill()
        assert not world.violations
        return scene

    return run
