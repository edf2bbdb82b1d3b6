"""One entry for every kind of file a host may be in."""

from pathlib import Path

import pytest

from topod.discovery.document import dump_host
from topod.discovery.load import MAX_BYTES, MAX_MATRIX_CHARACTERS, load_host_bytes, load_host_file
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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_text_that_is_too_long_for_a_matrix_is_refused_and_a_document_of_that_size_is_read(
    encoding: str,
) -> None:
    room = MAX_MATRIX_CHARACTERS - len(MATRIX)
    assert len(load_host_bytes((MATRIX + "\n" * room).encode(encoding), "log", name="log").topology.gpus) == 2
    with pytest.raises(DataError, match="log: more than 1 MiB of text: no matrix is as long"):
        load_host_bytes((MATRIX + "\n" * (room + 1)).encode(encoding), "log", name="log")
    document = dump_host(load_host_bytes(MATRIX.encode(), "box", name="box").topology)
    padded = document[:-1] + b" " * MAX_MATRIX_CHARACTERS + b"}"
    assert load_host_bytes(padded, "box", name="box").topology.name == "box"


def test_a_line_wider_than_any_matrix_is_refused_at_once() -> None:
    for line in (" " * 1_000_000, " ".join(f"GPU{index}" for index in range(100_000))):
        with pytest.raises(DataError, match=r"box:4:8193: a line of \d+ characters: no matrix is as wide"):
            load_host_bytes(f"{MATRIX}{line}".encode(), "box", name="box")
