"""Takes what is secret, or may be, out of what a bug report says. Pure.

Rule: what is known to be private goes by its place (values of environments, arguments of commands, what hooks
printed), and wherever else the same words stand; all the rest is searched for what looks like a secret. It
rather takes out too much.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

REMOVED: Final = "<removed>"
SHORTEST: Final = 6
"""Shorter values are taken out in their place only: `1` or `true` stand everywhere."""
_NAMES: Final = (
    r"(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?"
    r"|authorization|cookie)[\w.-]{0,40}"
)
_NAMED: Final = re.compile(rf"({_NAMES})([\"']?\s*[=:]\s*[\"']?)(?!<removed>)([^\s\"',;&]+)", re.IGNORECASE)
_OPTION: Final = re.compile(rf"(-[\w-]{{0,40}}{_NAMES})\s+(?!<removed>|-)(\S+)", re.IGNORECASE)
_NUMBER: Final = re.compile(r"[\d.,:+-]+")
_SECRET_KEY: Final = re.compile(_NAMES, re.IGNORECASE)
_SHAPES: Final = tuple(
    re.compile(text, re.DOTALL)
    for text in (
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        r"topod-secret:\S+",
        r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)",
        r"(?i)\b(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}",
        r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",
        r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
        r"\b(?:sk|pk|hf|ghp|gho|ghu|ghs|ghr|glpat|xox[abprs]|github_pat|nvapi)[-_][\w-]{16,}",
    )
)
_OWN: Final = frozenset({"secrets", "token"})
"""Keys of topod's own whose values are no secrets: where a job's secrets lie, and words of the protocol."""


class Scrubber:
    """Cleans texts and plain values; `values` are words that are known to be private."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        words = {part.strip() for value in values for part in (value, *value.split("\n"))}
        kept = (word for word in words if len(word) >= SHORTEST and not _NUMBER.fullmatch(word))
        # The longest first: one may be a part of another.
        self._known = sorted(kept, key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        for word in self._known:
            text = text.replace(word, REMOVED)
        return _shapeless(text)

    def dumped(self, value: Any) -> str:
        """Return plain values as JSON without secrets."""
        text = json.dumps(_cleaned(value), indent=1, ensure_ascii=False)
        # In the whole at once: thousands of jobs may have as many words.
        for word in self._known:
            text = text.replace(json.dumps(word, ensure_ascii=False)[1:-1], REMOVED)
        return text + "\n"


def _shapeless(text: str) -> str:
    for shape in _SHAPES:
        text = shape.sub(REMOVED, text)
    text = _NAMED.sub(rf"\1\2{REMOVED}", text)
    return _OPTION.sub(rf"\1 {REMOVED}", text)


def _cleaned(value: Any) -> Any:
    match value:
        case str():
            return _shapeless(value)
        case Mapping():
            return {_shapeless(str(key)): _member(str(key), one) for key, one in value.items()}
        case list() | tuple():
            return [_cleaned(one) for one in value]
        case _:
            return value


def _member(key: str, value: Any) -> Any:
    if isinstance(value, str) and value and key not in _OWN and _SECRET_KEY.search(key):
        return REMOVED
    return _cleaned(value)


def private_words(job: Mapping[str, Any]) -> list[str]:
    """Return the words of a job that are private wherever they stand: values of variables, arguments."""
    spec = job.get("spec") or {}
    words = [str(value) for value in (spec.get("env") or {}).values()]
    for command in (spec.get("command") or [], (spec.get("checkpoint") or {}).get("command") or []):
        words += [one for one in map(str, command[1:]) if _looks_private(one)]
    return words


def without_private(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job without the values of its environment and the arguments of its commands."""
    spec = dict(job.get("spec") or {})
    if spec.get("env"):
        spec["env"] = dict.fromkeys(spec["env"], REMOVED)
    if spec.get("command"):
        spec["command"] = _first(spec["command"])
    if (spec.get("checkpoint") or {}).get("command"):
        spec["checkpoint"] = {**spec["checkpoint"], "command": _first(spec["checkpoint"]["command"])}
    return {**job, "spec": spec} if spec else dict(job)


def event_without_private(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event of the story without what a hook printed."""
    data = {key: value for key, value in (event.get("data") or {}).items() if key != "output"}
    text = str(event.get("text", ""))
    if event.get("name") == "hook.failed":
        text = text.partition(" failed: ")[0] + " failed"
    return {**event, "text": text, "data": data}


def _first(command: list[str]) -> list[str]:
    more = len(command) - 1
    return [*command[:1], *([f"<{more} removed>"] if more else [])]


def _looks_private(argument: str) -> bool:
    """Whether an argument is looked for elsewhere too: not paths, options without a value, or plain words."""
    return len(argument) >= 12 and not argument.startswith("/")
