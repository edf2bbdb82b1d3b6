"""The file of authorised keys: what a line says, what refuses it, and what a change does."""

import threading
from pathlib import Path

import pytest

from topod.adapters.authorized import (
    AuthorizedKeys,
    Entry,
    authorize,
    format_entry,
    parse_authorized,
    parse_entry,
    read_authorized,
    revoke,
)
from topod.errors import ConflictError, DataError, NotFoundError
from topod.model.roles import Role
from topod.protocol.curve import PRIVATE, PUBLIC, Kind, new_pair

KEY = new_pair()
OTHER = new_pair()
LINE = f"{PUBLIC}{KEY.public}"


def entry(name: str = "node-a", kind: Kind = Kind.HOST, public: str = KEY.public, **more: object) -> Entry:
    return Entry(public=public, kind=kind, name=name, **more)  # type: ignore[arg-type] # a test's shorthand


@pytest.mark.parametrize(
    "one",
    [
        entry(),
        entry(comment="added 2026-01-01 by hand"),
        entry("alice", Kind.USER, roles=frozenset({Role.VIEW})),
        entry("alice", Kind.USER, roles=frozenset({Role.VIEW, Role.SUBMIT}), max_priority=500, comment="# #"),
        entry("root", Kind.USER, roles=frozenset(Role)),
    ],
)
def test_what_is_written_is_read(one: Entry) -> None:
    assert parse_entry(format_entry(one)).who == one.who
    assert format_entry(parse_entry(format_entry(one))) == format_entry(parse_entry(format_entry(one)))
    assert parse_entry(format_entry(one)).roles == one.roles
    assert parse_entry(format_entry(one)).max_priority == one.max_priority


def test_more_includes_less() -> None:
    assert parse_entry(f"{LINE} user a roles=submit").roles == {Role.VIEW, Role.SUBMIT}
    assert parse_entry(f"{LINE} user a roles=administer").roles == set(Role)
    assert parse_entry(f"{LINE} user a roles=view max-priority=high").max_priority == 1000


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("SECRET host a", "private key"),
        ("BARE host a", "starts with topod-public:"),
        ("SHORT host a", "40 characters"),
        ("LINE", "after the key"),
        ("LINE # host a", "after the key"),
        ("LINE host", "after the key"),
        ("LINE coordinator a", "host:NAME or user:NAME"),
        ("LINE host ../a", "not a name"),
        ("LINE host a roles=view", "a host has no 'roles'"),
        ("LINE user a", "has no roles"),
        ("LINE user a roles=", "roles are"),
        ("LINE user a roles=view,root", "not 'root'"),
        ("LINE user a roles=view roles=administer", "said twice"),
        ("LINE user a roles=view administer", "not KEY=VALUE"),
        ("LINE user a roles=view uid=0", "a user has no 'uid'"),
        ("LINE user a roles=view max-priority=most", "must be low, normal, high"),
    ],
)
def test_a_line_that_cannot_be_meant_refuses_the_file_with_its_place(line: str, words: str) -> None:
    good = f"{PUBLIC}{OTHER.public} host b"
    # The key is another one in each run, and must not be part of the test's name.
    meant = {"SECRET": PRIVATE + KEY.secret, "BARE": KEY.public, "SHORT": LINE[:-1], "LINE": LINE}
    word, _, rest = line.partition(" ")
    line = f"{meant[word]} {rest}"
    with pytest.raises(DataError) as refused:
        parse_authorized(f"# keys\n{good}\n{line}\n", "keys")
    assert str(refused.value).startswith("keys:3: ")
    assert words in str(refused.value)
    assert KEY.secret not in str(refused.value)


def test_a_key_twice_is_refused_and_a_name_twice_is_a_change_of_keys() -> None:
    with pytest.raises(DataError, match=r"keys:2: the key of line 1 \(host:a\) again"):
        parse_authorized(f"{LINE} host a\n{LINE} user b roles=view", "keys")
    two = parse_authorized(f"{LINE} host a\n{PUBLIC}{OTHER.public} host a", "keys")
    assert [one.who for one in two.values()] == ["host:a", "host:a"]


def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with pytest.raises(NotFoundError):
        AuthorizedKeys(path)
    path.write_text(f"{LINE} host a\n")
    for mode in (0o664, 0o646):
        path.chmod(mode)
        with pytest.raises(DataError, match="others can write"):
            AuthorizedKeys(path)
    path.chmod(0o644)
    assert AuthorizedKeys(path).find(KEY.public) == entry("a")


def test_a_file_broken_or_gone_leaves_the_last_good_one_in_force_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    authorize(path, entry("a"))
    known = AuthorizedKeys(path)
    assert not known.refresh()
    good = path.read_text()
    path.write_text(good + "nonsense\n")
    assert not known.refresh()
    assert "keys:2" in known.trouble
    assert known.find(KEY.public) is not None
    path.unlink()
    assert not known.refresh()
    assert "no such file" in known.trouble
    assert known.find(KEY.public) is not None
    path.write_text("# nobody\n")
    path.chmod(0o600)
    assert known.refresh()
    assert (known.trouble, known.find(KEY.public)) == ("", None)


def test_what_is_authorised_can_be_revoked_and_comments_stay(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# the fleet\n\n# its hosts")
    authorize(path, entry("a"))
    authorize(path, entry("b", public=OTHER.public, comment="spare"))
    with pytest.raises(ConflictError, match="has this key already, as host:a"):
        authorize(path, entry("c"))
    with pytest.raises(NotFoundError, match="no key of host:c"):
        revoke(path, ["host:a", "host:c"])
    assert [one.name for one in read_authorized(path).values()] == ["a", "b"]
    assert [one.name for one in revoke(path, ["host:a"])] == ["a"]
    assert [one.name for one in revoke(path, [PUBLIC + OTHER.public])] == ["b"]
    assert path.read_text() == "# the fleet\n\n# its hosts\n"


def test_nothing_is_added_to_a_file_with_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("nonsense\n")
    with pytest.raises(DataError, match="keys:1"):
        authorize(path, entry())
    with pytest.raises(DataError, match="keys:1"):
        revoke(path, ["host:a"])
    assert path.read_text() == "nonsense\n"


def test_two_who_add_at_once_both_get_in(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    pairs = [new_pair() for _ in range(16)]
    threads = [
        threading.Thread(target=authorize, args=(path, entry(f"n{number}", public=pair.public)))
        for number, pair in enumerate(pairs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(read_authorized(path)) == {pair.public for pair in pairs}
