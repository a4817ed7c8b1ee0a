"""`hf-mixup attention`: maps of one pair of texts, or numbers over a file of texts."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

import run_glue_mixup
from hf_mixup.attention.maps import attention_maps
from hf_mixup.attention.measures import measure_texts
from hf_mixup.attention.passes import AMPLIFY_SITES, separator_ids
from hf_mixup.demo.run import model_path
from hf_mixup.errors import (
    LARGEST_SEED,
    OneSentenceParser,
    UsageError,
    as_one_line,
    install_hint,
    quoted,
    whole_from,
    whole_number,
)
from hf_mixup.files import check_writable, written_beside
from hf_mixup.glue.arguments import split_names
from hf_mixup.glue.folders import check_model_folder
from hf_mixup.glue.loading import choose_text_columns, load_local_split
from hf_mixup.glue.tables import check_file
from hf_mixup.modeling.sequence_classification import MixupModel
from hf_mixup.shown import visible
from hf_mixup.trainer import MixupTrainingArguments

_SEED = 42
# Flags that only maps, and only files, take.
_OF_MAPS = ("partner", "layer", "head")
_OF_FILES = ("text_column_names", "label_column_name", "seed")
_LONGEST_MAP = 256


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the command line without the program's name; that of the process by default.

    Returns:
        The exit code: 0; 2 after one sentence on stderr for a mistake of the user.

    Raises:
        SystemExit: code 2 for a mistake in the flags, code 0 after `--help`.

    Example:
        >>> flags = ["--text", "a dull film", "--partner", "a great play", "--layer", "4", "--head", "2"]
        >>> main(["--model_name_or_path", "out/mrpc", "--output_dir", "maps", *flags])  # doctest: +SKIP
        0
    """
    options = _parser().parse_args(argv)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        _check(options)
        written = _measure(options) if options.file else _draw(options)
    except UsageError as error:
        sys.stderr.write(f"hf-mixup attention: {as_one_line(error)}\n")
        return 2
    sys.stdout.write("".join(f"{visible(file)}\n" for file in written))
    return 0


def _draw(options: argparse.Namespace) -> list[Path]:
    """Write the maps of one pair of texts."""
    try:
        from hf_mixup.attention.figure import save_figure
        from hf_mixup.attention.page import page
    except ModuleNotFoundError as error:
        raise UsageError(
            f"maps are drawn with {error.name}, which is not installed; {install_hint('compare')}"
        ) from error
    head = None if options.head in (None, "average") else options.head
    name = f"layer{options.layer}_" + ("average" if head is None else f"head{head}")
    files = _output_files(options.output_dir, f"{name}.png", f"{name}.html")
    model, tokenizer, length = _load(options, texts=len(options.text))
    if length > _LONGEST_MAP:
        raise UsageError(f"--max_seq_length {length} makes maps that no one can read; give at most {_LONGEST_MAP}")
    try:
        maps = attention_maps(
            model,
            tokenizer,
            options.text,
            options.partner,
            options.layer,
            head,
            options.mixup_lambda,
            options.mixup_site,
            length,
        )
    except ValueError as error:
        raise UsageError(f"--{error}") from error
    place = f"block {options.layer}, " + ("mean of the heads" if head is None else f"head {head}")
    facts = {
        "Model": options.model_name_or_path,
        "Text": " / ".join(options.text),
        "Partner": " / ".join(options.partner),
        "Where amplify mixes": f"{options.mixup_site}, in all blocks; what is seen here is what it does in the blocks "
        f"below block {options.layer}" + (", that is nothing" if options.layer == 1 else ""),
    }
    options.output_dir.mkdir(parents=True, exist_ok=True)
    with written_beside(files[0]) as file:
        save_figure(maps, f"Attention at {place}", file)
    with written_beside(files[1]) as file:
        file.write_text(page(maps, f"Attention at {place}", facts), encoding="utf-8")
    return files


def _measure(options: argparse.Namespace) -> list[Path]:
    """Print and write the numbers over a file of texts."""
    (file,) = _output_files(options.output_dir, "attention.json")
    check_file(options.file, "--file")
    split = load_local_split(options.file)
    label_column, seed = options.label_column_name or "label", _SEED if options.seed is None else options.seed
    requested = split_names(options.text_column_names, "--text_column_names")
    columns = choose_text_columns(split, [label_column], requested, None)
    if len(split) < 2:
        raise UsageError(f"--file {options.file} has one text; give two or more, so that each has a partner")
    dataset = split.texts(columns)
    model, tokenizer, length = _load(options, texts=len(columns))
    texts = list(zip(*(dataset[column] for column in columns), strict=True))
    rows = measure_texts(model, tokenizer, texts, options.mixup_lambda, options.mixup_site, length, seed)
    settings = {
        "model": options.model_name_or_path,
        "file": options.file,
        "texts": len(texts),
        "max_seq_length": length,
        "mixup_lambda": options.mixup_lambda,
        "mixup_site": options.mixup_site,
        "seed": seed,
        "separators": tokenizer.convert_ids_to_tokens(separator_ids(tokenizer)),
    }
    options.output_dir.mkdir(parents=True, exist_ok=True)
    with written_beside(file) as beside:
        beside.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    console = Console(markup=False, highlight=False)
    console.print(_caption(rows, settings))
    for table in _tables(rows, settings):
        console.print(table)
    return [file]


def _caption(rows: Sequence[dict[str, Any]], settings: dict[str, Any]) -> str:
    """What the tables are about."""
    positions = ", ".join(f"{row['method']} {row['tokens']:.1f}" for row in rows if row["layer"] == 1)
    return (
        f"Attention over {settings['texts']} texts, the own text's share {settings['mixup_lambda']:g}: means over "
        f"texts, heads and tokens. Positions that attention sees: {positions}."
    )


