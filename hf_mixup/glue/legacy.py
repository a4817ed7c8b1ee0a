"""Flags of old on the command line: each is accepted, rewritten into today's flag, and answered by one line."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from hf_mixup.errors import UsageError
from hf_mixup.trainer.legacy import LEGACY_FLAGS, LegacyFlag

_TRUE = ("yes", "true", "t", "y", "1")
_FALSE = ("no", "false", "f", "n", "0")


def rewrite_legacy_flags(argv: list[str], known: Collection[str]) -> tuple[list[str], list[str]]:
    """Replace flags of old by those of today.

    Both `--flag value` and `--flag=value` are understood, with `_` or `-` in the name.

    Args:
        argv: the command line without the program's name.
        known: the flags with dashes that the installed transformers takes; these are left alone.

    Returns:
        The new command line, and one notice for each flag of old that was met.

    Raises:
        UsageError: if a flag that needs a value stands without one.

    Example:
        >>> rewrite_legacy_flags(["--warmup_ratio", "0.1"], known=["--warmup_steps"])[0]
        ['--warmup_steps=0.1']
    """
    rewritten: list[str] = []
    notices: list[str] = []
    rest = deque(argv)
    while rest:
        token = rest.popleft()
        name, has_value, value = token.partition("=")
        legacy = LEGACY_FLAGS.get(name[2:].replace("-", "_")) if name.startswith("--") else None
        if legacy is None or name in known:
            rewritten.append(token)
            continue
        given = value if has_value else _take_value(legacy, rest)
        notices.append(f"--{legacy.name} {legacy.notice}.")
        rewritten.extend(_tokens(legacy, given))
    return rewritten, notices


def _take_value(legacy: LegacyFlag, rest: deque[str]) -> str | None:
    """Take the flag's value off the command line, if it has one there."""
    if rest and legacy.switch:
        return rest.popleft() if rest[0].lower() in _TRUE + _FALSE else None
    if rest and not rest[0].startswith("--"):
        return rest.popleft()
    # The old --use_auth_token may stand alone: the token of the login is used then, as always.
    if legacy.switch or legacy.name == "use_auth_token":
        return None
    raise UsageError(f"--{legacy.name} needs a value and got none")


def _tokens(legacy: LegacyFlag, given: str | None) -> list[str]:
    if legacy.now is None:
        return []
    if legacy.switch:
        word = "false" if given is not None and given.lower() in _FALSE else "true"
        return [f"--{legacy.now}={legacy.values[word]}"] if word in legacy.values else []
    if legacy.name == "use_auth_token" and (given is None or given.lower() in _TRUE + _FALSE):
        return []
    return [f"--{legacy.now}={given}"]
