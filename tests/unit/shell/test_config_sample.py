"""The configuration file that is installed: true, whole, and without effect until somebody changes it."""

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from topod.shell.config_file import ConfigFile, health_rules_of
from topod.shell.config_reading import parse_config
from topod.shell.config_sample import sample_config

REFERENCE = Path(__file__).resolve().parents[3] / "docs/reference/configuration.md"
EXAMPLES = {"quota", "budget", "security.max_priority", "security.jobs.ulimits", "security.jobs.max_gpus"}
"""What has no default: shown by an example."""
OF_ROOT = {"coordinator.state_dir", "coordinator.socket", "health.critical_xids"}
"""Shown as they are for root, or as the list that is meant."""


def switched_on() -> str:
    return re.sub(r'^#(?=[\[\w"])', "", sample_config(), flags=re.MULTILINE)


def documented() -> set[str]:
    """Return `section.key` of every row of the reference."""
    found, section = set(), ""
    for line in REFERENCE.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"#+ `\[+([\w.]+)\]+`", line):
            section = heading[1]
        elif re.match(r"\| `", line):
            found |= {f"{section}.{key}" for key in re.findall(r"`(\w+)`", line.split("|")[1])}
    return found


def keys_of(table: dict[str, Any], before: str = "") -> set[str]:
    found = set()
    for name, value in table.items():
        many = value if isinstance(value, list) and value and isinstance(value[0], dict) else [value]
        for one in many:
            deeper = isinstance(one, dict) and f"{before}{name}" not in EXAMPLES - {"quota", "budget"}
            known = deeper and bool(one)
            found |= keys_of(one, f"{before}{name}.") if known else {f"{before}{name}"}
    return found


def flat(section: Any, before: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for field in msgspec.structs.fields(type(section)):
        value, name = getattr(section, field.name), before + field.name
        found |= flat(value, f"{name}.") if isinstance(value, msgspec.Struct) else {name: value}
    return found


def test_it_changes_nothing_as_it_stands() -> None:
    assert parse_config(sample_config(), "topod.toml") == ConfigFile()


def test_every_documented_key_is_in_it_and_no_other() -> None:
    in_it = keys_of(tomllib.loads(switched_on())) - {"security.max_priority"}
    assert in_it == documented()


def test_switched_on_it_says_the_defaults() -> None:
    said = parse_config(switched_on(), "topod.toml")
    default = msgspec.structs.replace(
        ConfigFile(), security=msgspec.structs.replace(ConfigFile().security, jobs=jobs_by_default())
    )
    known, meant = flat(said), flat(default)
    differ = {name for name in known if known[name] != meant[name]}
    assert differ == EXAMPLES | OF_ROOT
    assert health_rules_of(said) == health_rules_of(ConfigFile())


def jobs_by_default() -> Any:
    return parse_config("[security.jobs]\n", "x").security.jobs
