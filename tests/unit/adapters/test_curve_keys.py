"""Files of keys: who can read them, what they may hold, and that no secret is ever shown."""

import os
import stat
from pathlib import Path

import pytest

from topod.adapters.curve_keys import create_key_file, public_line, read_key_file, read_private, replace_file
from topod.errors import ConflictError, DataError, NotAllowedError, NotFoundError, TopodError, UsageError
from topod.protocol.curve import PRIVATE, PUBLIC, Kind, check_name, new_pair, read_public
from topod.protocol.remote import coordinators


def test_a_new_key_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        pair = create_key_file(tmp_path / "a.key", Kind.HOST, "node-a")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600
    assert read_private(tmp_path / "a.key", Kind.HOST) == pair
    assert pair.secret not in repr(pair)
    assert public_line(read_key_file(tmp_path / "a.key")) == f"{PUBLIC}{pair.public} host node-a"


def test_a_key_is_never_overwritten_nor_written_through_a_link(tmp_path: Path) -> None:
    first = create_key_file(tmp_path / "a.key", Kind.USER, "a")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("a.key", "link"):
        with pytest.raises(ConflictError, match="never overwritten"):
            create_key_file(tmp_path / name, Kind.USER, "a")
    assert read_private(tmp_path / "a.key", Kind.USER) == first
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(UsageError, match="cannot write"):
        create_key_file(tmp_path / "no" / "such" / "a.key", Kind.USER, "a")
    create_key_file(tmp_path / "made" / "a.key", Kind.USER, "a")
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620])
def test_a_private_key_that_others_can_reach_is_refused_in_one_line(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.key"
    create_key_file(path, Kind.USER, "a")
    path.chmod(mode)
    with pytest.raises(NotAllowedError, match=f"{mode:04o}") as refused:
        read_private(path, Kind.USER)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "{public}\n{public}\n", "{secret}x\n", "{short}", "\0"])
def test_a_damaged_key_file_is_refused_and_its_secret_not_shown(tmp_path: Path, text: str) -> None:
    pair = new_pair()
    secret = PRIVATE + pair.secret
    path = tmp_path / "a.key"
    path.write_text(text.format(public=PUBLIC + pair.public, secret=secret, short=secret[:-1]))
    path.chmod(0o600)
    with pytest.raises(DataError) as refused:
        read_private(path, Kind.USER)
    assert pair.secret[:20] not in str(refused.value)


def test_public_and_private_are_told_apart(tmp_path: Path) -> None:
    pair = new_pair()
    with pytest.raises(ValueError, match="private key") as refused:
        read_public(PRIVATE + pair.secret)
    assert pair.secret not in str(refused.value)
    with pytest.raises(ValueError, match="starts with"):
        read_public(pair.public)
    (tmp_path / "a.pub").write_text(f"{PUBLIC}{pair.public} user alice\n")
    with pytest.raises(DataError, match="public key; the private one is needed"):
        read_private(tmp_path / "a.pub", Kind.USER)
    with pytest.raises(NotFoundError, match="no such key file"):
        read_private(tmp_path / "b.key", Kind.USER)


def test_a_file_that_says_whose_key_it_is_serves_nobody_else(tmp_path: Path) -> None:
    create_key_file(tmp_path / "bob.key", Kind.USER, "bob")
    for needed in (Kind.HOST, Kind.COORDINATOR):
        with pytest.raises(DataError, match=f"key of user bob; a {needed}'s is needed") as refused:
            read_private(tmp_path / "bob.key", needed)
        assert refused.value.hint is not None
        assert f"--{needed}" in refused.value.hint
    pair = new_pair()
    with pytest.raises(ValueError, match="key of user zed, not of a coordinator"):
        coordinators("tcp://a:1", f"{PUBLIC}{pair.public} user zed")
    assert coordinators("tcp://a:1", f"{PUBLIC}{pair.public} coordinator fleet")[0].key == pair.public


@pytest.mark.parametrize("key", ["#" * 40, "é" * 40, "a" * 39 + '"', "a" * 41, ""])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        read_public(PUBLIC + key)


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "a" * 65, "ä", "a\n", "host:a"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        check_name(name)


def test_a_file_is_replaced_whole_and_keeps_its_mode_and_its_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    replace_file(tmp_path / "link", "new")
    assert (tmp_path / "real").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o640
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]
    with pytest.raises(TopodError, match="cannot write"):
        replace_file(tmp_path / "no" / "x", "new")
