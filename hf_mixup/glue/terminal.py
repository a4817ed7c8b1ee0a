"""What a run of the script says on the terminal, and what it leaves out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedModel

from hf_mixup.errors import cut, listed
from hf_mixup.shown import python_string, visible

# The classes that the log names; data sets with 150 of them are common.
MOST_CLASSES = 8
# What of transformers' code reports the weights that were loaded, and the file with the words of it.
_LOADER, _REPORT = "transformers.modeling_utils", "loading_report.py"


def class_distribution(encoded: Sequence[int], names: Sequence[str]) -> str:
    """Say how many rows the classes have, the most frequent first; of many classes the rest in a few words.

    Args:
        encoded: the class of each row, as an index.
        names: the names of the classes.

    Example:
        >>> class_distribution([0, 1, 1, 1], ["no", "yes"])
        'yes 3 (75.00%), no 1 (25.00%)'
    """
    counts = Counter(encoded).most_common()
    shown = ", ".join(
        f"{cut(str(names[index]))} {count} ({count / len(encoded):.2%})" for index, count in counts[:MOST_CLASSES]
    )
    rest = counts[MOST_CLASSES:]
    if not rest:
        return shown
    return f"{shown} and {len(rest)} more, the rarest {cut(str(names[rest[-1][0]]))} {rest[-1][1]}"


@contextmanager
def load_report_held_back() -> Iterator[list[logging.LogRecord]]:
    """Hold transformers' table of missing and unexpected weights back until the end of the block.

    Whoever empties the list says the same in other words; otherwise the table is shown, also after an error.
    """
    source = logging.getLogger(_LOADER)
    held: list[logging.LogRecord] = []

    def hold(record: logging.LogRecord) -> bool:
        is_report = record.filename == _REPORT
        if is_report:
            held.append(record)
        return not is_report

    source.addFilter(hold)
    try:
        yield held
    finally:
        source.removeFilter(hold)
        for record in held:
            source.handle(record)


def head_alone_differs(name: str, model: PreTrainedModel, loaded: Mapping[str, Any]) -> str | None:
    """Say in one line which weights of the head are new, and which of another head were not used.

    Args:
        name: of the model that was loaded.
        model: what was made of it.
        loaded: what `from_pretrained` gives with `output_loading_info`.

    Returns:
        None where the head is not new, or anything else was missing, left over or of another size: the table of
        transformers tells all of that.
    """
    body = getattr(model, model.base_model_prefix or " ", None)
    new = {*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])}
    unused = set(loaded["unexpected_keys"])
    # A body that was saved by itself has names without its prefix.
    of_body = [
        key
        for key in new | unused
        if key.startswith(f"{model.base_model_prefix}.") or hasattr(body, key.partition(".")[0])
    ]
    if body is None or of_body or not new:
        return None
    sentence = f"{listed(sorted(new))} are not in {cut(name)} and start at random"
    return f"{sentence}; its {listed(sorted(unused))} are not used." if unused else f"{sentence}."


def closing_lines(model: str, method: str | None, mixed: Mapping[str, float], files: Sequence[str]) -> str:
    """The last three lines of a run: where the model is and how to load it, what was mixed, which files to look at.

    Args:
        model: the folder of the trained model, or the model that was only evaluated.
        method: the mixup method of the training; None if nothing was trained.
        mixed: `MixupTrainer.mixed`.
        files: the results and predictions.

    Example:
        >>> print(closing_lines("out", "amplify", {"mixup_applied": 1, "mixup_lambda": 0.9}, ["out/all_results.json"]))
        Model: out, to be loaded by pipeline("text-classification", model="out")
        Mixed: amplify, mean lambda 0.900, 100.0% of the batches
        Files: out/all_results.json
    """
    load = f'to be loaded by pipeline("text-classification", model={python_string(model)})'
    if method is None:
        load, what = f"not trained in this run, {load}", "nothing was mixed, as nothing was trained"
    elif method == "none":
        what = "nothing was mixed (--mixup_method none)"
    else:
        # Where whole batches are mixed, there is no share of the own row.
        lam = f", mean lambda {mixed['mixup_lambda']:.3f}" if "mixup_lambda" in mixed else ""
        what = f"{method}{lam}, {mixed.get('mixup_applied', 0):.1%} of the batches"
    return f"Model: {visible(model)}, {load}\nMixed: {what}\nFiles: {', '.join(map(visible, files))}"
