"""The configuration file: what it may say, and how it is refused."""

import os
import re
from pathlib import Path

import pytest

from topod.errors import DataError, NotFoundError
from topod.model.rules import NO_RULES, DisruptionBudget, Quota, Scope
from topod.protocol.curve import PUBLIC
from topod.shell.config_file import ConfigFile, rules_of
from topod.shell.config_reading import ConfigError, load_config, parse_config, read_config
from topod.shell.fleet_config import remote_of

KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"


def test_an_empty_file_says_what_no_file_says() -> None:
    assert parse_config("", "topod.toml") == ConfigFile()
    assert rules_of(ConfigFile()) == NO_RULES


def test_rules_are_read_as_people_write_them() -> None:
    rules = rules_of(
        parse_config(
            """
            [fairness]
            preemption_cap = 5
            hold_after = "30m"
            hold_step = 60

            [[quota]]
            user = "*"
            gpus = 4

            [[quota]]
            label = "team=vision"
            gpus = 6

            [[budget]]
            label = "service=chat-7b"
            min_running = 2

            [[budget]]
            label = "service=*"
            min_running = 1
            """,
            "topod.toml",
        )
    )
    assert rules.preemption_cap == 5
    assert (rules.hold_after_seconds, rules.hold_step_seconds) == (1800.0, 60.0)
    assert rules.quotas == (
        Quota(scope=Scope.USER, value="*", gpus=4),
        Quota(scope=Scope.LABEL, key="team", value="vision", gpus=6),
    )
    assert rules.budgets == (
        DisruptionBudget(label="service", value="chat-7b", min_running=2),
        DisruptionBudget(label="service", value="*", min_running=1),
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[fairnes]\n", "unknown key 'fairnes'; did you mean 'fairness'?"),
        ("[fairness]\nhold_afer = 1\n", "unknown key 'hold_afer' in [fairness]; did you mean 'hold_after'?"),
        ("[[quota]]\ngpu = 1\n", "unknown key 'gpu' in [quota]; did you mean 'gpus'?"),
        ("[fairness]\nhold_after = 'soon'\n", "not a duration: 'soon'"),
        (
            "[fairness]\npreemption_cap = 'x'\n",
            "fairness.preemption_cap: a whole number is expected, not a text in quotes",
        ),
        ("[fairness]\npreemption_cap = -1\n", "fairness.preemption_cap: must be 0 or more"),
        ("[[quota]]\ngpus = 1\n", "quota 1: give either user or label"),
        ("[[budget]]\nlabel = 'service='\nmin_running = 1\n", "budget 1: label is written"),
        ("fairness = [\n", "not TOML"),
        ("[fairness]\nhold_step = 0\n", "fairness.hold_step: must be above 0"),
        ("[fairness]\nhold_after = -1\n", "fairness.hold_after: not a duration: '-1'"),
        ("[health]\nxid_clear = true\n", "health.xid_clear: not a duration: True"),
        ("[health]\nforeign_cpu_share = nan\n", "health.foreign_cpu_share: must be above 0"),
        ("[fairness]\nhold_below = 'hihg'\n", "fairness.hold_below: must be low, normal, high or a whole"),
        ("[security.max_priority]\n'*' = 'hgih'\n", "security.max_priority: must be low, normal, high"),
        ("[security.jobs]\nmax_gpus = -1\n", "security.jobs.max_gpus: must be 0 or more"),
        ("[security.jobs.ulimits]\nnofile = -2\n", "security.jobs.ulimits.nofile: must be -1 (any) or more"),
        ("[[quota]]\nuser = 'a'\ngpus = '1'\n", "quota 1.gpus: a whole number is expected, not a text"),
        (
            "[security.jobs]\nimages = 'bb'\n",
            "security.jobs.images: a list is expected, not a text in quotes",
        ),
        ("[[quota]]\nuser = ''\ngpus = 1\n", "quota 1: no user is named ''"),
        ("[[quota]]\nlabel = 'team'\ngpus = 1\n", 'quota 1: label is written "KEY=VALUE"'),
        (
            "[coordinator]\nplacing = 'sprad'\n",
            "coordinator.placing: one of pack, spread is expected, not 'sprad'",
        ),
        (
            "[security.jobs]\nnetworks = ['hots']\n",
            "networks 1: one of bridge, none, host is expected, not 'hots'",
        ),
        ("[[quota]]\nlabel = ''\ngpus = 1\n", 'quota 1: label is written "KEY=VALUE"'),
        ("[[budget]]\nlabel = 'service'\nmin_running = 1\n", 'budget 1: label is written "KEY=VALUE"'),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(DataError) as refused:
        parse_config(text, "topod.toml")
    assert complaint in refused.value.message
    assert "topod.toml" in refused.value.message
    assert "\n" not in refused.value.message


def test_a_priority_is_written_as_everywhere_else() -> None:
    text = """
    [fairness]
    preemption_ceiling = "normal"
    hold_below = "high"

    [security.max_priority]
    "*" = "normal"
    serving = 2000
    """
    config = parse_config(text, "topod.toml")
    assert config.security.max_priority == {"*": 500, "serving": 2000}
    assert (rules_of(config).preemption_ceiling, rules_of(config).hold_below) == (500, 1000)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("[[quota]]\nuser = 'alice'\ngpus = %d\n", "quota 3: user alice has one already, quota 1"),
        ("[[quota]]\nuser = '*'\ngpus = %d\n", "quota 3: user * has one already, quota 1"),
        ("[[quota]]\nlabel = 'team=a'\ngpus = %d\n", "quota 3: label team=a has one already, quota 1"),
        (
            "[[budget]]\nlabel = 'team=a'\nmin_running = %d\n",
            "budget 2: label team=a has one already, budget 1",
        ),
    ],
)
def test_two_rules_for_the_same_are_refused(entry: str, complaint: str) -> None:
    other = "[[quota]]\nuser = 'bob'\ngpus = 1\n"
    with pytest.raises(DataError) as refused:
        parse_config(entry % 1 + other + entry % 2, "topod.toml")
    assert complaint in refused.value.message


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such configuration file"):
        read_config(tmp_path / "none.toml")


