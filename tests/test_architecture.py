"""The core touches nothing, and light commands load only what they need: seen in real processes."""

import subprocess
import sys
from pathlib import Path

import pytest

WORLD = (
    "asyncio",
    "docker",
    "logging",
    "msgspec",
    "psutil",
    "pynvml",
    "socket",
    "sqlite3",
    "subprocess",
    "yaml",
    "zmq",
)
HEAVY = ("docker", "numpy", "psutil", "pynvml", "requests", "rich", "sqlite3", "textual", "yaml")


def loaded_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after the statement."""
    code = f"{statement}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("package", ["model", "lifecycle"])
def test_the_core_does_not_even_load_the_world(package: str) -> None:
    statement = f"import topod.{package}.{'topology' if package == 'model' else 'transitions'}"
    assert not loaded_after(statement) & set(WORLD)


def test_reading_the_command_line_loads_nothing_heavy() -> None:
    assert not loaded_after("import topoctl.main") & set(HEAVY)


def test_a_client_of_the_daemon_loads_nothing_heavy() -> None:
    assert not loaded_after("import topod.protocol.client") & set(HEAVY)


def test_a_running_container_is_never_changed() -> None:
    """`docker update` on a running container takes its GPUs away (NVIDIA/nvidia-docker#515)."""
    adapters = sorted((Path(__file__).resolve().parents[1] / "topod" / "adapters").glob("docker_*.py"))
    assert adapters
    for module in adapters:
        for forbidden in ("update_container", "/update", ".update("):
            assert forbidden not in module.read_text(), f"{module.name} holds {forbidden}"
