"""What is compared: the grid of tasks, methods, training sizes, label noise, seeds and models, and its cells."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any

from hf_mixup.demo.run import MINILM, model_path
from hf_mixup.errors import UsageError, cut, listed, nearest, repeated, whole_number
from hf_mixup.glue.folders import check_model_folder
from hf_mixup.glue.settings import option_text
from hf_mixup.glue.tables import ENDINGS, check_file
from hf_mixup.methods import METHODS
from hf_mixup.shown import is_secret
from hf_mixup.trainer import MixupTrainingArguments
from run_glue_mixup import DataTrainingArguments, ModelArguments

ARGUMENTS = (ModelArguments, DataTrainingArguments, MixupTrainingArguments)
_FLAGS = {option.name for arguments in ARGUMENTS for option in fields(arguments) if option.init}
_FILES = ("train", "validation", "test", "ood", "clean_train")
_READING = ("text_column_names", "label_column_name", "task_name", "validation_split")
_WEIGHTS = (".json", ".safetensors", ".bin")

_MOST_SEEDS, _MOST_TRIALS, _MOST_CELLS = 1000, 10_000, 100_000
# Of a given name of a method, which stands in the legends of figures.
_LONGEST_NAME = 40
# What every run has unless --options says otherwise: no checkpoints, quiet, and some fifty points of the loss curve.
_DEFAULTS = {
    "pad_to_max_length": False,
    "save_strategy": "no",
    "logging_steps": 0.02,
    "report_to": "none",
    "disable_tqdm": True,
    "log_level": "error",
}
_SET_BY_GRID = {
    *("model_name_or_path", "output_dir", "seed", "mixup_method", "do_train", "do_eval", "do_predict"),
    *("train_file", "validation_file", "test_file", "validation_split", "dataset_name", "dataset_config_name"),
    *("task_name", "text_column_names", "label_column_name", "max_train_samples", "resume_from_checkpoint"),
    *("push_to_hub", "metric_name", "delimiter", "text_column_delimiter", "label_delimiter", "drop_unlabelled"),
    *("extra_labels", "do_regression", "weight_column_name", "train_split_name", "validation_split_name"),
    *("test_split_name", "remove_splits", "remove_columns", "shuffle_train_dataset", "shuffle_seed"),
}


@dataclass(frozen=True)
class Task:
    """A data set with its name in tables.

    Args:
        name: what it is called.
        files: paths by split: `train` and `test`, and, if there are any, `validation`; `ood`, texts of none of the
            classes; `clean_train`, the train texts in the same order with their true labels, where those of `train`
            are known to be partly wrong. Without `validation` a share of the train rows is held out.
        text_column_names: the text columns as `run_glue_mixup.py` takes them.
        label_column_name: the label column.
        task_name: the GLUE task whose columns and metrics the files have.
        validation_split: the share of the train rows that is held out where there is no `validation`.
        options: flags of `run_glue_mixup.py` for this task alone.
    """

    name: str
    files: Mapping[str, str]
    text_column_names: str | None = None
    label_column_name: str | None = None
    task_name: str | None = None
    validation_split: float = 0.1
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """Names the content of the files and how they are read; another content is another task."""
        digest = hashlib.sha256()
        for split, path in sorted(self.files.items()):
            digest.update(split.encode() + hashlib.sha256(Path(path).read_bytes()).digest())
        settings = {name: getattr(self, name) for name in _READING}
        digest.update(json.dumps(settings, sort_keys=True).encode())
        return digest.hexdigest()[:12]

    def reading(self) -> dict[str, Any]:
        """How the files are read, where that is not the default."""
        return {name: getattr(self, name) for name in _READING if getattr(self, name) != getattr(Task, name)}


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Args:
        task: the name of the task.
        model: the name of the model.
        size: how many train rows: `all`, `10%`, `600` (rows) or `8-shot` (rows of each class).
        noise: the share of the train labels that are made wrong.
        method: the method with its options, such as `amplify:alpha=0.4`.
        seed: of the train subset, the held-out rows, the wrong labels, the classifier's first weights and the run.

    Example:
        >>> Cell("trec", "minilm", "all", 0.2, "amplify", 1).key
        'trec minilm all noise=0.2 amplify seed=1'
    """

    task: str
    model: str
    size: str
    noise: float
    method: str
    seed: int

    @property
    def key(self) -> str:
        """Names the cell in files of results."""
        return f"{self.task} {self.model} {self.size} noise={self.noise:g} {self.method} seed={self.seed}"


