"""One entry for every kind of file a host may be in."""

from pathlib import Path

import pytest

from topod.discovery.document import dump_host
from topod.discovery.load import MAX_BYTES, load_host_file
from topod.errors import DataError, NotFoundError

MATRIX = "\tGPU0\tGPU1\nGPU0\t X \tNV4\nGPU1\tNV4\t X \n"


def test_a_matrix_and_its_document_are_the_same_host(tmp_path: Path) -> None:
    capture, document = tmp_path / "box.txt", tmp_path / "anything"
    capture.write_text(MATRIX)
    host = load_host_file(capture)
    document.write_bytes(b"\n " + dump_host(host.topology))
    assert load_host_file(document) == host
    assert host.topology.name == "box"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_files_that_windows_shells_wrote_are_read(tmp_path: Path, encoding: str) -> None:
    capture = tmp_path / "box.txt"
    capture.write_bytes(MATRIX.replace("\n", "\r\n").encode(encoding))
    assert len(load_host_file(capture).topology.gpus) == 2
    capture.write_bytes(dump_host(load_host_file(capture).topology).decode().encode(encoding))
    assert len(load_host_file(capture).topology.gpus) == 2


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file: "):
        load_host_file(tmp_path / "none")


def test_folders_binaries_and_huge_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        load_host_file(tmp_path)
    junk = tmp_path / "junk"
    junk.write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match="a binary file"):
        load_host_file(junk)
    with junk.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(DataError, match="larger than 16 MiB"):
        load_host_file(junk)
