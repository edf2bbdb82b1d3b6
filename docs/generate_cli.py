"""Writes docs/reference/cli.md and exit-codes.md from the code: `python docs/generate_cli.py`.

A test compares the files with what this would write.
"""

import contextlib
import io
import os
from pathlib import Path

from topoctl.exit_codes import MEANINGS
from topoctl.lazy import COMMANDS, GROUPS
from topoctl.main import run

FOLDER = Path(__file__).resolve().parent / "reference"
CLI_INTRO = """\
# topoctl

<!-- Written from the code: change that, then run `python docs/generate_cli.py`. -->

Data goes to stdout, prose and errors to stderr. An error is one line, `error: ...`; a hint may follow after
an empty line. Exit statuses are listed in [exit-codes.md](exit-codes.md), `-o json` in
[json-output.md](json-output.md), the file of `submit -f` in [job-file.md](job-file.md).

What of a fleet need not be said each time stands in `~/.config/topod/client.toml`, or for all users in
`/etc/topod/client.toml`:

```toml
coordinator = ["tcp://head-1:7461", "tcp://head-2:7461"]
coordinator-key = "/etc/topod/coordinator.pub" # or the key itself, or a list: one for each
key = "~/.config/topod/user.key"               # this is the default
```

| variable | meaning |
| --- | --- |
| `TOPOD_SOCKET` | where topod listens, unless `--socket` says so |
| `TOPOD_COORDINATOR` | where a fleet's coordinators listen, with commas, unless `--coordinator` says so |
| `TOPOD_KEY` | the file of your key for it |
| `TOPOD_COORDINATOR_KEY` | its public key, or the file of it |
| `NO_COLOR` | plain text |
| `COLUMNS` | width of tables; else that of the terminal, 80 without one |
| `TOPOCTL_DEBUG` | `1` shows the traceback of an internal error |
"""
CODES_INTRO = """\
# Exit statuses of topoctl

<!-- Written from the code: change that, then run `python docs/generate_cli.py`. -->

| status | meaning |
| --- | --- |
"""
CODES_END = """
`run`, `wait` and `submit --wait` end with the job's own exit code where it ran to its end: 137 after SIGKILL,
143 after SIGTERM, as in Docker. With several jobs, that of the first one named that did not succeed. A job's
own code can be any number from 0 to 255; `-o json` tells them apart.

## topod and topod-coordinator

| status | meaning |
| --- | --- |
| 0 | stopped by SIGTERM or SIGINT |
| 2 | the command line is wrong |
| 4 | a file that was named does not exist |
| 5 | another one works on the state folder, or its jobs live in another runtime |
| 65 | the configuration has mistakes, or a key file is damaged |
| 74 | the state cannot be read or written, or a newer topod wrote it |
| 77 | a key may not be read, or others may read it |
"""


def cli_page() -> str:
    """Return docs/reference/cli.md."""
    parts = [CLI_INTRO, _block("topoctl", _help())]
    for name, entry in COMMANDS.items():
        parts.append(_block(f"topoctl {name}", _help(name)))
        parts += [_block(f"topoctl {name} {part}", _help(name, part)) for part in GROUPS.get(entry.group, ())]
    return "\n".join(parts)


def exit_codes_page() -> str:
    """Return docs/reference/exit-codes.md."""
    rows = [f"| {status} | {meaning} |\n" for status, meaning in sorted(MEANINGS.items())]
    return CODES_INTRO + "".join(rows).replace("; ", ";<br>") + CODES_END


def _block(title: str, text: str) -> str:
    return f"## {title}\n\n```text\n{text.strip()}\n```\n"


def _help(*words: str) -> str:
    """Return what `--help` prints on a terminal of 80 columns."""
    out = io.StringIO()
    os.environ["COLUMNS"] = "80"
    with contextlib.redirect_stdout(out):
        status = run([*words, "--help"])
    if status != 0:
        raise RuntimeError(f"`topoctl {' '.join(words)} --help` ended with {status}")
    return out.getvalue()


def main() -> None:
    """Write both pages."""
    (FOLDER / "cli.md").write_text(cli_page(), encoding="utf-8")
    (FOLDER / "exit-codes.md").write_text(exit_codes_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