@dataclass(frozen=True)
class Grid:
    """Everything that is run.

    Args:
        tasks: by name.
        methods: the options of each method, by its name or the words that say it: `{"amplify:alpha=0.4":
            {"mixup_method": "amplify", "mixup_alpha": "0.4"}}`. `none` is one of them.
        sizes, noise, seeds: as in `Cell`.
        models: their folders, or names on the Hub, by name.
        options: flags of `run_glue_mixup.py` for all runs.
        tune: the number of Optuna trials that each method gets before its runs; 0 for none.
    """

    tasks: Mapping[str, Task]
    methods: Mapping[str, Mapping[str, str]]
    sizes: tuple[str, ...] = ("all",)
    noise: tuple[float, ...] = (0.0,)
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    models: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    tune: int = 0

    def cells(self) -> list[Cell]:
        """All cells; the methods of one seed stand together, so that comparisons are complete early."""
        axes = product(self.tasks, self.models, self.sizes, self.noise, self.seeds, self.methods)
        return [Cell(task, model, size, noise, method, seed) for task, model, size, noise, seed, method in axes]

    def weights(self, model: str) -> str:
        """Names the content of a model's folder; a model of the Hub has its name."""
        return _weights(self.models[model])

    def run_options(self, cell: Cell) -> dict[str, str]:
        """The flags of a cell's run without files, model and seed, as the words of a command line.

        Those of the method go before the task's, and the task's before the grid's.
        """
        options = {**_DEFAULTS, **self.options, **self.tasks[cell.task].options, **self.methods[cell.method]}
        return {name: option_text(value, name, mapping=True) for name, value in options.items()}


def make_grid(settings: Mapping[str, Any]) -> Grid:
    """Make a grid of settings as they stand in a grid file or on the command line.

    Args:
        settings: `tasks`: folders, `name=folder`, or mappings with the fields of `Task` (`folder`, `train_file`,
            `validation_file`, `test_file`, `ood_file` and `clean_train_file` in place of `files`); `methods`: names
            with options, such as `amplify:alpha=0.4:layers=4,8`, or `name=amplify:alpha=0.4:layers=4,8` to call it
            otherwise; `sizes`, `noise`, `models` (`minilm`, a folder or `name=folder`): one or a list; `seeds`:
            numbers and ranges such as `1-5`; `options`: a mapping of flags; `tune`: a number.

    Returns:
        The grid. Data and flags of the runs are checked by `hf_mixup.compare.run.check_runs`.

    Raises:
        UsageError: anything that is wrong, in one sentence.

    Example:
        >>> grid = make_grid({"tasks": ["data/trec"], "methods": ["none", "amplify"]})  # doctest: +SKIP
    """
    _check_names(settings, [option.name for option in fields(Grid)], "the grid")
    for axis in ("tasks", "methods"):
        if not settings.get(axis):
            raise UsageError(f"the grid is empty: give --{axis}, at least one")
    tasks = _by_name([_make_task(entry) for entry in _as_list(settings["tasks"])])
    grid = Grid(
        tasks=tasks,
        methods=_make_methods(_as_list(settings["methods"])),
        sizes=tuple(dict.fromkeys(map(_size, _words(settings, "sizes", "all")))),
        noise=tuple(dict.fromkeys(map(_noise, _words(settings, "noise", 0)))),
        seeds=parse_seeds(_words(settings, "seeds", "1-5")),
        models=_make_models(_words(settings, "models", MINILM)),
        options=_checked_options(settings.get("options") or {}, "--options"),
        tune=_tune(settings.get("tune", 0)),
    )
    if "none" not in grid.methods:
        raise UsageError("the methods are compared with plain fine-tuning: add none to --methods")
    if not all((grid.sizes, grid.noise, grid.seeds, grid.models)):
        raise UsageError("the grid is empty: give at least one of sizes, noise, seeds and models")
    axes = (grid.tasks, grid.methods, grid.sizes, grid.noise, grid.seeds, grid.models)
    if math.prod(map(len, axes)) > _MOST_CELLS:
        raise UsageError(
            f"the grid has {math.prod(map(len, axes)):,} runs; give at most {_MOST_CELLS:,}, with shorter lists"
        )
    return grid