def test_sizes_of_kept_output_are_read_as_people_write_them() -> None:
    logs = parse_config('[logs]\nmax_bytes = "5M"\nkeep_bytes = 0\nkeep_days = 0\n', "topod.toml").logs
    assert (logs.max_bytes, logs.keep_bytes, logs.keep_days) == (5 << 20, 0, 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[logs]\nmax_bytes = 1000\n", "logs.max_bytes: must be at least 1M"),
        ("[logs]\nkeep_days = -1\n", "logs.keep_days: must be 0 or more"),
        ('[logs]\nkeep_bytes = "much"\n', "not a size: 'much'"),
        ("[history]\nkeep_day = 1\n", "did you mean 'keep_days'"),
    ],
)
def test_what_cannot_be_kept_is_refused(text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        parse_config(text, "topod.toml")


FLEET = f'[fleet]\ncoordinator = "tcp://c:5700"\ncoordinator_key = "{PUBLIC}{KEY}"\n'


def test_a_host_belongs_to_a_fleet_by_the_place_and_the_key_of_its_coordinator() -> None:
    assert parse_config(FLEET, "topod.toml").fleet.coordinator == "tcp://c:5700"
    two = f'[fleet]\ncoordinator = ["tcp://c:5700", "tcp://d:5700"]\ncoordinator_key = ["{PUBLIC}{KEY}"]\n'
    assert parse_config(two, "topod.toml").fleet.coordinator == ("tcp://c:5700", "tcp://d:5700")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[fleet]\nkey_file = "/k"\n', 'fleet.coordinator: is missing: "tcp://HOST:PORT"'),
        ('[fleet]\ncoordinator = "tcp://c:5700"\n', "fleet.coordinator_key: is missing"),
        (
            FLEET.replace("tcp://c:5700", "c"),
            "fleet.coordinator: a coordinator is at tcp://HOST:PORT, not 'c'",
        ),
        (FLEET.replace(f'{KEY}"', f'{KEY} user zed"'), "key of user zed, not of a coordinator"),
        (FLEET + 'name = "a b"\n', "fleet.name: not a name: 'a b'"),
        (FLEET + 'key_file = "host.key"\n', "fleet.key_file: must start with /: 'host.key'"),
        (FLEET + 'label = "x"\n', "unknown key 'label' in [fleet]; did you mean 'labels'?"),
    ],
)
def test_a_fleet_that_cannot_be_meant_is_refused(text: str, why: str) -> None:
    with pytest.raises(DataError) as refused:
        parse_config(text, "topod.toml")
    assert why in str(refused.value)


