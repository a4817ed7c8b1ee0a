"""The files of settings that users write, YAML or JSON: read in one place, and bounded before they become text."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import yaml

from hf_mixup.errors import UsageError, cut, first_line

# Far more than a person writes, and far less than fills a memory.
_MOST_BYTES = 2**20
_MOST_VALUES, _MOST_LEVELS = 10_000, 20
# Python reads no whole number of more than 4,300 digits, and takes a while for one in base 60.
_LONGEST_NUMBER = 100
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_SCALARS = (str, int, float, date)
_FLAT = "settings are flat values, such as seed: 1, or lists of them"


def read_settings(path: str, what: str) -> dict[Any, Any]:
    """Read a mapping from a YAML file, or from a JSON file if the name ends in `.json`.

    What an anchor names counts as often as it is used, so that a small file cannot stand for a large one.

    Args:
        path: the file.
        what: what sentences call it, such as `grid file`.

    Raises:
        UsageError: the file cannot be read, is not valid, holds something else than a mapping, or holds too much.

    Example:
        >>> read_settings("grid.yaml", "grid file")  # doctest: +SKIP
        {'tasks': ['data/trec'], 'methods': ['none', 'amplify']}
    """
    is_json, named = path.lower().endswith(".json"), f"the {what} {cut(path)}"
    with _faults_told(named, "JSON" if is_json else "YAML"):
        text = _text(path, named)
        content = _from_json(text) if is_json else _from_yaml(text)
    if not isinstance(content, dict):
        raise UsageError(f"{named} should hold one mapping of names to values, such as seed: 1")
    return content


def check_mapping(text: str) -> str:
    """Check the value of a flag that takes a mapping: a JSON object, or the path of a file that holds one.

    Returns:
        The same text. That of a path which is no file may mean something else, and is not looked at.

    Raises:
        UsageError: it is not valid, or holds too much.

    Example:
        >>> check_mapping('{"split_batches": true}')
        '{"split_batches": true}'
    """
    if not text.startswith("{"):
        if os.path.isfile(text):
            read_settings(text, "file")
        return text
    with _faults_told(cut(text), "JSON"):
        _from_json(text)
    return text


def option_text(value: Any, name: str, mapping: bool = False) -> str:
    """The value of an option as the word that says the same on a command line.

    Args:
        value: a text, a number, true or false, a date, or a list of these, which becomes words with commas.
        name: what the sentence calls the option.
        mapping: whether the option takes a mapping too, which becomes JSON.

    Raises:
        UsageError: something else.

    Example:
        >>> option_text([4, 8], "mixup_layers"), option_text(True, "fp16")
        ('4,8', 'true')
    """
    if isinstance(value, dict) and mapping:
        return json.dumps(value, default=str)
    entries = value if isinstance(value, (list, tuple)) else [value]
    if all(isinstance(entry, _SCALARS) for entry in entries):
        # A command line cannot hold it, and no path may.
        if any("\0" in entry for entry in entries if isinstance(entry, str)):
            raise UsageError(f"{name} has the character \\x00, which no setting takes; remove it")
        return ",".join(str(entry).lower() if isinstance(entry, bool) else str(entry) for entry in entries)
    takes = "a value, a list of values or a mapping" if mapping else "a value or a flat list of values"
    raise UsageError(f"{name} should be {takes}, but is {_kind(value)}")


def _kind(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        odd = next((entry for entry in value if not isinstance(entry, _SCALARS)), None)
        return "a list with a list in it" if isinstance(odd, (list, tuple)) else f"a list with {_kind(odd)} in it"
    return {dict: "a mapping", type(None): "an empty value"}.get(type(value), f"a {type(value).__name__}")


# ---- Reading ----------------------------------------------------------------------------------------------------

# What PyYAML raises for a value that does not fit the tag before it, such as !!bool perhaps.
_MALFORMED = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError, yaml.YAMLError)


class _TooMuch(Exception):
    """A file that holds more than settings are."""


@contextmanager
def _faults_told(named: str, kind: str) -> Iterator[None]:
    """Make a `UsageError` of what keeps a text from being read as JSON or YAML.

    Args:
        named: what the sentence calls the text.
        kind: `JSON` or `YAML`.
    """
    try:
        yield
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"{named} cannot be read: {error.strerror or first_line(error)}") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{named} is not valid {kind}: it is not UTF-8 text; save it with the encoding UTF-8"
        ) from error
    except _TooMuch as error:
        raise UsageError(f"{named} {error}") from error
    except RecursionError as error:
        raise UsageError(f"{named} is nested too deeply; {_FLAT}") from error
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UsageError(f"{named} is not valid {kind}: {error.problem}{where}") from error
    except _MALFORMED as error:
        raise UsageError(f"{named} is not valid {kind}: {first_line(error)}") from error


def _text(path: str, named: str) -> str:
    with open(path, "rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise UsageError(f"{named} has more than {_MOST_BYTES:,} bytes, which no settings need")
    return content.decode("utf-8-sig")


def _from_json(text: str) -> Any:
    content = json.loads(text, parse_int=lambda digits: int(_checked_number(digits)))
    _check_size(content, _children_in_json)
    return content


class _Loader(yaml.SafeLoader):
    """Stops at what is too long or too deep, and not only at the end of it."""

    count = level = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        self.count, self.level = self.count + 1, self.level + 1
        _check_bounds(self.count, self.level)
        node = super().compose_node(parent, index)
        self.level -= 1
        return node


def _from_yaml(text: str) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        # Before it is constructed: merged keys (<<) would multiply there.
        _check_size(node, _children_in_yaml)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _children_in_json(content: Any) -> Iterable[Any]:
    return content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()


def _children_in_yaml(node: yaml.Node) -> Iterable[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    if isinstance(node, yaml.SequenceNode):
        return node.value
    if node.tag in _NUMBERS:
        _checked_number(node.value)
    return ()


def _check_size(content: Any, children: Callable[[Any], Iterable[Any]]) -> None:
    """Walk through all values, an anchor's as often as they are used, until they are too many."""
    count, ahead = 0, [(content, 1)]
    while ahead:
        value, level = ahead.pop()
        count += 1
        _check_bounds(count, level)
        ahead += ((each, level + 1) for each in children(value))


def _check_bounds(count: int, level: int) -> None:
    if count > _MOST_VALUES:
        raise _TooMuch(f"holds more than {_MOST_VALUES:,} values, anchors counted where they are used; {_FLAT}")
    if level > _MOST_LEVELS:
        raise _TooMuch(f"is nested in more than {_MOST_LEVELS} levels; {_FLAT}")


def _checked_number(text: str) -> str:
    if len(text) > _LONGEST_NUMBER:
        raise _TooMuch(f"has the number {cut(text, 20)}; no setting takes one of more than {_LONGEST_NUMBER} digits")
    return text
