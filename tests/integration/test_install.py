"""`topoctl install` of a wheel in a virtual environment of its own, into the files of another machine."""

import os
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.as_user import needs_root
from topoctl import exit_codes
from topoctl.install.files import stamped
from topoctl.main import run as topoctl
from topod.adapters.curve_keys import read_key_file

ROOT = Path(__file__).resolve().parents[2]
UNIT = "etc/systemd/system/topod.service"
CONFIG = "etc/topod/topod.toml"
KEY = "etc/topod/host.key"
BASE = Path(sys.base_prefix)
pytestmark = needs_root


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of the programs of a wheel, installed beside nothing but what it depends on."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(folder), str(ROOT)], check=True, timeout=250)
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=60)
    (wheel,) = folder.glob("*.whl")
    into = [*pip, "--python", str(venv / "bin/python"), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(into, check=True, timeout=60)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return venv / "bin"


class Image:
    """The files of a machine that does not run."""

    def __init__(self, root: Path, programs: Path) -> None:
        self.root, self.programs = root, programs

    def __call__(self, *words: str, status: int = 0, before: tuple[str, ...] = (), path: str = "") -> str:
        command = [*before, str(self.programs / "topoctl"), *words, "--root", str(self.root)]
        environ = {**os.environ, **({"PATH": path} if path else {}), "TOPOD_SOCKET": "/nonexistent"}
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=120, cwd="/", env=environ
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stderr if status else done.stdout

    def files(self) -> dict[str, tuple[int, bytes]]:
        return {
            str(path.relative_to(self.root)): (stat.S_IMODE(path.stat().st_mode), path.read_bytes())
            for path in self.root.rglob("*")
            if path.is_file()
        }

    def verbs(self, told: str) -> dict[str, str]:
        """Return what was told of each file of ours."""
        words = [line.split() for line in told.splitlines() if line.startswith("  ")]
        return {
            str(Path(one[1]).relative_to(self.root)): one[0]
            for one in words
            if one[1].startswith(str(self.root))
        }


@pytest.fixture
def image(tmp_path: Path, programs: Path) -> Image:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    return Image(root, programs)


def test_it_tells_all_and_changes_nothing_then_does_it_and_does_it_again_without_harm(image: Image) -> None:
    told = image("install")
    assert image.files() == {}
    assert image.verbs(told)[UNIT] == "write"

    done = image("install", "--apply", "--name", "node-a")
    assert done.splitlines()[1:4] == told.splitlines()[1:4]
    assert "systemctl enable --now topod" in done
    files = image.files()
    unit = files[UNIT][1].decode()
    assert f"\nExecStart={image.programs}/topod\n" in unit
    assert "/usr/bin/env" not in unit
    assert files["etc/systemd/system/topod-jobs.slice"][0] == 0o644
    assert (files[KEY][0], files[CONFIG][0]) == (0o600, 0o644)
    assert read_key_file(image.root / KEY).name == "node-a"
    # Every setting is there, and none of them is switched on.
    config = files[CONFIG][1].decode()
    assert "#preemption_cap = 3" in config
    assert "topod-admin:" in files["etc/group"][1].decode()
    assert "topod-coordinator:" in files["etc/passwd"][1].decode()

    assert set(image.verbs(image("install", "--apply", "--name", "node-b")).values()) == {"ok", "keep"}
    assert image.files() == files


def test_a_coordinator_gets_its_own_unit_and_key(image: Image) -> None:
    if BASE.is_relative_to("/root") or BASE.is_relative_to("/home"):
        error = image("install", "--coordinator", "--apply", status=exit_codes.CONFLICT)
        assert error.startswith(f"error: the coordinator's user cannot reach {BASE}")
        return
    image("install", "--coordinator", "--apply")
    key = read_key_file(image.root / "etc/topod/coordinator.key")
    assert (key.kind, key.name) == ("coordinator", "fleet")
    assert (
        f"ExecStart={image.programs}/topod-coordinator\n"
        in (image.root / "etc/systemd/system/topod-coordinator.service").read_text()
    )


def test_what_somebody_wrote_stays_and_what_an_older_version_wrote_does_not(image: Image) -> None:
    image("install", "--apply")
    mine = image.root / "etc/tmpfiles.d/topod.conf"
    mine.write_text(mine.read_text() + "d /scratch 1777 root root -\n")
    (image.root / UNIT).write_text(stamped("[Unit]\nDescription=topod of old\n"))
    (image.root / CONFIG).write_text("[history]\nkeep_days = 7\n")
    before = image.files()
    verbs = image.verbs(image("install", "--apply"))
    assert (verbs[UNIT], verbs["etc/tmpfiles.d/topod.conf"], verbs[CONFIG]) == ("replace", "keep", "keep")
    after = image.files()
    assert "ExecStart=" in after.pop(UNIT)[1].decode()
    before.pop(UNIT)
    assert after == before

    told = image("uninstall")
    assert image.files().keys() - {UNIT} == after.keys()
    assert image.verbs(told)[UNIT] == "remove"
    told = image("uninstall", "--apply")
    left = {name for name in image.files() if "topod" in name}
    assert left == {"etc/tmpfiles.d/topod.conf", CONFIG, KEY}
    assert "/etc/topod\n" in told
    assert "/etc/tmpfiles.d/topod.conf (changed by somebody)\n" in told
    # Its own key and configuration count again.
    image("install", "--apply")
    assert image.files()[KEY] == before[KEY]
    image("uninstall", "--apply", "--purge")
    assert not {CONFIG, KEY, UNIT, "etc/tmpfiles.d/topod.conf"} & image.files().keys()
    image("uninstall", "--apply", "--purge")


def test_what_fails_is_one_line_and_the_same_command_goes_on_from_there(image: Image) -> None:
    read_only = ("unshare", "-m", "sh", "-c", 'mount --bind -o ro "$0" "$0" && exec "$@"', str(image.root))
    error = image("install", "--apply", status=exit_codes.STORE, before=read_only)
    assert error.splitlines()[0].endswith(": Read-only file system")
    assert len(error.splitlines()) == 3
    # A machine without systemd's programs: files are there, what reads them is not.
    error = image("install", "--apply", status=exit_codes.ERROR, path=str(image.root))
    assert error.startswith("error: systemd-sysusers is not installed")
    assert UNIT in image.files()
    verbs = image.verbs(image("install", "--apply"))
    assert (verbs[UNIT], verbs[KEY]) == ("ok", "keep")
    assert "topod-admin:" in image.files()["etc/group"][1].decode()

    (image.root / KEY).write_text("topod-private:damaged\n")
    assert image("install", "--apply", status=exit_codes.BAD_DATA).startswith(f"error: {image.root / KEY}")
    (image.root / "usr/lib/systemd/system").mkdir(parents=True)
    (image.root / "usr/lib/systemd/system/topod.service").write_text("")
    assert "as a package" in image("install", status=exit_codes.CONFLICT)
    assert "as a package" in image("uninstall", "--purge", status=exit_codes.CONFLICT)


def test_programs_that_others_can_change_are_not_run_as_root(image: Image) -> None:
    os.chown(image.programs, 65534, 0)
    try:
        error = image("install", "--apply", status=exit_codes.CONFLICT)
        assert error.startswith(f"error: user 65534 can change {image.programs}, and root would run it")
    finally:
        os.chown(image.programs, 0, 0)
    assert image.files() == {}


def test_only_root_may_do_it_and_everybody_may_look(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for command in ("install", "uninstall"):
        words = [command, "--root", str(tmp_path)]
        assert topoctl([*words, "--apply"]) == exit_codes.NOT_ALLOWED
        assert capsys.readouterr().err.startswith(f"error: topoctl {command} --apply is for root\n")
        assert topoctl(words) == exit_codes.OK
    assert list(tmp_path.iterdir()) == []
