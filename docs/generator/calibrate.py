"""The page on calibrated checkpoints, with what was measured of some."""

from __future__ import annotations

from pathlib import Path

from docs.generator.tables import DOCS, origin, raw_lines, table

_RAW = "calibration.jsonl"
PAGE = """# Probabilities that mean what they say

A classifier that says "90 %" should be right nine times out of ten. One that mixed much is often less sure than it is
right, plain fine-tuning is often too sure ([when to mix](when_to_mix.md), line 7). One number corrects most of both:
the logits are divided by a temperature that labelled texts fit best
(Guo et al. 2017, [arXiv 1706.04599](https://arxiv.org/abs/1706.04599)). No prediction changes.

```bash
hf-mixup calibrate out/mine validation.csv --precision 0.95
```

This writes `out/mine-calibrated`, a checkpoint like `out/mine` except for the last linear layer: its weights and bias
are divided by the temperature. So `pipeline("text-classification", model="out/mine-calibrated")` is calibrated in
plain transformers, with nothing else to load or to remember. `out/mine` stays as it is.

- **The rows.** Give labelled texts that the model was not trained on, some hundred or more, in a file like those of
  training: CSV, TSV, JSON or Parquet ([your_files.md](your_files.md)). Their labels should be right. Cut the texts as
  in training: `--max_seq_length`, 128 by default.
- **The numbers.** NLL, expected calibration error (ECE) over 15 bins and Brier score, before and after, are printed
  and written into the model card and into `calibration` of `config.json`; `reliability.png` in the new folder shows
  accuracy against confidence. Rows that fitted the temperature would flatter it. So the rows are divided into five
  parts, and the rows of each part are divided by the temperature that fits the four others; the checkpoint has the
  temperature of all rows. With `--test_file test.csv` everything is measured on those rows instead.
- **`--precision 0.95`** shows from which probability on 95 % of the answers are right, and how many answers that
  leaves. "On these rows" is the lowest threshold with that precision on the measured rows, which is chosen for being
  high and promises too much. "By the bound" is the lowest one whose lower bound reaches it: the bound of Clopper and
  Pearson, corrected for all thresholds that are tried (0, 0.05 to 0.90, 0.91 to 0.99; Bonferroni), so that with 95 %
  confidence it holds for the chosen one too. Take that one if a wrong answer is expensive. Both hold for new texts of
  the same kind, and for no others. That the temperature came from the same rows is not in the bound; with
  `--test_file` it did not.
- **`--per_class`** gives a threshold for each class: of the answers that name this class. The bounds then hold for one
  class at a time.
- **Several classes per text** (multi-label): each class has its own temperature, which divides its own row of the last
  layer, and `--per_class` is needed. The measures are those of each class as a question of yes or no. A threshold of a
  class is one for its own probability, and all texts are answers. A class without two wrong rows keeps its logits.
- **Half precision.** The weights keep their type. In bfloat16 the division is rounded like every number of such a
  model, to three significant digits or so; the last line that is printed says by how much the logits of the saved
  checkpoint differ from those wanted.

The layer is found by its outputs, whatever the model calls it, so every `AutoModelForSequenceClassification` that ends
in a linear layer works, also those that do not mix. The saved checkpoint is loaded again by transformers and compared
with the logits that it should give before it gets its name. What cannot be done is refused in a sentence: regression,
a model without a trained classifier, logits that no linear layer puts out, weights that are quantized or shared with
another layer, an adapter of peft (merge it first), a model that is calibrated already, and rows of which fewer than
two are wrong, for which there is no best temperature. Training on from a calibrated checkpoint removes the note from
its config: calibrate the new model again.

| flag | meaning |
|---|---|
| `--output_dir` | a new or empty folder (default: `FOLDER-calibrated`) |
| `--test_file` | other labelled texts to measure on |
| `--precision`, `--per_class` | thresholds, as above |
| `--text_column_names`, `--label_column_name` | the columns, as in training |
| `--max_seq_length` | texts are cut to this many tokens (default 128) |
| `--seed` | how the rows are divided into five parts (default 42) |
"""
MEASURED = """
## What it did to models that mixed much

MiniLM, fine-tuned with `--mixup_method amplify-code --mixup_ratio beta-max` on {train}, drawn from
`train.csv`, calibrated on others of that file, and measured on `test.csv` by the pipeline of transformers alone. ECE
is times 100.
A temperature below 1 means that the model was less sure than it was right. The last columns are the thresholds for a
precision of 0.95 from the calibration rows, on these rows and by the bound, and what they do on the test rows.

"""


def pages() -> dict[Path, str]:
    """The page by its path."""
    lines = raw_lines(_RAW)
    return {DOCS / "calibrate.md": PAGE + (_measured(lines) + origin(lines, _RAW) if lines else "")}


def _measured(lines: list[dict]) -> str:
    train = {line["task"]: line["rows"]["train"] for line in lines}
    head = ("data", "alpha", "seed", "accuracy", "temperature", "ECE", "calibrated", "NLL", "calibrated")
    head += ("on these rows from", "coverage", "precision", "by the bound from", "coverage", "precision")
    cells = []
    for line in lines:
        before, after = line["before"], line["after"]
        cells.append(
            [
                line["task"],
                f"{line['options']['mixup_alpha']:g}",
                line["seed"],
                f"{before['accuracy']:.3f}",
                f"{line['noted']['temperature']:.2f}",
                *(f"{100 * each['ece']:.1f}" for each in (before, after)),
                *(f"{each['nll']:.3f}" for each in (before, after)),
                *_threshold(line["promised"].get("on_these_rows")),
                *_threshold(line["promised"].get("sure")),
            ]
        )
    words = " and ".join(f"{rows} rows of {task}" for task, rows in train.items())
    return MEASURED.format(train=words) + table(head, cells)


def _threshold(found: dict | None) -> list[str]:
    if found is None:
        return ["none", "", ""]
    return [f"{found['from']:.2f}", *(f"{found[name]:.3f}" for name in ("coverage", "precision"))]
