"""Roles from groups, and what each request needs."""

import asyncio
from typing import get_args

import pytest

from topod.adapters.peers import Peer, UnixUser, parse_peer, unix_user, unknown_groups
from topod.errors import DataError, NotAllowedError
from topod.model.roles import Role
from topod.protocol.requests import AnyRequest, AtHost
from topod.shell.access import Access, Caller, groups_named
from topod.shell.config_file import SecuritySection
from topod.shell.config_kinds import Level
from topod.shell.config_reading import parse_config
from topod.shell.gate import NEEDS, Need


def caller(*groups: str, rules: SecuritySection | None = None, uid: int = 4242) -> Caller:
    access = Access(
        rules or SecuritySection(), lookup=lambda uid, _: UnixUser(name=f"u{uid}", groups=frozenset(groups))
    )
    try:
        return asyncio.run(access.caller(Peer(uid=uid, gid=1, pid=1)))
    finally:
        access.close()


def test_every_request_says_what_it_needs() -> None:
    # A new request is an administrator's until it is listed in `topod.shell.gate.NEEDS`.
    # What is asked of a host through its fleet needs what the same needs there.
    assert set(get_args(AnyRequest)) == {*NEEDS, AtHost}


def test_what_works_on_a_job_names_it() -> None:
    for request, need in NEEDS.items():
        if need is Need.OWN:
            assert {"job", "jobs"} & set(request.__struct_fields__), request


def test_unless_told_otherwise_whoever_gets_in_may_submit_and_a_group_administers() -> None:
    assert caller("staff").roles == {Role.VIEW, Role.SUBMIT}
    assert caller("staff", "topod-admin").is_admin
    assert caller(uid=0).is_admin


def test_who_may_submit_may_look() -> None:
    rules = SecuritySection(view=("ops",), submit=("ml",))
    assert caller("ml", rules=rules).roles == {Role.VIEW, Role.SUBMIT}
    assert caller("ops", rules=rules).roles == {Role.VIEW}
    assert caller("other", rules=rules).roles == frozenset()


@pytest.mark.parametrize(
    ("groups", "most"),
    [(("x",), 500), (("serving",), 1000), (("serving", "x"), 1000), (("topod-admin",), None)],
)
def test_the_highest_limit_of_the_groups_counts(groups: tuple[str, ...], most: int | None) -> None:
    rules = SecuritySection(max_priority={"*": Level(500), "serving": Level(1000)})
    assert caller(*groups, rules=rules).max_priority == most


def test_a_user_whose_groups_cannot_be_found_out_is_nobody() -> None:
    def fails(_: int, __: int) -> UnixUser:
        raise OSError("the directory is away")

    access = Access(SecuritySection(), lookup=fails)
    with pytest.raises(NotAllowedError, match="groups of user 7 cannot be found out: the directory is away"):
        asyncio.run(access.caller(Peer(uid=7, gid=7, pid=1)))
    assert asyncio.run(access.caller(Peer(uid=0, gid=0, pid=1))).is_admin, "root needs no directory"
    with pytest.raises(NotAllowedError, match="does not say who asks"):
        asyncio.run(access.caller(None))
    access.close()


def test_peers_are_read_as_libzmq_writes_them() -> None:
    assert parse_peer("localhost:1000:100:4711") == Peer(uid=1000, gid=100, pid=4711)
    for text in ("", "127.0.0.1", "localhost:-1:0:1", "localhost:0:0:1:2", "localhost::0:1"):
        assert parse_peer(text) is None


def test_the_user_database_names_users_and_their_groups() -> None:
    assert unix_user(0, 0).name == "root"
    assert {"root", "0"} <= unix_user(0, 0).groups, "a role may name a group by its number too"
    assert unix_user(3_999_999, 3_999_998) == UnixUser(name="3999999", groups=frozenset({"3999998"}))


def test_groups_that_nobody_can_be_in_are_told() -> None:
    text = """
    [security]
    view = ["*"]
    submit = ["root", "no-such-group"]
    max_priority = {"*" = 500, "41001" = 600, nobody-here = 700}
    """
    named = groups_named(parse_config(text, "t.toml").security)
    assert named == {
        "security.submit": ["root", "no-such-group"],
        "security.max_priority": ["41001", "nobody-here"],
    }
    assert unknown_groups(named) == [
        "security.submit: there is no group no-such-group on this machine",
        "security.max_priority: there is no group nobody-here on this machine",
    ]
    assert groups_named(SecuritySection()) == {}, "the group that topod names by itself need not exist"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[security]\nsocket_mode = "rw"', "security.socket_mode: written \"0660\", not 'rw'"),
        ("[security.max_priority]\nml = 5", 'say what everybody else may give too: "[*]" = "normal"'),
        ('[security]\nsubmit = "ml"', "security.submit"),
    ],
)
def test_a_wrong_section_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_config(text, "t.toml")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("networks = []", "security.jobs.networks: a job needs one of them"),
        ('networks = ["hosts"]', "hosts"),
        ('mounts = ["data"]', "security.jobs.mounts: must start with /: 'data'"),
        ('capabilities = ["CAP_IPC_LOCK"]', "security.jobs.capabilities: written"),
        ('image = ["x"]', "unknown key 'image' in .security.jobs.; did you mean 'images'"),
    ],
)
def test_a_wrong_policy_is_refused(line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_config(f"[security.jobs]\n{line}", "t.toml")
