"""On which lines the keys of a TOML text stand."""

import tomllib
from typing import Any

from topod.shell.toml_places import Path, places_in

LINES = [
    "# [not.a.table]",
    r'top = "# no comment \" ] }" # a comment',
    r'"quoted \u0041.key" = 1',
    "a . b.'c d' = [ # one",
    '    1, [2, "]"], # two ]',
    '    { x = 1, y.z = { w = "}" } },',
    "    1979-05-27 07:32:00,",
    "]",
    "text = '''",
    "[nothing]",
    "key = 1 '''''",
    'more = """',
    r'k = 1 \"""',
    "[x]",
    '"""""',
    "[t.u] # late",
    "k=true",
    "[[many]]",
    "n = 1",
    "[many.sub]",
    "m = 1",
    "[[many.deep]]",
    "o = 1",
    "[[many.deep]]",
    "[[many]]",
    "",
    "n = { }",
    "[t]",
    "last = inf",
]


def keys_of(value: Any, at: Path = ()) -> set[Path]:
    members = list(value.items()) if isinstance(value, dict) else []
    members += enumerate(value) if isinstance(value, list) else []
    return {key for name, one in members for key in ((*at, name), *keys_of(one, (*at, name)))}


def test_every_key_that_tomllib_finds_has_its_line() -> None:
    for end in ("\n", "\r\n"):
        text = end.join(LINES)
        found = places_in(text)
        assert set(found) == keys_of(tomllib.loads(text))
        for key, line in found.items():
            word = str(key[-1])
            assert word.isdecimal() or word.startswith("quoted") or word in LINES[line - 1], key
        assert found["a", "b", "c d", 2, "y", "z", "w"] == 6
        assert found["a", "b", "c d", 3] == 7
        assert found[("quoted A.key",)] == 3
        assert (found["many", 0, "deep", 1], found["many", 1], found["many", 1, "n"]) == (24, 25, 27)
        assert found["t", "last"] == len(LINES)