def parse_seeds(words: Iterable[Any]) -> tuple[int, ...]:
    """Read seeds and ranges of seeds, in their order and each but once.

    Raises:
        UsageError: one is neither a whole number from 0 and below 2**32 nor a range of these that goes up.

    Example:
        >>> parse_seeds(["1-3", 7])
        (1, 2, 3, 7)
    """
    seeds: list[int] = []
    for word in words:
        match = re.fullmatch(r"([0-9]{1,10})(?:-([0-9]{1,10}))?", str(word).strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < 2**32:
            raise UsageError(
                f"--seeds {cut(str(word))} is no seed and no range of seeds; give numbers such as 7 or 1-5"
            )
        if last - first + len(seeds) >= _MOST_SEEDS:
            raise UsageError(f"--seeds {word} makes more than {_MOST_SEEDS} seeds; give a shorter range")
        seeds += range(first, last + 1)
    return tuple(dict.fromkeys(seeds))


def method_name(words: str) -> tuple[str, str]:
    """What a method is called, and the words that say it: the same, unless a name stands before them.

    Example:
        >>> method_name("amplify:alpha=0.4"), method_name("much=amplify:alpha=0.4")
        (('amplify:alpha=0.4', 'amplify:alpha=0.4'), ('much', 'amplify:alpha=0.4'))
    """
    head, colon, options = words.partition(":")
    name, sign, method = head.partition("=")
    return (name.strip(), f"{method}{colon}{options}") if sign else (words, words)


def method_words(flags: Mapping[str, str]) -> str:
    """The words that say a method with these flags.

    Example:
        >>> method_words({"mixup_method": "amplify", "mixup_alpha": "0.4"})
        'amplify:alpha=0.4'
    """
    options = (f"{name.removeprefix('mixup_')}={value}" for name, value in flags.items() if name != "mixup_method")
    return ":".join([flags["mixup_method"], *options])


def parse_options(words: Iterable[str]) -> dict[str, str]:
    """Read flags as they follow `--options` on a command line.

    Raises:
        UsageError: one has no value.

    Example:
        >>> parse_options(["num_train_epochs=3"])
        {'num_train_epochs': '3'}
    """
    pairs = [word.partition("=") for word in words]
    for name, sign, _ in pairs:
        if not sign:
            raise UsageError(f"--options {name} has no value; write it as num_train_epochs=3")
    return {name: value for name, _, value in pairs}


# ---- Parts of the settings --------------------------------------------------------------------------------------


@cache
def _weights(model: str) -> str:
    if not Path(model).is_dir():
        return model
    digest = hashlib.sha256()
    for path in sorted(path for path in Path(model).iterdir() if path.suffix in _WEIGHTS):
        digest.update(path.name.encode())
        with open(path, "rb") as file:
            for part in iter(lambda: file.read(2**20), b""):
                digest.update(part)
    return digest.hexdigest()[:12]


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _words(settings: Mapping[str, Any], axis: str, default: Any) -> list[Any]:
    """The values of an axis, each of which is one word or number."""
    words = _as_list(settings.get(axis, default))
    for word in words:
        if isinstance(word, (list, tuple, dict)) or word is None:
            raise UsageError(f"{axis} of the grid should be a flat list of values, got {cut(str(word))} in it")
    return words


def _check_names(given: Iterable[Any], known: Sequence[str], what: str) -> None:
    for name in given:
        if name not in known:
            guess = nearest(str(name), known)
            hint = f"; did you mean {guess}?" if guess else f"; choose from {listed(known)}"
            raise UsageError(f"{what} has the unknown key {cut(str(name))}{hint}")


def _check_printable(name: str, what: str) -> None:
    """Raise a UsageError for a name that tables and figures cannot show."""
    if not name.isprintable():
        raise UsageError(f"the {what} {name!a} has characters that cannot be shown; give it another name")


def _by_name(tasks: Sequence[Task]) -> dict[str, Task]:
    for task in tasks:
        _check_printable(task.name, "task")
    twice = repeated(task.name for task in tasks)
    if twice is not None:
        raise UsageError(f"two tasks are called {twice}; name one of them otherwise, such as other={twice}")
    return {task.name: task for task in tasks}


def _make_task(entry: Any) -> Task:
    if not isinstance(entry, Mapping):
        name, _, folder = str(entry).rpartition("=")
        entry = {"folder": folder, **({"name": name} if name else {})}
    paths = [f"{split}_file" for split in _FILES]
    others = [option.name for option in fields(Task) if option.name != "files"]
    _check_names(entry, [*others, "folder", *paths], f"the task {entry.get('name', '')}".strip())
    name = str(entry.get("name") or Path(str(entry.get("folder", ""))).name)
    if not name:
        raise UsageError("a task has no name; add name: NAME, or give its folder")
    files = _files_of_folder(str(entry["folder"])) if "folder" in entry else {}
    files |= {split: str(entry[path]) for split, path in zip(_FILES, paths, strict=True) if entry.get(path)}
    # Where the labels of the test set are not public, the validation set is tested on.
    if "test" not in files and "validation" in files:
        files["test"] = files.pop("validation")
    for split in ("train", "test"):
        if split not in files:
            where = f"in the folder {entry['folder']}" if "folder" in entry else f"as {split}_file"
            raise UsageError(f"the task {name} has no {split} file {where}; give a file such as {split}.csv")
    for split, path in files.items():
        check_file(path, f"{split}_file of the task {name}:")
    share = entry.get("validation_split", Task.validation_split)
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
        raise UsageError(f"validation_split of the task {name} should be above 0 and below 1, got {cut(str(share))}")
    options = _checked_options(entry.get("options") or {}, f"options of the task {name}")
    columns = {
        key: ",".join(map(str, _as_list(entry[key])))
        for key in others
        if key.endswith(("_names", "_name")) and entry.get(key)
    }
    return Task(name=name, files=files, validation_split=float(share), options=options, **columns)


def _files_of_folder(folder: str) -> dict[str, str]:
    if not Path(folder).is_dir():
        raise UsageError(f"there is no task {folder}: it should be a folder with train and test files")
    found = {}
    for split in _FILES:
        paths = [Path(folder, split + ending) for ending in ENDINGS if Path(folder, split + ending).is_file()]
        if len(paths) > 1:
            raise UsageError(f"the folder {folder} has both {paths[0].name} and {paths[1].name}; drop one of them")
        if paths:
            found[split] = str(paths[0])
    return found


def _make_methods(entries: Iterable[Any]) -> dict[str, dict[str, str]]:
    methods: dict[str, dict[str, str]] = {}
    for entry in entries:
        if not isinstance(entry, str):
            raise UsageError(
                f"a method should be words such as amplify:alpha=1 or much=amplify:alpha=1, got {cut(str(entry))}"
            )
        name, words = method_name(entry)
        options = _method_options(words)
        if name != words:
            if name in METHODS:
                raise UsageError(f"{cut(entry)} has the name of a method; call it otherwise, such as mine={words}")
            if not name or len(name) > _LONGEST_NAME:
                raise UsageError(
                    f"{cut(entry)} should have a name of 1 to {_LONGEST_NAME} characters, such as mine={cut(words)}"
                )
        _check_printable(name, "method")
        if methods.get(name, options) != options:
            raise UsageError(f"two methods are called {name}; name one of them otherwise, such as other={words}")
        methods[name] = options
    return methods


def _method_options(words: str) -> dict[str, str]:
    """`amplify:alpha=0.4` as flags. An option is one of mixup without its first word, or any other flag."""
    method, *pairs = words.split(":")
    if not method:
        raise UsageError("a method is empty; write it as amplify, amplify:alpha=1 or much=amplify:alpha=1")
    if method not in METHODS:
        guess = nearest(method, METHODS)
        hint = f"; did you mean {guess}?" if guess else f"; choose from {listed(METHODS, limit=20)}"
        raise UsageError(f"there is no method {method}{hint}")
    options = {"mixup_method": method}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        # Before any sentence repeats the words.
        _check_no_secret(name, f"the method {method}")
        if not sign:
            raise UsageError(
                f"the method {words} has the option {pair or 'nothing'} without a value; write it as alpha=0.4"
            )
        if name in _SET_BY_GRID:
            raise UsageError(f"the method {words} has {name}, which is set for each run; leave it out")
        known = sorted(flag.removeprefix("mixup_") for flag in _FLAGS - _SET_BY_GRID)
        if name not in known and not nearest(name, known):
            own = sorted(flag.removeprefix("mixup_") for flag in _FLAGS if flag.startswith("mixup_"))
            raise UsageError(f"the method {words} has the unknown option {name}; choose from {listed(own, limit=30)}")
        _check_names([name], known, f"the method {words}")
        flag = f"mixup_{name}" if f"mixup_{name}" in _FLAGS else name
        if flag in options:
            raise UsageError(f"the method {words} has {name} twice; leave one of them out")
        options[flag] = value
    return options


def _check_no_secret(name: str, what: str) -> None:
    """Raise a UsageError for an option that would write an access token into the results."""
    if is_secret(name):
        raise UsageError(
            f"{what} has {name}, which would stand in the results; leave it out, and set HF_TOKEN or run hf auth login"
        )


def _checked_options(options: Any, what: str) -> dict[str, Any]:
    if not isinstance(options, Mapping):
        raise UsageError(
            f"{what} should be a mapping of flags to values, such as num_train_epochs: 3, got {cut(str(options))}"
        )
    for name in options:
        _check_no_secret(str(name), what)
        if name in _SET_BY_GRID:
            raise UsageError(f"{what} has {name}, which is set for each run; leave it out")
        if str(name).startswith("mixup_"):
            option = str(name).removeprefix("mixup_")
            raise UsageError(
                f"{what} has {name}, which none does not take; write it to a method, such as amplify:{option}="
                f"{cut(str(options[name]))}"
            )
    _check_names(options, sorted(_FLAGS - _SET_BY_GRID), what)
    for name, value in options.items():
        option_text(value, f"{name} in {what}", mapping=True)
    return dict(options)


def _size(word: Any) -> str:
    text = str(word).strip()
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)%|([0-9]{1,9})(-shot)?", text)
    if text != "all" and not match:
        raise UsageError(f"--sizes {cut(text)} is no training size; give all, a share (10%), rows (600) or 8-shot")
    if match and (float(match[1] or match[2]) == 0 or float(match[1] or 0) > 100):
        raise UsageError(f"--sizes {text} is out of range; give above 0, and at most 100%")
    return "all" if text == "100%" else text


def _noise(word: Any) -> float:
    try:
        share = float(word)
    except (TypeError, ValueError):
        share = -1.0
    if not 0 <= share < 1:
        raise UsageError(f"--noise {cut(str(word))} is no share of wrong labels; give a number from 0 and below 1")
    return share


def _tune(word: Any) -> int:
    trials = None if isinstance(word, bool) else whole_number(str(word))
    if trials is None or not 0 <= trials <= _MOST_TRIALS:
        raise UsageError(
            f"--tune {cut(str(word))} is no number of trials; give a whole number such as 20, at most {_MOST_TRIALS}"
        )
    return trials


def _make_models(entries: Sequence[Any]) -> dict[str, str]:
    models: dict[str, str] = {}
    for entry in map(str, entries):
        name, _, path = entry.rpartition("=")
        name, path = name or Path(path).name, model_path(path)
        _check_printable(name, "model")
        if name in models:
            raise UsageError(f"two models are called {name}; name one of them otherwise, such as other={path}")
        check_model_folder(path, None, None)
        models[name] = path
    return models
