"""From a command line, with or without a file of settings, to the argument dataclasses of the script."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cache
from typing import Any, NoReturn, get_type_hints

from transformers import HfArgumentParser

from hf_mixup.errors import (
    UsageError,
    as_one_line,
    cut,
    listed,
    nearest,
    quoted,
    unknown_words,
    without_unknown_value,
)
from hf_mixup.glue.legacy import LEGACY_FLAGS, rewrite_legacy_flags
from hf_mixup.glue.settings import check_mapping, option_text, read_settings

# The types of the fields of a dataclass, which there are hundreds of.
_types_of = cache(get_type_hints)

_CONFIG_ENDINGS = (".json", ".yaml", ".yml")


def parse_arguments(
    argv: Sequence[str], dataclass_types: Sequence[type], prog: str = "run_glue_mixup.py"
) -> tuple[list[Any], list[str]]:
    """Parse a command line into dataclasses.

    Settings may also stand in a YAML or JSON file, given as `--config FILE` or as the only argument: flat keys that
    are the names of flags. A flag on the command line goes before the same key in the file.

    Args:
        argv: the command line without the program's name.
        dataclass_types: the dataclasses to fill, for example `(ModelArguments, DataTrainingArguments)`.
        prog: what the program is called in its help.

    Returns:
        One object for each dataclass, in their order, and notices about flags that have a new name now.

    Raises:
        UsageError: for anything that is wrong with the flags, in one sentence.
    """
    parser = _Parser(dataclass_types, prog=prog, allow_abbrev=True)
    parser.add_argument("--config", help="A YAML or JSON file of flags; flags on the command line go before it.")
    parser.check_mappings()
    config_paths, argv = _take_config_paths(list(argv))
    known = parser.flags()
    parser.check_lists(argv)
    settings = [token for path in config_paths for token in _config_to_argv(path, parser)]
    argv, notices = rewrite_legacy_flags(settings + argv, known)
    try:
        *parsed, _, unknown = parser.parse_args_into_dataclasses(
            argv, return_remaining_strings=True, look_for_args_file=False
        )
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, ImportError, OSError) as error:
        raise UsageError(as_one_line(error)) from error
    if unknown:
        raise UsageError(unknown_words(unknown, [*known, *(f"--{name}" for name in LEGACY_FLAGS)]))
    return parsed, notices


class _Parser(HfArgumentParser):
    """A parser whose complaints are one sentence and not a page of usage."""

    def error(self, message: str) -> NoReturn:
        # A value may be long, the list of what is allowed too.
        raise UsageError(cut(without_unknown_value(message), 1000))

    def check_mappings(self) -> None:
        """Have the values of flags that take mappings checked where they are read, with the name of the flag."""
        for action in self._actions:
            if action.type is str and self.takes_mapping(action):
                action.type = _kwargs if action.dest.endswith("_kwargs") else _mapping

    def check_lists(self, argv: Sequence[str]) -> None:
        """Refuse a command line with two flags of one list, of which argparse takes the last one."""
        for action in self._actions:
            given = [word for word in argv if word.partition("=")[0] in action.option_strings]
            if action.nargs == "+" and len(given) > 1:
                raise UsageError(f"{action.option_strings[0]} is given twice; give it once, with all values after it")

    def takes_mapping(self, action: argparse.Action) -> bool:
        """Whether the value of a flag may be a mapping."""
        # The types of its fields are those that argparse knows.
        return any("dict" in str(_types_of(each).get(action.dest)) for each in self.dataclass_types)

    def flags(self) -> list[str]:
        """All flags with their dashes."""
        return [flag for action in self._actions for flag in action.option_strings]

    def action_of(self, flag: str) -> argparse.Action | None:
        """What argparse does for a flag."""
        return next((action for action in self._actions if flag in action.option_strings), None)


def _mapping(text: str) -> str:
    try:
        return check_mapping(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _kwargs(text: str) -> str:
    if not text.startswith("{"):
        raise argparse.ArgumentTypeError(f'{quoted(text)} should be a JSON object such as {{"name": 1}}')
    return _mapping(text)


def _take_config_paths(argv: list[str]) -> tuple[list[str], list[str]]:
    if len(argv) == 1 and not argv[0].startswith("-") and argv[0].lower().endswith(_CONFIG_ENDINGS):
        return argv, []
    paths: list[str] = []
    others: list[str] = []
    rest = iter(argv)
    for token in rest:
        if token == "--config":
            path = next(rest, None)
            if path is None:
                raise UsageError("--config needs the path of a YAML or JSON file")
            paths.append(path)
        elif token.startswith("--config="):
            paths.append(token.partition("=")[2])
        else:
            others.append(token)
    return paths, others


def _config_to_argv(path: str, parser: _Parser) -> list[str]:
    """Write the settings of a file as the flags that say the same."""
    if not path.lower().endswith(_CONFIG_ENDINGS):
        raise UsageError(f"the file of settings {path} should end in .yaml, .yml or .json")
    argv: list[str] = []
    for key, value in read_settings(path, "file of settings").items():
        legacy = LEGACY_FLAGS.get(str(key).replace("-", "_"))
        action = parser.action_of(f"--{key}") or (legacy and parser.action_of(f"--{legacy.now}"))
        if key == "config" or (action is None and legacy is None):
            guess = nearest(str(key), [flag[2:] for flag in parser.flags()] + list(LEGACY_FLAGS))
            hint = f"; did you mean {guess}?" if guess else ""
            if isinstance(value, dict):
                hint = "; keys are flat, such as mixup_alpha"
            raise UsageError(f"{path} has the key {cut(str(key))}, which is no flag of this script{hint}")
        if value is not None:
            argv += _flag_tokens(path, key, value, action, parser)
    return argv


def _flag_tokens(path: str, key: str, value: Any, action: argparse.Action | None, parser: _Parser) -> list[str]:
    nargs = None if action is None else action.nargs
    name = f"{key} in {path}"
    if nargs == 0:
        return [f"--{key}"] if value else []
    if value is False and action is not None and "no" in (action.choices or ()):
        # YAML reads a bare `no` as false: `eval_strategy: no` means the strategy called "no".
        return [f"--{key}=no"]
    if isinstance(value, list) and nargs == "+":
        return [f"--{key}", *(option_text(entry, f"an entry of {name}") for entry in value)]
    return [f"--{key}={option_text(value, name, action is not None and parser.takes_mapping(action))}"]


def split_names(text: str | None, flag: str, what: str = "column names") -> tuple[str, ...] | None:
    """Split the comma-separated names of a flag; None stays None.

    Raises:
        UsageError: if a name is empty or stands twice.

    Example:
        >>> split_names("question, answer", "--text_column_names")
        ('question', 'answer')
    """
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) != len(names):
        raise UsageError(f"{flag} {quoted(text)} should be different {what} with commas between them: {listed(names)}")
    return names
