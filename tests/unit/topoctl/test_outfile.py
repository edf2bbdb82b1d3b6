"""Where a command writes what it made: files whole, whatever else is there as it is."""

import os
import stat
from pathlib import Path
from threading import Thread

import pytest

from topoctl.outfile import write
from topod.errors import StoreError


def test_a_file_is_replaced_whole_through_links_and_keeps_its_permissions(tmp_path: Path) -> None:
    page, link, new = tmp_path / "page.html", tmp_path / "link", tmp_path / "new"
    page.write_text("old")
    page.chmod(0o640)
    link.symlink_to("page.html")
    new.symlink_to("made.html")
    write(link, "text")
    write(new, "fresh")
    assert (link.is_symlink(), page.read_text(), stat.S_IMODE(page.stat().st_mode)) == (True, "text", 0o640)
    assert (new.is_symlink(), (tmp_path / "made.html").read_text()) == (True, "fresh")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link", "made.html", "new", "page.html"]


def test_a_fifo_is_written_to_and_stays(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = Thread(target=write, args=(fifo, "text"), daemon=True)
    writer.start()
    assert fifo.read_text() == "text"
    writer.join(60)
    assert stat.S_ISFIFO(fifo.stat().st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_a_device_is_written_to_and_stays(tmp_path: Path) -> None:
    """The nodes are the test's own: one that were to replace them must not reach those of the machine."""
    null, full = tmp_path / "null", tmp_path / "full"
    try:
        os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(full, 0o666 | stat.S_IFCHR, os.makedev(1, 7))
        full.open("wb").close()
    except PermissionError:
        pytest.skip("this machine lets nobody make or open device nodes")
    write(null, "text")
    with pytest.raises(StoreError, match="No space left"):
        write(full, "text")
    assert stat.S_ISCHR(null.stat().st_mode)
    assert stat.S_ISCHR(full.stat().st_mode)


def test_what_cannot_be_written_is_said_in_a_line(tmp_path: Path) -> None:
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "none/a", "No such file")):
        with pytest.raises(StoreError, match=why):
            write(path, "text")
