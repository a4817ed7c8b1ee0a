"""`hf-mixup calibrate`: a checkpoint whose probabilities fit a file of labelled texts, and thresholds for it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedConfig
from transformers.utils import logging

import run_glue_mixup
from hf_mixup.calibrate import report
from hf_mixup.calibrate.folding import divide_logits, last_linear
from hf_mixup.calibrate.report import Calibrated
from hf_mixup.calibrate.temperature import Question, best_temperature, questions, scaled_by_others
from hf_mixup.compare.run import predict_logits
from hf_mixup.errors import (
    LARGEST_SEED,
    OneSentenceParser,
    UsageError,
    as_one_line,
    install_hint,
    listed,
    quoted,
    whole_from,
)
from hf_mixup.files import check_new, new_folder
from hf_mixup.glue.arguments import split_names
from hf_mixup.glue.folders import check_model_folder
from hf_mixup.glue.labels import Labels, labels_of_model
from hf_mixup.glue.loading import Split, choose_text_columns, load_local_split
from hf_mixup.glue.tables import check_file
from hf_mixup.shown import visible
from hf_mixup.trainer import MixupTrainingArguments
from hf_mixup.trainer.checkpoints import disk_fault
from hf_mixup.trainer.model_card import calibrated_card

PICTURE = "reliability.png"
_SEED = 42
# Rows on which the logits of the saved checkpoint are compared with what they have to be.
_COMPARED = 64
# Above the rounding of the division, far below what a wrong layer would do.
_TOLERANCE = 1e-5
_ROUNDINGS = 16


@dataclass(frozen=True)
class Rows:
    """Labelled texts of a file.

    Attributes:
        source: the name of the file.
        texts: one or two for each row.
        labels: as `Labels.encode` gives them.
    """

    source: str
    texts: list[tuple[str, ...]]
    labels: list[Any]

    @property
    def words(self) -> str:
        """What tables and the card call them."""
        return f"{len(self.texts)} rows of {visible(self.source)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the command line without the program's name; that of the process by default.

    Returns:
        The exit code: 0; 2 after one sentence on stderr for a mistake of the user, 1 for a full disk.

    Raises:
        SystemExit: code 2 for a mistake in the flags, code 0 after `--help`.

    Example:
        >>> main(["out/mine", "validation.csv", "--precision", "0.95"])  # doctest: +SKIP
        0
    """
    options = _parser().parse_args(argv)
    if options.output_dir is None:
        folder = options.folder if options.folder.name not in ("", "..") else options.folder.resolve()
        options.output_dir = folder.with_name(f"{folder.name}-calibrated")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        _calibrate(options, Console(markup=False, highlight=False, emoji=False))
    except UsageError as error:
        sys.stderr.write(f"hf-mixup calibrate: {as_one_line(error)}\n")
        return 2
    except Exception as error:
        reason = disk_fault(error)
        if reason is None:
            raise
        sys.stderr.write(f"hf-mixup calibrate: {visible(options.output_dir)} could not be written ({reason})\n")
        return 1
    return 0


def _calibrate(options: argparse.Namespace, console: Console) -> None:
    figures = _figures()
    _check_folders(options)
    named = run_glue_mixup.ModelArguments(str(options.folder))
    config = run_glue_mixup.load_config(named, num_labels=None)
    labels = _labels(config, options)
    fitting, testing = _read(options, labels)
    mixing = MixupTrainingArguments(output_dir=str(options.output_dir), mixup_method="none")
    tokenizer, model = run_glue_mixup.load_tokenizer_and_model(named, mixing, config)
    _check_trained(options.folder)
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    length = run_glue_mixup.usable_length(options.max_seq_length, tokenizer, model, len(fitting.texts[0]))

    def logits_of(rows: Rows) -> NDArray[np.float64]:
        logits = predict_logits(model, tokenizer, rows.texts, length)
        if not np.isfinite(logits).all():
            raise UsageError("the model gives logits that are not finite numbers; look for a diverged training")
        return logits

    few = Rows(fitting.source, fitting.texts[:_COMPARED], fitting.labels[:_COMPARED])
    layer = last_linear(model, lambda: logits_of(few))
    found = _fit(logits_of, fitting, testing, labels, options.seed)

    # Everything that is shown or written is made first, and the new folder appears whole or not at all.
    chosen = {}
    if options.precision is not None:
        chosen = report.choose(found, labels.names, options.precision, options.per_class)
    noted = report.note(found, fitting.words, _measured_on(testing, options.seed), chosen, options.precision)
    picture = figures.draw_reliability(
        report.bins(found, (testing or fitting).words),
        figures.styles([(testing or fitting).words]),
        f"Reliability of {visible(options.folder.absolute().name)}",
    )
    temperatures = np.array([each.temperature or 1.0 for each in found])
    wanted = logits_of(few) / temperatures
    divide_logits(model.get_submodule(layer), np.broadcast_to(temperatures, labels.num_labels).tolist())
    model.config.calibration = noted
    with new_folder(options.output_dir) as new:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        names = (each.absolute().name for each in (options.folder, options.output_dir))
        card = calibrated_card(_card(options.folder), *names, noted)
        (new / "README.md").write_text(card, encoding="utf-8")
        figures.save_png(picture, new / PICTURE)
        difference = _difference(new, few, length, wanted)

    report.show_measures(console, found, noted)
    if chosen:
        report.show_thresholds(console, chosen, options.precision)
    for sentence in report.sentences(found, noted, chosen):
        console.print(sentence)
    console.print(
        f"The logits of {visible(options.output_dir)} are those of {visible(options.folder)} divided by the "
        f"temperature, with an error of {difference:.0e} of the largest one ({model.dtype}); plain transformers "
        f"loads it. The picture is {PICTURE} in that folder."
    )


