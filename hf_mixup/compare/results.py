"""The file of results: one JSON object a line, added as each run ends.

A line is a run (`kind` is `run`) or the tuning of a method (`kind` is `tuning`). Every line has

- `key`: names it; a later line takes the place of an earlier one of the same key (a failed run that was tried again);
- `cell`: `task`, `model`, `size`, `noise`, `method`, `seed`, as in `hf_mixup.compare.grid.Cell`;
- `data`: the fingerprint of the task's files;
- `weights`: that of the model's folder, or its name on the Hub;
- `reading`: what the task says of its files: columns, GLUE task, share of the validation rows;
- `method`: the method with its options, where that of `cell` is a name that was given to it;
- `options`: the flags of the run, without files, model and seed;
- `tune`: the number of trials that the method had (0: none);
- `status`: `done` or `failed`; after `failed` comes `error`, one sentence, and nothing of what follows;
- `seconds`: how long all of it took; `machine` and `versions`.

A run has besides

- `tuned`: the flags that its tuning found, which go before those of `options`;
- `rows`: the number of rows of `train`, `validation`, `test` (and `ood`);
- `wrong_train_labels`: how many of the train labels are wrong, those that the file has and those that were made; null
  where that is not known;
- `metrics`: the task's metrics on the test rows (`accuracy`, `f1_macro`, ...);
- `validation`: the same on the validation rows, with their `loss`;
- `measures`: of the test rows `nll`, `brier`, `ece`, `ace` (adaptive), each also with `_scaled` behind it: after
  temperature scaling on the validation rows; `temperature` (these are null where all validation rows are right, which
  no temperature fits best); `worst_class_accuracy`. Where wrong train labels are
  known: `clean_rows_accuracy`, of the train rows with a right label; `flipped_rows_accuracy`, of the others against
  their true class; `flipped_rows_memorized`, against the wrong one. Where there is an OOD file:
  `ood_auroc_probability`, `ood_fpr95_probability`, `ood_auroc_energy`, `ood_fpr95_energy`. Runs with scores for labels
  have no measures;
- `cost`: `steps`; `step_seconds`, the training time by its steps; `peak_memory_mib`, that of the GPU, or of the whole
  process on Linux, else null;
- `loss`: the training loss as `[step, loss]` pairs;
- `reliability`: under `raw` and `scaled`, for each of 15 bins `count`, `confidence` and `accuracy`;
- `test`: `labels` and `predictions` of the test rows, to be read with `hf_mixup.compare.packing.unpack`: class ids, or
  scores.

A number that does not exist (the correlation with a constant) is null. A tuning has `best`, the flags that it found,
and `trials`: for each its `flags`, `value` (of `primary_metric` on the validation rows) and `state`: `COMPLETE`,
`PRUNED` after the first part of the training, or `FAIL`.

`hf_mixup.compare.schema` has the type and the range of every field; a line that is otherwise is damaged.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hf_mixup.compare.grid import Cell, Grid, method_words
from hf_mixup.compare.schema import read_line
from hf_mixup.errors import UsageError, listed
from hf_mixup.files import alone, check_writable
from hf_mixup.shown import visible

_START = b'{"key": '
_WORDS = {
    "data": "the content of the files, or how they are read (columns, validation_split),",
    "tune": "the number of trials",
    "options": "an option",
    "weights": "the content of the model",
}


class Results:
    """A file of results that is read, and added to.

    Args:
        path: the file; it need not exist.

    Attributes:
        lines: the content by key, without the lines that are damaged.
        damaged: what is wrong with these, by their numbers, from 1. They stay in the file as they are, and what they
            stood for is not there.

    Raises:
        UsageError: the file is a folder, cannot be read, or has no whole line of results.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        # A device may have no end.
        if self.path.exists() and not (self.path.is_file() or self.path.is_dir()):
            raise UsageError(f"{path} is no file; give another one")
        try:
            text = self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise UsageError(f"{path} cannot be read ({error.strerror}); give another file") from error
        # Behind the last line end stands a line that was cut off when its writer was killed, or a whole one.
        whole = text.rfind(b"\n") + 1
        self._length, self._whole, self._before_next = len(text), whole, b""
        if _is_json(text[whole:]):
            self._whole, self._before_next = len(text), b"\n"
        elif not whole and not _START.startswith(text[: len(_START)]):
            raise UsageError(f"{path} is no file of results; give another file")
        self.lines: dict[str, dict[str, Any]] = {}
        self.damaged: dict[int, str] = {}
        for number, line in enumerate(text[: self._whole].splitlines(), start=1):
            try:
                record = read_line(line)
                self.lines[record["key"]] = record
            except ValueError as error:
                self.damaged[number] = str(error)
        if self.damaged and not self.lines:
            number, fault = next(iter(self.damaged.items()))
            raise UsageError(f"{path} is no file of results (line {number}: {fault}); give another file")

    def warn(self, command: str) -> None:
        """Name the damaged lines on stderr, in a sentence that begins with the command."""
        if self.damaged:
            which = listed(f"line {number} ({fault})" for number, fault in self.damaged.items())
            sys.stderr.write(f"{command}: {visible(self.path)} has damaged lines, which are left out: {which}\n")

    def check_grid(self, grid: Grid, retry: bool = False) -> None:
        """Check that lines can be added, and are of this grid, or of one with other axes that shares data and options.

        Args:
            grid: what is to be run.
            retry: whether runs that failed are made again; their options may then be others.

        Raises:
            UsageError: if not.
        """
        check_writable(self.path.parent, f"--output {self.path}")
        if self.path.exists() and not os.access(self.path, os.W_OK):
            raise UsageError(f"--output {self.path} cannot be written (no permission); give another file")
        tasks = {line["cell"]["task"] for line in self.lines.values()}
        if tasks and not tasks & set(grid.tasks):
            raise UsageError(
                f"--output {self.path} holds the results of another grid, on {listed(sorted(tasks))}; "
                "give another file"
            )
        for line in self.lines.values():
            name = line["cell"]["method"]
            words = words_of(line)
            if name in grid.methods and method_words(grid.methods[name]) != words:
                raise UsageError(
                    f"--output {self.path} has another method called {name}, which is {words} there; give one of them "
                    "another name, or another file"
                )
            task = grid.tasks.get(line["cell"]["task"])
            if task is None or (retry and line["status"] == "failed"):
                continue
            cell = Cell(**line["cell"])
            now = {"data": task.fingerprint, "tune": grid.tune}
            if cell.method in grid.methods:
                now["options"] = jsonable(grid.run_options(cell))
            if cell.model in grid.models:
                now["weights"] = grid.weights(cell.model)
            changed = [name for name, value in now.items() if line.get(name) != value]
            if changed:
                raise UsageError(
                    f"--output {self.path} holds the results of another grid: {_WORDS[changed[0]]} of {line['key']} "
                    "was another; give another file"
                )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process adds to the file inside.

        Raises:
            UsageError: one does already, or the lock file cannot be made.
        """
        lock = self.path.with_name(f"{self.path.name}.lock")
        busy = f"another command writes to --output {self.path}; wait until it ends, or give another file"
        with alone(lock, busy):
            yield

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a line, and wait until it is on the disk.

        Raises:
            UsageError: the disk is full, or the file cannot be written for another reason.
        """
        line = json.dumps(jsonable(record), allow_nan=False)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # A line that was cut off, and only that: what others have added since then stays.
            if self._whole < self._length == self.path.stat().st_size:
                os.truncate(self.path, self._whole)
            with open(self.path, "ab") as file:
                file.write(self._before_next + line.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UsageError(
                f"--output {self.path} cannot be written ({error.strerror}); mend that, and the same command goes on"
            ) from error
        self._whole, self._before_next = self._length, b""
        self.lines[record["key"]] = json.loads(line)

    def runs(self) -> list[dict[str, Any]]:
        """The runs that ended well."""
        return [line for line in self.lines.values() if line["kind"] == "run" and line["status"] == "done"]


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    except RecursionError:
        # Too deep to be read, and not cut off.
        return True
    return True


def words_of(line: Mapping[str, Any]) -> str:
    """The method of a line with its options, whatever it is called."""
    return line.get("method", line["cell"]["method"])


def primary_metric(metrics: Mapping[str, Any]) -> str:
    """The name of the metric that a task is judged by: of all of these, more is better.

    Example:
        >>> primary_metric({"loss": 0.5, "f1_macro": 0.7, "accuracy": 0.8})
        'accuracy'
    """
    return next(name for name in ("accuracy", "matthews_correlation", "pearson") if name in metrics)


def jsonable(value: Any) -> Any:
    """The value as JSON has it: numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(name): jsonable(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(entry) for entry in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
