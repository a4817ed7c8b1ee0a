"""The `hf-mixup` command: `demo`, `train`, `suggest`, `compare`, `report`, `attention`, `calibrate`, `push` and
`methods`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from hf_mixup import __version__
from hf_mixup.errors import OneSentenceParser, nearest, path_sentence

# The commands import what they need themselves: `--version` and `--help` do not wait for torch.


def demo(arguments: Sequence[str]) -> int:
    """Fine-tune a small model on synthetic data with and without mixup and compare (options: demo --help)."""
    from hf_mixup.demo.run import main as run_demo

    return run_demo(list(arguments))


def train(arguments: Sequence[str]) -> int:
    """Fine-tune on GLUE, a Hub data set or your own files, the same as run_glue_mixup.py (options: train --help)."""
    from run_glue_mixup import cli as run_script

    return run_script(list(arguments), prog="hf-mixup train")


def suggest(arguments: Sequence[str]) -> int:
    """Find the method for a training file in a given time, and how sure its gain is (options: suggest --help)."""
    from hf_mixup.compare.suggest import main as run_suggest

    return run_suggest(list(arguments))


def compare(arguments: Sequence[str]) -> int:
    """Compare methods over tasks, training sizes, label noise and seeds, with intervals (options: compare --help)."""
    from hf_mixup.compare.main import main as run_compare

    return run_compare(list(arguments))


def attention(arguments: Sequence[str]) -> int:
    """Show who attends to whom, clean, under amplify and under embedmix (options: attention --help)."""
    from hf_mixup.attention.main import main as show_attention

    return show_attention(list(arguments))


def report(arguments: Sequence[str]) -> int:
    """Write a page with tables and figures on the results of compare (options: report --help)."""
    from hf_mixup.compare.report import main as run_report

    return run_report(list(arguments))


def calibrate(arguments: Sequence[str]) -> int:
    """Write a model with probabilities that mean what they say, and thresholds (options: calibrate --help)."""
    from hf_mixup.calibrate.main import main as run_calibrate

    return run_calibrate(list(arguments))


def push(arguments: Sequence[str]) -> int:
    """Upload a trained model to the Hub, also when the upload of its training failed (options: push --help)."""
    parser = OneSentenceParser(
        prog="hf-mixup push",
        description="Upload a trained model to the Hub: weights, config, tokenizer, model card, results, predictions "
        "and TensorBoard logs. What goes up is shown first; everything else, and every link, stays here. The access "
        "token is that of the environment variable HF_TOKEN, or of `hf auth login`.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="folder of a saved model: an --output_dir, or a checkpoint")
    parser.add_argument("repo", metavar="REPO", help="user/model, or model for one of your own; created if needed")
    parser.add_argument("--private", action="store_true", default=None, help="a new repository is private")
    parser.add_argument("--revision", metavar="BRANCH", help="the branch to upload to (default: main)")
    parser.add_argument(
        "--include",
        metavar="PATTERN",
        action="append",
        default=[],
        help="upload these files of the folder too, such as 'figures/*.png' (may be given several times)",
    )
    options = parser.parse_args(arguments)

    from hf_mixup.errors import UsageError, as_one_line, cut
    from hf_mixup.hub import HubError, content_to_push, push_folder
    from hf_mixup.shown import visible

    try:
        content = content_to_push(options.folder, options.include)
        shown = "".join(f"  {size:>10}  {cut(name)}\n" for name, size in content.sizes().items())
        sys.stdout.write(f"to be uploaded to {visible(options.repo)}:\n{shown}not uploaded: {content.staying()}\n")
        sys.stdout.flush()
        url = push_folder(content, options.repo, options.private, options.revision)
    except (UsageError, HubError) as error:
        sys.stderr.write(f"hf-mixup push: {as_one_line(error)}\n")
        return 2 if isinstance(error, UsageError) else 1
    sys.stdout.write(f"{visible(options.folder)} is uploaded to {url}\n")
    return 0


def methods(arguments: Sequence[str]) -> int:
    """List the mixup methods with their defaults, costs and papers."""
    parser = OneSentenceParser(prog="hf-mixup methods", description=methods.__doc__)
    parser.parse_args(arguments)

    from rich.console import Console
    from rich.table import Table

    from hf_mixup.methods.table import rows

    # Names and addresses stay whole at 80 columns.
    table = Table(box=None, padding=(0, 2, 1, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows():
        defaults = "; ".join(fact for fact in (row.where, row.how_much, row.with_whom, row.cost) if fact != "-")
        table.add_row(row.name, "\n".join(filter(None, (defaults, row.summary, row.paper))))
    Console().print(table)
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "demo": demo,
    "train": train,
    "suggest": suggest,
    "compare": compare,
    "report": report,
    "attention": attention,
    "calibrate": calibrate,
    "push": push,
    "methods": methods,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names and give back its exit code.

    Args:
        argv: the command line without the program's name; `sys.argv[1:]` by default. What follows the command goes
            to the command as it is.

    Returns:
        The exit code: 0 when all went well.

    Raises:
        SystemExit: code 2 after one sentence on stderr for an unknown or missing command, code 0 after `--version`
            and `--help`.

    Example:
        >>> main(["methods"])  # doctest: +SKIP
        0
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = OneSentenceParser(
        prog="hf-mixup",
        usage="hf-mixup [--help] [--version] command ...",
        description="Mixup for fine-tuning Transformers on text.",
        epilog="commands:\n" + "\n".join(f"  {name:<10}{command.__doc__}" for name, command in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hf-mixup {__version__}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    # Only the first word is parsed here, so that `hf-mixup train --help` is the help of `train`.
    name = parser.parse_args(arguments[:1]).command
    if name is None:
        parser.error(f"a command is missing, give one of {', '.join(COMMANDS)} (hf-mixup --help explains them).")
    if name not in COMMANDS:
        near = nearest(name, COMMANDS)
        hint = f"did you mean {near}?" if near else f"give one of {', '.join(COMMANDS)}."
        parser.error(f"unknown command {name!r}: {hint}")
    try:
        return COMMANDS[name](arguments[1:])
    except OSError as error:
        sentence = path_sentence(error)
        if sentence is None:
            raise
        sys.stderr.write(f"hf-mixup {name}: {sentence}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
