"""The one exception for mistakes of the user, the parser of the commands, and the small helpers that word them."""

import argparse
import difflib
import errno
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from hf_mixup.shown import is_secret, visible

# What the generators of numpy take.
LARGEST_SEED = 2**32 - 1
# A value of the user's data is recognized by its beginning; an exception that is quoted may say more.
_VALUE, _QUOTE = 100, 400
# What the system says of a path that was given, wherever it is first looked at.
_OF_PATHS = {errno.ENAMETOOLONG: "its name is too long", errno.EACCES: "no permission"}


class UsageError(ValueError):
    """A mistake in flags, files, labels or folders that the user can mend.

    The message is one sentence that says what was given, what is allowed and how to mend it. The command line prints
    it on stderr and ends with exit code 2; anything else that is raised is a bug and keeps its traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


class _WholeWords(argparse.HelpFormatter):
    """Help that breaks no line within a name such as `amplify-code` or an address."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False, break_long_words=False)


class OneSentenceParser(argparse.ArgumentParser):
    """A parser whose errors are one sentence, without the usage block before it, and exit code 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": _WholeWords, **options})

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """As argparse does, but what stands after a flag that is not known is not repeated."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(unknown_words(unknown, self._option_string_actions))
        return options

    def error(self, message: str) -> NoReturn:
        """End with the sentence."""
        self.exit(2, f"{self.prog}: {visible(without_unknown_value(message))}\n")


def unknown_words(words: Sequence[str], flags: Iterable[str]) -> str:
    """Say which flag of a command line is not known, without what was given for it, which may be an access token.

    Args:
        words: what is left of the command line.
        flags: the flags that are known.

    Example:
        >>> unknown_words(["--lables", "a"], ["--labels"])
        'unknown flag --lables; did you mean --labels?'
    """
    given = next((word.partition("=")[0] for word in words if word.startswith("-")), None)
    if given is None:
        return "the command line has a word that belongs to no flag: every value needs its --flag before it"
    if is_secret(given):
        return f"unknown flag {given}; the access token is that of HF_TOKEN, or of hf auth login"
    guess = nearest(given, flags)
    return f"unknown flag {cut(given)}" + (f"; did you mean {guess}?" if guess else "; --help lists all flags")


def without_unknown_value(message: str) -> str:
    """Return a complaint of argparse about the beginning of several flags without the value that was given with it.

    Example:
        >>> without_unknown_value("ambiguous option: --tok=hf_abc could match --token, --tokenizer_name")
        'ambiguous option: --tok could match --token, --tokenizer_name'
    """
    return re.sub(r"(?s)^(ambiguous option: [^=]*)=.* could match ", r"\1 could match ", message)


def whole_number(text: str) -> int | None:
    """Read a whole number that stands on a command line or in a file of settings.

    Returns:
        None for anything else, for digits such as ², and for more than 18 digits, which no option takes and of which
        Python reads 4,300 at most.

    Example:
        >>> whole_number(" 12"), whole_number("²"), whole_number("1.0")
        (12, None, None)
    """
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()) else None


def whole_from(lowest: int, highest: int) -> Callable[[str], int]:
    """Read a flag that counts something, as a `type` for the parser.

    Example:
        >>> whole_from(1, 256)("8")
        8
    """

    def read(text: str) -> int:
        value = whole_number(text)
        if value is None or not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(
                f"{quoted(text)} should be a whole number of at least {lowest} and at most {highest}"
            )
        return value

    return read


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


def repeated(names: Iterable[str]) -> str | None:
    """Return the first name that occurs a second time, or None.

    Example:
        >>> repeated(["text", "label", "text"])
        'text'
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def cut(text: str, length: int = _VALUE) -> str:
    """Return a text for a message as `visible` shows it: its beginning and its length, if that is above `length`.

    Example:
        >>> cut("abcdefghij", length=3)
        'abc... (10 characters)'
    """
    # What is cut off need not be looked at.
    return visible(text) if len(text) <= length else f"{visible(text[:length])}... ({len(text):,} characters)"


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


def path_sentence(error: BaseException) -> str | None:
    """Say which path cannot be used, and why.

    Returns:
        One sentence, or None if the error is about something else.

    Example:
        >>> path_sentence(PermissionError(errno.EACCES, "Permission denied", "models/mine"))
        'models/mine cannot be read or written (no permission); give another path'
    """
    if not isinstance(error, OSError) or error.filename is None or error.errno not in _OF_PATHS:
        return None
    return f"{cut(str(error.filename))} cannot be read or written ({_OF_PATHS[error.errno]}); give another path"


def as_one_line(error: BaseException) -> str:
    """Return an exception's whole text on one line, as `visible` shows it, without runs of blanks."""
    return visible(" ".join(str(error).split()))
