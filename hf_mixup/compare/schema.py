"""What a line of a file of results is: every field that anything reads, its type and its range, checked in one place.

`hf_mixup.compare.results` says what the fields mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hf_mixup.compare.grid import Cell
from hf_mixup.compare.packing import MOST_ROWS, unpack
from hf_mixup.errors import cut, quoted

# A check gives the value back, or raises a ValueError that begins with where it stands.
Check = Callable[[Any, str], Any]

BINS = 15
# Sums, squares and figures of numbers up to this stay finite.
_LARGEST = 1e100
_MANY = 10**12
# Means of shares may pass 1 by their rounding.
_ROUNDING = 1e-6
# Of names, which stand in figures. A method is its name, and options that are broken into lines.
_LONGEST_NAME, _LONGEST_METHOD, _LONGEST_WORD = 1000, 10_000, 100


def read_line(line: bytes) -> dict[str, Any]:
    """Read a line of a file of results.

    Args:
        line: JSON.

    Returns:
        The fields that are known, each of the type and in the range that it must have.

    Raises:
        ValueError: the line is damaged, or something else; says in a few words where.
    """
    try:
        record = json.loads(line.decode("utf-8"))
    except RecursionError:
        raise ValueError("brackets are nested too deeply") from None
    except ValueError:
        raise ValueError("it is not JSON") from None
    return _line(record)


# ---- Checks of single values ------------------------------------------------------------------------------------


def _number(low: float = -_LARGEST, high: float = _LARGEST, whole: bool = False, rounding: float = 0.0) -> Check:
    kinds, word = ((int,), "a whole number") if whole else ((int, float), "a number")

    def check(value: Any, where: str) -> Any:
        # Of a comparison with nan nothing is true.
        if isinstance(value, bool) or not isinstance(value, kinds) or not low - rounding <= value <= high + rounding:
            raise ValueError(f"{where} is not {word} from {low:g} to {high:g}")
        return value

    return check


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where} is not a text")
    return value


def _name(longest: int = _LONGEST_NAME) -> Check:
    def check(value: Any, where: str) -> str:
        if not _text(value, where).isprintable() or not 0 < len(value) <= longest:
            raise ValueError(f"{where} is not a name of 1 to {longest} characters that can be shown")
        return value

    return check


def _one_of(*values: str) -> Check:
    def check(value: Any, where: str) -> str:
        if value not in values:
            raise ValueError(f"{where} is not one of {', '.join(values)}")
        return value

    return check


def _optional(check: Check) -> Check:
    return lambda value, where: None if value is None else check(value, where)


def _flag(value: Any, where: str) -> Any:
    """The value of a flag."""
    if value is None or isinstance(value, (bool, str)):
        return value
    return _number()(value, where)


def _method(value: Any, where: str) -> str:
    """Words such as `amplify:alpha=0.4`."""
    name, *pairs = _name(_LONGEST_METHOD)(value, where).split(":")
    _name(_LONGEST_WORD)(name, f"the method of {where}")
    for pair in pairs:
        if pair.startswith("alpha="):
            try:
                alpha = float(pair.removeprefix("alpha="))
            except ValueError:
                alpha = math.nan
            _number(1 / _LARGEST)(alpha, f"the alpha of {where}")
    return value


# ---- Checks of what holds values --------------------------------------------------------------------------------


def _object(value: Any, where: str, needed: Iterable[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where or 'it'} is not an object")
    for name in needed:
        if name not in value:
            raise ValueError(f"{_at(where, name)} is missing")
    return value


def _fields(needed: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object with these fields; others are left out."""
    checks = {**needed, **(optional or {})}

    def check(value: Any, where: str) -> dict[str, Any]:
        entries = _object(value, where, needed).items()
        return {name: checks[name](entry, _at(where, name)) for name, entry in entries if name in checks}

    return check


def _mapping(check_entry: Check, names: Mapping[str, Check] | None = None, needed: Sequence[str] = ()) -> Check:
    """An object with any names; those in `names` have checks of their own, those of `needed` must be there."""
    own = names or {}

    def check(value: Any, where: str) -> dict[str, Any]:
        entries = _object(value, where, needed).items()
        return {name: own.get(name, check_entry)(entry, _at(where, name)) for name, entry in entries}

    return check


def _list(check_entry: Check, length: int | None = None) -> Check:
    def check(value: Any, where: str) -> list[Any]:
        if not isinstance(value, list) or length not in (None, len(value)):
            raise ValueError(f"{where} is not a list" + ("" if length is None else f" of {length}"))
        return [check_entry(entry, f"{where}[{place}]") for place, entry in enumerate(value)]

    return check


def _at(where: str, name: str) -> str:
    shown = name if name.isidentifier() and name.isascii() else quoted(name)
    return f"{where}.{cut(shown)}" if where else cut(shown)


# ---- The line ---------------------------------------------------------------------------------------------------

