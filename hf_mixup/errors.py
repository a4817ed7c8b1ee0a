"""The one exception for mistakes of the user, the parser of the commands, and the small helpers that word them."""

import argparse
import difflib
from collections.abc import Iterable
from typing import NoReturn

# A value of the user's data is recognized by its beginning; an exception that is quoted may say more.
_VALUE, _QUOTE = 100, 400


class UsageError(ValueError):
    """A mistake in flags, files, labels or folders that the user can mend.

    The message is one sentence that says what was given, what is allowed and how to mend it. The command line prints
    it on stderr and ends with exit code 2; anything else that is raised is a bug and keeps its traceback.
    """


class OneSentenceParser(argparse.ArgumentParser):
    """A parser whose errors are one sentence, without the usage block before it, and exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def at_least_one(text: str) -> int:
    """Read a flag that counts something, as a `type` for the parser."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} should be a whole number of at least 1")
    return int(text)


def install_hint(extra: str) -> str:
    """The command that installs an extra of the project, which no package index has yet.

    Example:
        >>> install_hint("demo")
        'run pip install -e ".[demo]" in the checkout of hf_mixup'
    """
    return f'run pip install -e ".[{extra}]" in the checkout of hf_mixup'


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the entry of `known` that is spelled most like `name`, or None if nothing comes close.

    Example:
        >>> nearest("lable", ["sentence", "label"])
        'label'
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[matches[0]] if matches else None


def cut(text: str, length: int = _VALUE) -> str:
    """Return a text for a message: its beginning and its length, if it has more than `length` characters.

    Example:
        >>> cut("abcdefghij", length=3)
        'abc... (10 characters)'
    """
    return text if len(text) <= length else f"{text[:length]}... ({len(text):,} characters)"


def quoted(value: object) -> str:
    """Return a value of the user's data as Python writes it, cut if it is long.

    Example:
        >>> quoted("refund ")
        "'refund '"
    """
    return cut(repr(value))


def listed(names: Iterable[object], limit: int = 12) -> str:
    """Return the names joined by commas, at most `limit` of them, followed by how many more there are.

    Long names are cut.

    Example:
        >>> listed(["a", "b", "c"], limit=2)
        'a, b and 1 more'
    """
    shown = [cut(str(name)) for name in names]
    text = ", ".join(shown[:limit])
    return text if len(shown) <= limit else f"{text} and {len(shown) - limit} more"


def first_line(error: BaseException) -> str:
    """Return the first non-empty line of an exception's text without its closing stop, to be quoted in a sentence.

    A long one is cut.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return cut(lines[0].rstrip(". "), _QUOTE) if lines else type(error).__name__


def as_one_line(error: BaseException) -> str:
    """Return an exception's whole text on one line, without runs of blanks."""
    return " ".join(str(error).split())
