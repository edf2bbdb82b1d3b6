"""Damaged input: valid documents with a few edits of their tree, their lines and their bytes, so that it shrinks well."""

import copy
import json
from collections.abc import Sequence
from typing import Any, Final

from hypothesis import strategies as st

JUNK: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**63) - 1,
    10**40,
    0.5,
    -0.0,
    1e308,
    "",
    " ",
    "*",
    "0",
    "-1",
    "1e999",
    "nan",
    "\0",
    "\x1b[31m",
    "\ud7ff",
    "é" * 3,
    "../../etc",
    "{user}",
    "a=b=c",
    "x" * 5000,
    "9" * 400,
    [],
    {},
    [[]],
    {"": ""},
    [None] * 30,
)
"""What programs stumble over, one each."""

TOKENS: Final = (
    b"",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\n",
    b"\r",
    b"\t",
    b" ",
    b'"',
    b"'",
    b"\\",
    b"\\ud800",
    b"{",
    b"}",
    b"[" * 200,
    b"]",
    b"[" * 20_000,
    b":",
    b",",
    b"=",
    b"#",
    b"- ",
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!python/object:os.system ",
    b"%s%n",
    b"-",
    b"1e99999",
    b"9" * 5000,
    b"null",
    b"NaN",
    b"Infinity",
    b"GPU0",
    b"NV",
    b"X",
    b"\x1b[4m",
    "…".encode(),
)


def json_documents(samples: Sequence[Any]) -> st.SearchStrategy[bytes]:
    """Return JSON of a sample with up to three values replaced, and then maybe some bytes."""
    return _trees(samples).flatmap(
        lambda tree: st.just(json.dumps(tree).encode()) | damaged(json.dumps(tree).encode())
    )


def texts(samples: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Return a sample text with some of its lines and bytes changed."""
    return st.sampled_from(samples).flatmap(damaged)


@st.composite
def _trees(draw: st.DrawFn, samples: Sequence[Any]) -> Any:
    tree = json.loads(json.dumps(draw(st.sampled_from(samples))))
    for _ in range(draw(st.integers(0, 3))):
        found = list(places(tree))
        if not found:
            return copy.deepcopy(draw(st.sampled_from(JUNK)))
        holder, key = found[draw(st.integers(0, len(found) - 1))]
        what = draw(st.integers(0, 5))
        if what == 0:
            del holder[key]
        elif what == 1 and isinstance(holder, dict):
            holder[draw(st.sampled_from(("", "x", "kind", "spec", "gpus", "\0")))] = holder[key]
        elif what == 2 and isinstance(holder, list):
            holder += [holder[key]] * draw(st.integers(1, 40))
        else:
            holder[key] = copy.deepcopy(draw(st.sampled_from(JUNK)))
    return tree


def places(tree: Any) -> Any:
    """Yield (holder, key) of every value in a tree."""
    if isinstance(tree, dict | list):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from places(tree[key])


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Return bytes with up to four edits."""
    for _ in range(draw(st.integers(0, 4))):
        what = draw(st.integers(0, 6))
        if what < 3:
            lines = data.splitlines(keepends=True)
            if not lines:
                return draw(st.binary(max_size=40))
            at, other = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
            if what == 0:
                del lines[at]
            elif what == 1:
                lines.insert(other, lines[at])
            else:
                name, sign, _ = lines[at].partition(b"=" if b"=" in lines[at] else b":")
                lines[at] = name + sign + b" " + draw(st.sampled_from(TOKENS)) + b"\n"
            data = b"".join(lines)
            continue
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 12)))
        if what == 3:
            data = data[:at] + data[end:]
        elif what == 4:
            data = data[:at] + draw(st.sampled_from(TOKENS)) + data[end:]
        elif what == 5:
            data = data[:at] + draw(st.binary(max_size=8)) + data[end:]
        else:
            data = data[:end] + data[at:]
    return data