_SHARE = _number(0, 1, rounding=_ROUNDING)
_CORRELATION = _number(-1, 1, rounding=_ROUNDING)
_POSITIVE = _number(0)
_COUNT = _number(0, _MANY, whole=True)
_SCALAR = _optional(_number())
_METRICS = {
    **dict.fromkeys(("accuracy", "f1", "f1_macro"), _optional(_SHARE)),
    **dict.fromkeys(("pearson", "spearmanr", "matthews_correlation"), _optional(_CORRELATION)),
    **dict.fromkeys(("mse", "loss"), _optional(_POSITIVE)),
}
_SHARES = ("worst_class_accuracy", "clean_rows_accuracy", "flipped_rows_accuracy", "flipped_rows_memorized")
_SHARES += tuple(f"ood_{kind}_{score}" for kind in ("auroc", "fpr95") for score in ("probability", "energy"))
_SHARES += tuple(f"{name}{suffix}" for name in ("ece", "ace") for suffix in ("", "_scaled"))
_MEASURES = {
    **dict.fromkeys(_SHARES, _optional(_SHARE)),
    **dict.fromkeys(("brier", "brier_scaled"), _optional(_number(0, 2, rounding=_ROUNDING))),
    **dict.fromkeys(("nll", "nll_scaled", "temperature"), _optional(_POSITIVE)),
}
_CELL = _fields(
    {
        **dict.fromkeys(("task", "model", "size"), _name()),
        "noise": _number(0, 1),
        "method": _method,
        "seed": _number(0, 2**32 - 1, whole=True),
    }
)
_READING = dict.fromkeys(("text_column_names", "label_column_name", "task_name", "validation_split"), _flag)
_HEAD = {
    "key": _text,
    "kind": _one_of("run", "tuning"),
    "cell": _CELL,
    "data": _text,
    "options": _mapping(_flag),
    "tune": _COUNT,
    "status": _one_of("done", "failed"),
    "seconds": _number(0, _MANY),
    "machine": _text,
    "versions": _mapping(_text),
}
_HEAD_OPTIONAL = {"weights": _text, "reading": _fields({}, _READING), "method": _method}
_BIN_PARTS = {
    "count": _list(_COUNT, BINS),
    "confidence": _list(_SHARE, BINS),
    "accuracy": _list(_SHARE, BINS),
}


def _point(value: Any, where: str) -> list[Any]:
    """A step and its loss."""
    step, loss = _list(lambda entry, _: entry, 2)(value, where)
    return [_COUNT(step, f"{where}[0]"), _SCALAR(loss, f"{where}[1]")]


_RUN = {
    "rows": _fields(
        {"train": _number(1, _MANY, whole=True), "test": _number(1, MOST_ROWS, whole=True)},
        {"validation": _COUNT, "ood": _COUNT},
    ),
    "metrics": _mapping(_SCALAR, _METRICS),
    "validation": _mapping(_SCALAR, _METRICS, needed=("loss",)),
    # A step that takes no time has no time over another.
    "cost": _fields(
        {"steps": _number(1, _MANY, whole=True), "step_seconds": _number(1e-12, _MANY)},
        {"peak_memory_mib": _optional(_number(0, _MANY))},
    ),
    "loss": _list(_point),
    "test": _fields({"labels": _text, "predictions": _text}),
}
_RUN_OPTIONAL = {
    "tuned": _mapping(_flag),
    "wrong_train_labels": _optional(_COUNT),
    "measures": _mapping(_SCALAR, _MEASURES, needed=("temperature",)),
    "reliability": _fields({}, dict.fromkeys(("raw", "scaled"), _fields(_BIN_PARTS))),
}
# The flags of a tuning are trained with: no others than those that are searched.
_FLAGS = _fields({}, dict.fromkeys(("learning_rate", "mixup_alpha", "mixup_layers"), _flag))
_TRIAL = _fields({"flags": _FLAGS, "value": _SCALAR, "state": _one_of("COMPLETE", "PRUNED", "FAIL")})
_TUNING = {"best": _FLAGS, "trials": _list(_TRIAL)}


def _line(record: Any) -> dict[str, Any]:
    head = _fields(_HEAD, _HEAD_OPTIONAL)(record, "")
    cell = Cell(**head["cell"])
    if head["key"] != (cell.key if head["kind"] == "run" else f"tuning {cell.key}"):
        raise ValueError("key is not that of its cell")
    if "method" in head:
        _check_method(head["method"], head["options"])
    if head["status"] == "failed":
        return {**head, **_fields({"error": _text})(record, "")}
    if head["kind"] == "tuning":
        found = _fields(_TUNING)(record, "")
        if not any(trial["state"] == "COMPLETE" and trial["value"] is not None for trial in found["trials"]):
            raise ValueError("no trial of it is complete")
        return {**head, **found}
    found = _fields(_RUN, _RUN_OPTIONAL)(record, "")
    for name in ("metrics", "validation"):
        if not {"accuracy", "matthews_correlation", "pearson"} & found[name].keys():
            raise ValueError(f"{name} has none of accuracy, matthews_correlation and pearson")
    if (found.get("wrong_train_labels") or 0) > found["rows"]["train"]:
        raise ValueError("wrong_train_labels is more than rows.train")
    _check_test_rows(found)
    return {**head, **found}


def _check_method(words: str, options: Mapping[str, Any]) -> None:
    """A method that was given a name says what it is in the words of its options."""
    method, *pairs = words.split(":")
    flags = {f"{name.removeprefix('mixup_')}={value}" for name, value in options.items()}
    if options.get("mixup_method") != method or not flags.issuperset(pairs):
        raise ValueError("method is not that of its options")


def _check_test_rows(run: Mapping[str, Any]) -> None:
    rows = run["rows"]["test"]
    for name, text in run["test"].items():
        where = f"test.{name}"
        try:
            values = unpack(text, rows)
        except ValueError as error:
            raise ValueError(f"{where} cannot be unpacked ({error})") from error
        if len(values) != rows:
            raise ValueError(f"{where} has {len(values)} rows, and rows.test is {rows}")
        # Scores that are no numbers have no error either.
        if run["metrics"].get("mse") is not None and not np.isfinite(values).all():
            raise ValueError(f"{where} has numbers that are not finite, and mse is one")