def _tables(rows: Sequence[dict[str, Any]], settings: dict[str, Any]) -> list[Table]:
    """A table for each measure, with a line for each block and a column for each method: narrow enough for 80."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    by_place = {(row["method"], row["layer"]): row for row in rows}
    separators = visible("/".join(settings["separators"]))
    measures = {
        "entropy": "entropy in nats",
        "separator_share": f"share of attention on {separators} of the own row",
        "partner_separator_share": f"share of attention on {separators} that only the partner has",
    }
    tables = []
    for measure, title in measures.items():
        shown = [method for method in methods if by_place[method, 1][measure] is not None]
        if not shown:
            continue
        table = Table(box=None, title=title, title_justify="left")
        for heading in ("block", *shown):
            table.add_column(heading, justify="right", no_wrap=True)
        for layer in range(1, len(rows) // len(methods) + 1):
            table.add_row(str(layer), *(f"{by_place[method, layer][measure]:.3f}" for method in shown))
        tables.append(table)
    return tables


def _check(options: argparse.Namespace) -> None:
    """Check which flags go together, and the model's folder."""
    foreign, own, other = (_OF_MAPS, "--file", "--text") if options.file else (_OF_FILES, "--text", "--file")
    for name in foreign:
        if getattr(options, name) is not None:
            raise UsageError(f"--{name} goes with {other} and not with {own}; leave one of them out")
    if not options.file:
        for name in ("partner", "layer"):
            if getattr(options, name) is None:
                raise UsageError(f"--text needs --{name}; give it, or --file for numbers over many texts")
        if len(options.text) > 2 or len(options.text) != len(options.partner):
            raise UsageError(
                f"--text has {len(options.text)} and --partner {len(options.partner)} texts; give one each, or two "
                "each that are read as a pair, in quotation marks"
            )
        for name in ("text", "partner"):
            if not all(text.strip() for text in getattr(options, name)):
                raise UsageError(f"--{name} is empty; give a text")
    if options.output_dir.exists() and not options.output_dir.is_dir():
        raise UsageError(f"--output_dir {options.output_dir} is a file; give a folder")
    check_writable(options.output_dir, f"--output_dir {options.output_dir}")
    check_model_folder(model_path(options.model_name_or_path), None, None)


def _output_files(folder: Path, *names: str) -> list[Path]:
    """The files to be written, none of which may exist."""
    files = [folder / name for name in names]
    for file in files:
        # A link that leads nowhere exists too.
        if os.path.lexists(file):
            raise UsageError(f"{file} exists; delete it, or give another --output_dir")
    return files


def _load(options: argparse.Namespace, texts: int) -> tuple[MixupModel, PreTrainedTokenizerBase, int]:
    """The model with attention that keeps its probabilities, its tokenizer, and the number of tokens of a text."""
    named = run_glue_mixup.ModelArguments(model_path(options.model_name_or_path))
    mixing = MixupTrainingArguments(output_dir=str(options.output_dir), mixup_method="amplify")
    config = run_glue_mixup.load_config(named, num_labels=None)
    tokenizer, model = run_glue_mixup.load_tokenizer_and_model(named, mixing, config)
    model.set_attn_implementation("eager")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    length = run_glue_mixup.usable_length(options.max_seq_length, tokenizer, model, texts)
    return model.float().to(device).eval(), tokenizer, length


def _parser() -> argparse.ArgumentParser:
    parser = OneSentenceParser(
        prog="hf-mixup attention",
        description="Who attends to whom, clean, under amplify and under embedmix: with --text and --partner as maps "
        "of one block and head (a PNG and a web page), with --file as numbers for each block (a table and JSON).",
    )
    parser.add_argument(
        "--model_name_or_path",
        required=True,
        metavar="MODEL",
        help="a folder, a name on the Hub, or minilm: the weights of the demo",
    )
    parser.add_argument("--output_dir", required=True, type=Path, metavar="FOLDER", help="where the results go")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--text", nargs="+", help="a text, or two that are read as a pair")
    what.add_argument("--file", help="a file of texts, CSV, TSV, JSON or Parquet")
    parser.add_argument("--partner", nargs="+", metavar="TEXT", help="what --text is mixed with")
    parser.add_argument("--layer", type=whole_from(0, 10_000), help="for maps: the block, from 1")
    parser.add_argument("--head", type=_head, help="for maps: the head, from 0, or average (default: average)")
    parser.add_argument(
        "--mixup_lambda", type=_share, default=0.5, metavar="SHARE", help="the own text's share (default: 0.5)"
    )
    parser.add_argument(
        "--mixup_site",
        choices=AMPLIFY_SITES,
        default="attention",
        help="where amplify mixes: attention, as in the paper (default), or attention_block, as in the authors' code",
    )
    parser.add_argument(
        "--max_seq_length", type=whole_from(1, 2**20), default=128, help="texts are cut to this many tokens"
    )
    parser.add_argument("--text_column_names", help="for files: one or two columns, with a comma between them")
    parser.add_argument("--label_column_name", help="for files: the column that is no text (default: label)")
    parser.add_argument(
        "--seed", type=whole_from(0, LARGEST_SEED), help=f"for files: who is mixed with whom (default: {_SEED})"
    )
    return parser


def _head(text: str) -> int | str:
    if text == "average":
        return text
    head = whole_number(text)
    if head is None or head < 0:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is given, but it must be a number from 0, or average.")
    return head


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is given, but it must be a number from 0 to 1.")
    return share
