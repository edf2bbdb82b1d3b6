"""Writes docs/reference/messages.md and errors.md from the code: `python docs/generate_messages.py`.

A test compares the files with what this would write.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any, get_args

import msgspec

import topod
from topod.errors import TopodError
from topod.protocol.codec import MAX_MESSAGE_BYTES, MAX_REPLY_BYTES, PROTOCOL_VERSION
from topod.protocol.replies import AnyReply
from topod.protocol.requests import AnyRequest

FOLDER = Path(__file__).resolve().parent / "reference"
MARK = "<!-- Written from the code: change that, then run `python docs/generate_messages.py`. -->"
MESSAGES_INTRO = f"""\
# Messages

{MARK}

What `topoctl` and topod say to each other, for whoever writes a client of his own; the same of a fleet's
coordinator. Programs that start a command are better off with [`-o json`](json-output.md): the messages
may change with `v`.

A ZeroMQ DEALER connects to `ipc:///run/topod/topod.sock` (a ROUTER), or by TCP with CURVE keys to a
coordinator. A message is one frame of JSON, requests of at most {MAX_MESSAGE_BYTES >> 20} MiB, replies
of at most {MAX_REPLY_BYTES >> 20} MiB:

```json
{{"v": {PROTOCOL_VERSION}, "id": "any text of yours", "body": {{"kind": "hello"}}}}
```

The reply repeats `id`; its body has a `kind` too, `failure` where something went wrong ([error
codes](errors.md)). Requests may overtake each other. A field that is not known is refused in a request,
and to be ignored in a reply. What can be left out has a default. `JobSpec` is what a [job
file](job-file.md) says, in seconds and bytes; `JobView`, `EventView` and plans are explained under [JSON
output](json-output.md).

Events come by themselves from `ipc:///run/topod/topod.sock.events` (a PUB; the first frame is the name
of the event). A host's own talk with its coordinator is no part of this.
"""
ERRORS_INTRO = f"""\
# Error codes

{MARK}

A reply of kind `failure` has a `code`, a `text` of one line, perhaps a `hint`, and the exit status with
which `topoctl` ends. The text is for people and may change; the code stays.

| code | exit status | meaning | what to do |
| --- | --- | --- | --- |
"""
MEND = {
    "bad-data": "mend the line that the text names",
    "cannot-run": "ask for less, or for another affinity; `topoctl topo` shows what there is",
    "conflict": "look at the job or host again (`topoctl show`), then decide anew",
    "daemon-unavailable": "`systemctl status topod`, or `topoctl doctor`; the socket is `--socket`'s",
    "internal": "ask again; then report it with the number and `topoctl support-bundle`",
    "job-rejected": "mend image, mounts or user of the job, and submit it anew",
    "lead-lost": "ask what became of it, or send it again with the same token",
    "memory-away": "look after etcd; hosts and running jobs go on meanwhile",
    "newer-state": "upgrade, or go back with the copy that the newer one kept",
    "no-peer-credentials": "use a libzmq with credentials of peers (from pip's `pyzmq`)",
    "not-allowed": "ask an administrator for the role; with a key: for the right file of keys",
    "not-found": "`topoctl ps`, `topoctl history`, `topoctl hosts` list what there is",
    "not-here": "ask the coordinator for what concerns a fleet, the host for what concerns it alone",
    "not-leader": "ask the next coordinator; `topoctl` does so by itself",
    "policy": "ask for what the host's `[security.jobs]` allows",
    "probe-failed": "`nvidia-smi` by hand; `topoctl doctor` says what hangs",
    "protocol": "use a client and a topod of the same release",
    "protocol-version": "use a client and a topod of the same release",
    "pull-failed": "ask again later; check the image's name and the registry",
    "runtime-unavailable": "`systemctl status docker`; running jobs are not touched",
    "store-failed": "make room on the disk, or mend what the text names",
    "usage": "mend the command line as the hint says",
}


def messages_page() -> str:
    """Return docs/reference/messages.md."""
    parts = [MESSAGES_INTRO, "## Requests\n"]
    parts += [_message(kind) for kind in get_args(AnyRequest)]
    parts.append("## Replies\n")
    parts += [_message(kind) for kind in get_args(AnyReply)]
    return "\n".join(parts)


def errors_page() -> str:
    """Return docs/reference/errors.md."""
    # Of several with one code the general one tells what it means.
    found = sorted(
        _below(TopodError), key=lambda kind: kind.__module__ != TopodError.__module__, reverse=True
    )
    kinds = {kind.code: kind for kind in found}
    rows = []
    for code, kind in sorted(kinds.items()):
        meaning = _first(kind).split(" Exit status")[0]
        rows.append(f"| `{code}` | {kind.exit_status} | {meaning} | {MEND[code]} |\n")
    return ERRORS_INTRO + "".join(rows)


for _module in walk_packages(topod.__path__, "topod."):
    if not _module.name.endswith("__main__"):
        import_module(_module.name)  # whoever defines an error is to be known


def _below(kind: type[TopodError]) -> Iterator[type[TopodError]]:
    for one in kind.__subclasses__():
        if one.__module__.startswith("topod.") and "code" in vars(one):
            yield one
        yield from _below(one)


def _message(kind: type[Any]) -> str:
    tag = kind.__struct_config__.tag
    told = inspect.cleandoc(kind.__doc__ or "")
    words = _fields(kind)
    rows = "".join(
        f"| `{one.encode_name}` | {_type(one.type)} | {_default(one)} | {words.get(one.name, '')} |\n"
        for one in msgspec.structs.fields(kind)
    )
    table = f"\n| field | type | default | |\n| --- | --- | --- | --- |\n{rows}" if rows else ""
    return f"### {tag}\n\n{told}\n{table}"


def _first(kind: type[Any]) -> str:
    return inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def _fields(kind: type[Any]) -> dict[str, str]:
    """Return what is written below the fields of a class and of those that it builds on."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if not one.__module__.startswith("topod."):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(tree, ast.ClassDef)
        name = None
        for node in tree.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name = node.target.id
            elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                found[name] = " ".join(str(node.value.value).split()).replace("|", "\\|")
                name = None
            else:
                name = None
    return found


def _type(kind: object) -> str:
    text = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    text = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", text)
    return f"`{text}`".replace("|", "\\|")


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return ""
    if field.default is not msgspec.NODEFAULT:
        return f"`{field.default!r}`"
    return f"`{field.default_factory()!r}`"  # type: ignore[operator] # one of the two is there


def main() -> None:
    """Write both pages."""
    (FOLDER / "messages.md").write_text(messages_page(), encoding="utf-8")
    (FOLDER / "errors.md").write_text(errors_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