ETCD = '[store]\nkind = "etcd"\nendpoints = ["http://a:2379"]\n'


def test_coordinators_share_etcd_by_the_places_of_its_members() -> None:
    store = parse_config(ETCD + 'lease_seconds = "10s"\n', "topod.toml").store
    assert (store.kind, store.endpoints, store.lease_seconds, store.prefix) == (
        "etcd",
        ("http://a:2379",),
        10.0,
        "/topod/",
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[store]\nkind = "etcd"\n', "store.endpoints: is missing"),
        ('[store]\nprefix = "/x/"\n', "takes no other key"),
        (ETCD.replace("http://a:2379", "a:2379"), "store.endpoints: a member is at http"),
        (ETCD.replace('"]', '", "https://b:2379"]'), "all with http, or all with https"),
        (ETCD + 'prefix = "topod"\n', "store.prefix: written"),
        (ETCD + "lease_seconds = 1\n", "store.lease_seconds: must be whole seconds from 2 to 60"),
        (ETCD + "lease_seconds = 2.5\n", "store.lease_seconds: must be whole seconds"),
        (ETCD + 'ca_file = "/ca.pem"\n', "https://HOST:PORT, where files for TLS"),
        (ETCD.replace("http:", "https:") + 'cert_file = "/c.pem"\n', "store.cert_file: goes with key_file"),
        (ETCD.replace("http:", "https:") + 'ca_file = "ca.pem"\n', "store.ca_file: must start with /"),
        ('[coordinator]\nadvertise = "head"\n', "coordinator.advertise: a coordinator is at tcp"),
    ],
)
def test_a_memory_that_cannot_be_meant_is_refused(text: str, why: str) -> None:
    with pytest.raises(DataError, match=re.escape(why)):
        parse_config(text, "topod.toml")


def test_a_host_of_a_fleet_does_not_start_without_its_key(tmp_path: Path) -> None:
    config = parse_config(f'{FLEET}key_file = "{tmp_path}/host.key"\n', "topod.toml")
    with pytest.raises(NotFoundError):
        remote_of(config.fleet)
    assert remote_of(ConfigFile().fleet) is None


