"""What may be shown, and how: no access token, and no character that does more than be seen.

Names, labels, texts, paths and options come from files and command lines of other people. What is written to a
terminal, a log, a page, a model card or a table goes through a function of this module.
"""

from __future__ import annotations

import json
import logging
import os
import re
import unicodedata
from collections.abc import Sequence

# The options that hold an access token: in the script, in options of compare and suggest, in cards and reports.
SECRET_FIELDS = frozenset({"token", "hub_token", "use_auth_token", "push_to_hub_token"})
# The tokens of the Hub have 34 characters after their mark; names that begin like one are shorter.
_TOKEN = re.compile(r"(hf|api_org)_[A-Za-z0-9]{30,}")
_MASKED = "$HF_TOKEN"
# Joiners belong to the spelling of several languages, and to emoji.
_JOINERS = "\u200c\u200d"
# Control, format (as marks of direction), half of a pair, ends of lines and paragraphs.
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
# What switches colours on and off in a terminal.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# What spreadsheets take for the beginning of a formula, some of them after blanks too.
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠].")


# ---- Texts ----


def visible(value: object) -> str:
    """Return a value as text in which every character can be seen, and no access token of the Hub.

    Control characters, escape sequences of terminals, ends of lines, marks that change the direction of writing and
    halves of surrogate pairs become the escapes of Python, such as `\\\\x1b` and `\\\\u202e`.

    Example:
        >>> print(visible("refund\\x1b[2J"))
        refund\\x1b[2J
    """
    text = _TOKEN.sub(_MASKED, str(value))
    return text if text.isprintable() else "".join(map(_seen, text))


def _seen(character: str) -> str:
    unseen = unicodedata.category(character) in _UNSEEN and character not in _JOINERS
    return character.encode("unicode_escape").decode() if unseen else character


def visible_lines(text: str) -> str:
    """Return a text of several lines with each line as `visible` shows it.

    Example:
        >>> visible_lines("a: 1\\n\\x1bb: 2").splitlines()
        ['a: 1', '\\\\x1bb: 2']
    """
    return "\n".join(map(visible, text.split("\n")))


class LogFormatter(logging.Formatter):
    """A formatter whose messages show every character, and take their further lines in.

    So no text within a message can pass for a message of its own.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Format the message without its traceback."""
        # transformers has messages with colours and tabs.
        text = _COLOUR.sub("", super().formatMessage(record)).expandtabs(4)
        return visible_lines(text).replace("\n", "\n    ")


# ---- Markdown and code ----


def markdown(value: object) -> str:
    """Return a text that Markdown shows unchanged, on one line.

    Example:
        >>> markdown("a*b_c <d>")
        'a\\\\*b_c \\\\<d\\\\>'
    """
    # Between two letters or digits `_` has no meaning in Markdown.
    return re.sub(r"[\\`*\[\]<>|#&~$]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", visible(value))


def code_span(value: object) -> str:
    """Return a text as code within a line of Markdown, fenced so that no back quote in it ends the code.

    Example:
        >>> code_span("a`b")
        '`` a`b ``'
    """
    text = visible(value)
    longest = _longest_run(text)
    fence = "`" * (longest + 1)
    # Blanks at both ends are taken away by Markdown where there are any, and an empty span would be none.
    return f"{fence} {text} {fence}" if longest or text != text.strip() or not text else f"`{text}`"


def code_block(text: str, language: str) -> str:
    """Return a text as a block of code in Markdown, fenced so that no line in it ends the block.

    Example:
        >>> code_block("ls", "bash").splitlines()
        ['```bash', 'ls', '```']
    """
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{visible_lines(text)}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def python_string(value: object) -> str:
    """Return a text as a string of Python in double quotes.

    Example:
        >>> python_string("runs/a")
        '"runs/a"'
    """
    return visible(json.dumps(str(value), ensure_ascii=False))


# ---- Files that spreadsheets open ----


def without_formula(text: str) -> str:
    """Return a text that no spreadsheet runs as a formula: with an apostrophe before it, if it looks like one.

    Spreadsheets do not show the apostrophe. Numbers stay as they are.

    Example:
        >>> print(*map(without_formula, ["refund", "=1+1", "-1.5"]))
        refund '=1+1 -1.5
    """
    return f"'{text}" if _FORMULA.match(text) and not _is_number(text) else text


def field_of_file(text: str, delimiter: str = "\t") -> str:
    """Return a text as a field of a file of rows, as the csv module and pandas read it, and safe in a spreadsheet.

    A text with the delimiter or an end of a line, or with `"` at its beginning, is quoted, and `without_formula` is
    applied.

    Example:
        >>> print(*map(field_of_file, ["refund", '"so-so"', "=1+1", "-1.5"]))
        refund \"\"\"so-so\"\"\" '=1+1 -1.5
    """
    text = without_formula(text)
    if any(each in text for each in (delimiter, "\n", "\r")) or text.startswith('"'):
        text = '"' + text.replace('"', '""') + '"'
    return text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# ---- Paths ----


def without_folders(words: Sequence[str]) -> list[str]:
    """Return a command line without absolute paths, which tell strangers how a machine is set up and serve nobody.

    A path below the working folder becomes relative to it; of any other one the last part is left.

    Example:
        >>> without_folders(["--train_file", "/home/me/data/train.csv", "--output_dir=/tmp/out", "--seed", "1"])
        ['--train_file', 'train.csv', '--output_dir=out', '--seed', '1']
    """
    return [_QUOTED_PATH.sub(lambda found: _short(found[0]), _short_value(word)) for word in words]


# A path in a value that is JSON.
_QUOTED_PATH = re.compile(r'(?<=")(/|[A-Za-z]:[\\/])[^"]*(?=")')


def _short_value(word: str) -> str:
    flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return flag + equals + ",".join(map(_short, value.split(",")))


def _short(path: str) -> str:
    if not os.path.isabs(path):
        return path
    below = os.path.relpath(path)
    return os.path.basename(os.path.normpath(path)) if below.startswith(os.pardir) else below


# ---- Access tokens ----


def is_secret(name: str) -> bool:
    """Whether an option holds an access token; `-` and `_` are the same in its name.

    Example:
        >>> is_secret("--hub-token"), is_secret("hub_model_id")
        (True, False)
    """
    return name.lstrip("-").replace("-", "_").lower() in SECRET_FIELDS


def without_tokens(words: Sequence[str], secrets: Sequence[str | None] = ()) -> list[str]:
    """Return a command line in which every access token reads `$HF_TOKEN`.

    Args:
        words: the command line.
        secrets: the tokens that were given in it; the one of the login is known.

    Example:
        >>> without_tokens(["--hub_token", "hf_abc", "--token=hf_def"])
        ['--hub_token', '$HF_TOKEN', '--token=$HF_TOKEN']
    """
    from huggingface_hub import get_token

    known = {secret for secret in (*secrets, get_token()) if secret}
    masked = []
    for word, before in zip(words, ["", *words], strict=False):
        flag, _, value = word.partition("=")
        if word in known or (before.startswith("--") and is_secret(before)):
            masked.append(_MASKED)
        elif value and (value in known or (flag.startswith("--") and is_secret(flag))):
            masked.append(f"{flag}={_MASKED}")
        else:
            masked.append(_TOKEN.sub(_MASKED, word))
    return masked
