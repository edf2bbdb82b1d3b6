"""YAML without its surprises: a key given twice is refused, and times and dates stay text."""

import re
from typing import Any

import yaml

from topod.errors import DataError

_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_DATE = "tag:yaml.org,2002:timestamp"
# YAML 1.1 reads 1:30:00 as a number in base 60 and 010 as 8; nobody who writes a job file means that.
_PLAIN_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_PLAIN_FLOAT = re.compile(r"[-+]?[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?\Z")


class _Loader(yaml.SafeLoader):
    """`SafeLoader` with plain numbers only, no dates, and no double keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a name must be plain text", key.start_mark
                )
            if key.value in seen and key.value != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)
        return dict(super().construct_mapping(node, deep=deep))


_REPLACED = {_INT: _PLAIN_INT, _FLOAT: _PLAIN_FLOAT}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, _REPLACED.get(tag, pattern)) for tag, pattern in resolvers if tag != _DATE]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_yaml(text: str, source: str) -> object:
    """Return the document in `text`; raises `DataError` with line and column."""
    try:
        # A subclass of SafeLoader: it makes plain values only.
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - see above
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (None, None)
        problem = error.problem or error.context or "damaged"
        raise DataError(f"not YAML: {problem}", source=source, line=line, column=column) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError(f"not YAML: {str(error).splitlines()[0]}", source=source) from None