def _figures() -> Any:
    try:
        from hf_mixup.compare import figures
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the reliability picture is drawn with {error.name}, which is not installed; {install_hint('compare')}"
        ) from error
    return figures


# ---- What is given ----


def _check_folders(options: argparse.Namespace) -> None:
    """Check the folder of the model, and the one to be written."""
    folder, out = options.folder, options.output_dir
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UsageError(f"FOLDER {folder} {what}; give the folder of a trained model")
    if (folder / "adapter_config.json").is_file():
        raise UsageError(
            f"{folder} holds an adapter of peft and not a whole model; merge it into its model, with "
            "merge_and_unload() and save_pretrained(), and calibrate that"
        )
    check_model_folder(str(folder), None, None)
    check_new(out, f"--output_dir {out}")


def _labels(config: PreTrainedConfig, options: argparse.Namespace) -> Labels:
    """The labels of a model whose logits a temperature can divide."""
    if not any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
        raise UsageError(f"{options.folder} has no trained classifier; give the folder of a model that was fine-tuned")
    if getattr(config, "quantization_config", None) is not None:
        raise UsageError(f"the weights of {options.folder} are quantized; calibrate the model before it is quantized")
    if getattr(config, "calibration", None) is not None:
        raise UsageError(
            f"{options.folder} is calibrated already, as calibration in its config.json says; give the model that it "
            "was made from"
        )
    columns = split_names(options.label_column_name, "--label_column_name") or ("label",)
    labels = labels_of_model(config, columns, None)
    if labels.kind == "regression":
        raise UsageError(f"{options.folder} predicts a number, which has no probability to be calibrated")
    if labels.kind == "soft":
        raise UsageError(
            f"--label_column_name names {len(columns)} columns, but calibrating needs the one class of each row; name "
            "the column that holds it"
        )
    if labels.kind == "multi" and not options.per_class:
        raise UsageError(
            f"{options.folder} may give a text several classes, so each class has its own temperature; add --per_class"
        )
    if labels.kind == "single" and options.per_class and options.precision is None:
        raise UsageError(
            "--per_class without --precision is for models that give a text several classes; add --precision 0.95 for "
            "a threshold per class"
        )
    return labels


def _read(options: argparse.Namespace, labels: Labels) -> tuple[Rows, Rows | None]:
    """The rows that fit the temperature, and those that are measured, if that are others."""
    check_file(options.file, "FILE")
    if options.test_file is not None:
        check_file(options.test_file, "--test_file")
    split = load_local_split(options.file)
    requested = split_names(options.text_column_names, "--text_column_names")
    columns = choose_text_columns(split, labels.columns, requested, None)

    def rows(split: Split) -> Rows:
        encoded = labels.encode(split)
        dataset = split.texts(columns)
        return Rows(split.source, list(zip(*(dataset[column] for column in columns), strict=True)), encoded)

    return rows(split), None if options.test_file is None else rows(load_local_split(options.test_file))


def _check_trained(folder: Path) -> None:
    """Check that all weights of the model are in its folder: transformers would draw others at random."""
    _, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    if info["missing_keys"]:
        raise UsageError(
            f"{folder} has no trained weights for {listed(sorted(info['missing_keys']), 3)}; give the folder of a "
            "model that was fine-tuned"
        )


# ---- Fitting ----