def test_every_mistake_of_every_file_is_told_with_its_line(tmp_path: Path) -> None:
    path, folder = tmp_path / "topod.toml", tmp_path / "conf.d"
    folder.mkdir()
    path.write_text("[fairness]\nhold_afer = 1\n\n[logs]\nkeep_days = -1\nmax_bytes = 5\n[healht]\n")
    (folder / "10-quota.toml").write_text("[[quota]]\nuser = 'a'\ngpus = '1'\n[[quota]]\ngpu = 1\n")
    (folder / "20-budget.toml").write_text("[[budget]]\nlabel = 'a=b'\nmin_running = -1\n")
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    assert [mistake.removeprefix(f"{tmp_path}/") for mistake in refused.value.mistakes] == [
        "topod.toml:2: unknown key 'hold_afer' in [fairness]; did you mean 'hold_after'?",
        "topod.toml:7: unknown key 'healht'; did you mean 'health'?",
        "conf.d/10-quota.toml:3: quota 1.gpus: a whole number is expected, not a text in quotes",
        "conf.d/10-quota.toml:5: unknown key 'gpu' in [quota]; did you mean 'gpus'?",
        "conf.d/10-quota.toml:4: quota 2: `gpus` is missing",
        "conf.d/20-budget.toml:1: budget 1: min_running must be 0 or more",
        "topod.toml:6: logs.max_bytes: must be at least 1M, not 5 bytes",
        "topod.toml:5: logs.keep_days: must be 0 or more",
    ]
    assert refused.value.message.endswith("hold_after'? (and 7 more: topoctl config check)")
    (folder / "15.toml").write_text("[logs]\nkeep_days = \n")
    (folder / "16.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"15\.toml:2:13: not TOML: Invalid value") as refused:
        load_config(path)
    assert f"{folder}/16.toml: not UTF-8 text at byte 0" in refused.value.mistakes


def test_files_of_the_folder_come_after_the_file_in_the_order_of_their_names(tmp_path: Path) -> None:
    path, folder = tmp_path / "topod.toml", tmp_path / "conf.d"
    folder.mkdir()
    path.write_text("[fairness]\npreemption_cap = 1\nhold_after = 5\n[[quota]]\nuser='a'\ngpus=1\n")
    (folder / "20.toml").write_text("fairness.preemption_cap = 3\n[security.jobs]\nimages = ['b']\n")
    (folder / "10.toml").write_text(
        "fairness.preemption_cap = 2\n[[quota]]\nuser='b'\ngpus=1\n[security.jobs]\nimages = ['a', 'c']\n"
    )
    for left in ("20.toml~", ".21.toml", "22.toml.dpkg-new", "#23.toml#", "README"):
        (folder / left).write_text("[[[")
    loaded = load_config(path)
    fairness = loaded.config.fairness
    assert (fairness.preemption_cap, float(fairness.hold_after)) == (3, 5.0)
    assert [quota.user for quota in loaded.config.quota] == ["a", "b"]
    assert loaded.config.security.jobs is not None
    assert loaded.config.security.jobs.images == ("b",)
    assert loaded.files == (str(path), str(folder / "10.toml"), str(folder / "20.toml"))
    assert loaded.origins["fairness", "preemption_cap"] == f"{folder}/20.toml:1"
    assert loaded.origins["fairness", "hold_after"] == f"{path}:3"
    assert loaded.origins["quota", 1] == f"{folder}/10.toml:2"
    (folder / "30.toml").write_text("[[quota]]\nuser='a'\ngpus=1\n")
    with pytest.raises(DataError, match=r"conf\.d/30\.toml:1: quota 3: user a has one already, quota 1"):
        load_config(path)


def test_a_mistake_of_the_whole_is_told_where_its_table_stands(tmp_path: Path) -> None:
    path = tmp_path / "topod.toml"
    path.write_text("\n[fleet]\nkey_file = '/k'\n")
    with pytest.raises(DataError, match=r"topod\.toml:2: fleet\.coordinator: is missing"):
        load_config(path)
    # It may stand in what cannot be read: that is told alone.
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "a.toml").write_text("fleet.coordinator = \n")
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    assert len(refused.value.mistakes) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_that_somebody_else_put_beside_the_file_is_refused(tmp_path: Path) -> None:
    path, folder = tmp_path / "topod.toml", tmp_path / "conf.d"
    path.touch()
    folder.mkdir()
    os.chown(folder, 54321, -1)
    with pytest.raises(ConfigError, match=r"conf\.d: belongs to user 54321, who could configure topod by it"):
        load_config(path)
    # Whoever owns the file may well own the folder.
    os.chown(path, 54321, -1)
    assert load_config(path).files == (str(path),)