def _fit(
    logits_of: Callable[[Rows], NDArray[np.float64]], fitting: Rows, testing: Rows | None, labels: Labels, seed: int
) -> list[Calibrated]:
    """Fit each temperature, and divide the logits of the rows that are measured."""
    names = labels.names if labels.kind == "multi" else None

    def asked(rows: Rows) -> list[Question]:
        return questions(logits_of(rows), rows.labels, names)

    fitted = asked(fitting)
    tested = [None] * len(fitted) if testing is None else asked(testing)
    found = [_calibrated(each, other, seed, fitting.source) for each, other in zip(fitted, tested, strict=True)]
    if all(each.temperature is None for each in found):
        raise UsageError(f"no temperature fits a class of {fitting.source} best; give more rows, some of them wrong")
    return found


def _calibrated(asked: Question, tested: Question | None, seed: int, source: str) -> Calibrated:
    wrong = int((~asked.right).sum())
    # With parts, the others of each part must have a wrong row too.
    enough = wrong >= (2 if tested is None else 1)
    temperature = best_temperature(asked) if enough else None
    measured = tested or asked
    if temperature is None and asked.name is None:
        raise UsageError(_no_temperature(wrong, len(asked.labels), enough, source))
    if temperature is None:
        return Calibrated(measured, measured.logits, None)
    scaled = scaled_by_others(asked, seed) if tested is None else tested.logits / temperature
    return Calibrated(measured, scaled, temperature)


def _no_temperature(wrong: int, rows: int, enough: bool, source: str) -> str:
    if not enough:
        count = f"all {rows} rows" if wrong == 0 else f"all of the {rows} rows but one"
        return f"{count} of {source} are right, so that no temperature fits best; give more rows"
    return (
        f"no temperature fits {source}: what the model says has nothing to do with its labels ({wrong} of {rows} rows "
        "are wrong); check the labels, and that the model is trained"
    )


def _measured_on(testing: Rows | None, seed: int) -> str:
    if testing is not None:
        return f"{testing.words}, which fitted nothing"
    return f"the same rows, each divided by what fits the four fifths that it is not in (parts by seed {seed})"


# ---- The new checkpoint ----


def _card(folder: Path) -> str | None:
    """The model card of a folder, if there is one."""
    file = folder / "README.md"
    try:
        return file.read_text(encoding="utf-8") if file.is_file() else None
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8 text; save it with the encoding UTF-8") from error


def _difference(folder: Path, rows: Rows, length: int, wanted: NDArray[np.float64]) -> float:
    """How far the logits of a saved checkpoint are from what they have to be, as a share of the largest one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    saved = AutoModelForSequenceClassification.from_pretrained(folder).to(device).eval()
    found = predict_logits(saved, AutoTokenizer.from_pretrained(folder), rows.texts, length)
    difference = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if not difference <= max(_TOLERANCE, _ROUNDINGS * torch.finfo(saved.dtype).eps):
        raise UsageError(
            f"the logits of {type(saved).__name__} do not divide with the weights of its last linear layer (they are "
            f"off by {difference:.1e} of the largest one); divide them by the temperature where you use them"
        )
    return difference


def _parser() -> argparse.ArgumentParser:
    parser = OneSentenceParser(
        prog="hf-mixup calibrate",
        description="Write a copy of a classifier whose logits are divided by the temperature that fits labelled rows "
        "best: it predicts the same, and its probabilities say how often it is right, in plain transformers too.",
    )
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="folder of a trained classifier, which stays as it is"
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        help="labelled texts that the model was not trained on, as CSV, TSV, JSON or Parquet",
    )
    parser.add_argument(
        "--output_dir", type=Path, metavar="DIR", help="a new or empty folder (default: FOLDER-calibrated)"
    )
    parser.add_argument(
        "--test_file",
        metavar="FILE",
        help="other labelled texts, to measure on (default: the rows of FILE, each scaled by what fits the others)",
    )
    parser.add_argument(
        "--precision",
        type=_share,
        metavar="SHARE",
        help="show from which probability on this share of the answers is right, such as 0.95",
    )
    parser.add_argument(
        "--per_class",
        action="store_true",
        help="a threshold for each class; for models that give a text several classes, a temperature for each too",
    )
    parser.add_argument("--text_column_names", metavar="NAMES", help="one or two columns, with a comma between them")
    parser.add_argument("--label_column_name", metavar="NAME", help="the column of the labels (default: label)")
    parser.add_argument(
        "--max_seq_length",
        type=whole_from(1, 2**20),
        default=128,
        help="texts are cut to this many tokens (default: 128)",
    )
    parser.add_argument(
        "--seed", type=whole_from(0, LARGEST_SEED), default=_SEED, help=f"of the parts of FILE (default: {_SEED})"
    )
    return parser


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is given, but it must be a number above 0 and below 1.")
    return share
