"""The report on a file of results: its numbers, its sections, its page in a real browser."""

from __future__ import annotations

import re
import shutil
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hf_mixup.cli import main
from hf_mixup.compare import runner
from hf_mixup.compare.evidence import Evidence, family_and_alpha
from hf_mixup.compare.figures import DARK, PAPER, save_svg, scale_of, styles
from hf_mixup.compare.grid import Cell, Grid, make_grid
from hf_mixup.compare.packing import pack
from hf_mixup.compare.report import write_report
from hf_mixup.compare.results import Results
from hf_mixup.compare.sections import opening, sections

ROWS = 200
VOID = {"meta", "link", "br", "img", "input"}


def run_line(
    accuracy: float = 0.8,
    method: str = "none",
    seed: int = 1,
    task: str = "trec",
    size: str = "all",
    noise: float = 0.0,
    **changes: Any,
) -> dict[str, Any]:
    """The line of a run that has the first rows right, as many as the accuracy says."""
    cell, labels = Cell(task, "minilm", size, noise, method, seed), np.arange(ROWS) % 4
    predictions = np.where(np.arange(ROWS) < round(accuracy * ROWS), labels, (labels + 1) % 4)
    empty = [0] * 12
    bins = {
        "count": [*empty, 0, 50, 150],
        "confidence": [*empty, 0.0, 0.5, 0.9],
        "accuracy": [*empty, 0.0, 0.4, accuracy],
    }
    name, *pairs = method.split(":")
    flags = {f"mixup_{option}": value for option, value in (pair.split("=") for pair in pairs)}
    return {
        "key": cell.key,
        "kind": "run",
        "cell": asdict(cell),
        "data": "0123456789ab",
        "weights": "ba9876543210",
        "options": {"num_train_epochs": "3", "mixup_method": name, **flags},
        "tune": 0,
        "status": "done",
        "seconds": 60.0,
        "machine": "x86_64, no GPU, 1 threads",
        "versions": {"hf_mixup": "0.1.0", "torch": "2.13.0"},
        "tuned": {},
        "rows": {"train": {"all": 4000, "10%": 400}[size], "validation": 100, "test": ROWS},
        "metrics": {"accuracy": accuracy, "f1_macro": accuracy - 0.05},
        "validation": {"accuracy": accuracy, "loss": 0.5},
        "measures": {"ece": 0.1 + seed / 100, "ece_scaled": 0.05, "temperature": 1.5, "worst_class_accuracy": 0.5},
        "cost": {"steps": 100, "step_seconds": 0.05 if method == "none" else 0.06, "peak_memory_mib": 900.0},
        "loss": [[10, 1.5 - seed / 10], [20, 1.0], [30, 0.5]],
        "reliability": {"raw": bins, "scaled": bins},
        "test": {"labels": pack(labels), "predictions": pack(predictions)},
        **changes,
    }


def failed_line(error: str, **where: Any) -> dict[str, Any]:
    line = run_line(**where)
    kept = ("key", "kind", "cell", "data", "options", "tune", "seconds", "machine", "versions")
    return {**{name: line[name] for name in kept}, "status": "failed", "error": error}


def everything() -> list[dict[str, Any]]:
    """Runs with all that a report can show."""
    measured = {"flipped_rows_accuracy": 0.6, "flipped_rows_memorized": 0.3, "clean_rows_accuracy": 0.9}
    measured |= {f"ood_{kind}_{score}": 0.9 for kind in ("auroc", "fpr95") for score in ("probability", "energy")}
    gains = {"none": 0.0, "amplify:alpha=0.4": 0.1, "sentmix": -0.01}
    lines = [
        run_line(0.7 + gain + seed / 200 + 0.1 * (size == "all") - noise / 4, method, seed, "trec", size, noise)
        for size in ("10%", "all")
        for noise in (0.0, 0.2)
        for seed in (1, 2, 3)
        for method, gain in gains.items()
    ]
    for line in lines:
        line["measures"] |= measured
    return [*lines, failed_line("UsageError: no such file", seed=4)]


def results_of(lines: list[dict[str, Any]], path: Path) -> Results:
    results = Results(path / "results.jsonl")
    for line in lines:
        results.append(line)
    return results


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[str, str, Path]:
    """The page, the Markdown and the folder of a report with everything."""
    path = tmp_path_factory.mktemp("whole")
    return *report_of(everything(), path), path / "report"


def tables_of(lines: list[dict[str, Any]]) -> dict[str, list[list[str]]]:
    """The tables of a report by their captions; an asterisk before what is bold."""
    return {
        table.caption: [
            list(table.columns),
            *([f"{'*' * entry.better}{entry.text}{' ▼' * entry.worse}" for entry in row] for row in table.rows),
        ]
        for section in sections(Evidence(lines), "results.jsonl")
        for table in section.tables
    }


def table_of(lines: list[dict[str, Any]], start: str) -> list[list[str]]:
    return next(rows for caption, rows in tables_of(lines).items() if caption.startswith(start))


def titles_of(lines: list[dict[str, Any]]) -> list[str]:
    return [section.title for section in sections(Evidence(lines), "results.jsonl")]


def report_of(lines: list[dict[str, Any]], path: Path) -> tuple[str, str]:
    """The page and the Markdown."""
    files = write_report(results_of(lines, path), path / "report")
    return tuple(file.read_text(encoding="utf-8") for file in files)


class Page(HTMLParser):
    """What is in a page: tags with their attributes, tables as lists of texts, all text; and that tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text, self.headings = "", []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "caption":
            self._rows: list[list[str]] = []
            self._caption = ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
        elif tag == "strong":
            self._rows[-1][-1] += "*"
        elif tag == "h2":
            self.headings.append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data):
        self.text += data
        if "caption" in self._open:
            self._caption += data
        elif {"td", "th"} & set(self._open):
            self._rows[-1][-1] += data
        elif "h2" in self._open:
            self.headings[-1] += data

    def table(self, start: str) -> list[list[str]]:
        return next(rows for caption, rows in self.tables.items() if caption.startswith(start))


def test_the_numbers_are_those_worked_out_by_hand():
    lines = [run_line(accuracy, "none", seed) for seed, accuracy in ((1, 0.5), (2, 0.6), (3, 0.7))]
    lines += [run_line(accuracy, "amplify", seed) for seed, accuracy in ((1, 0.8), (2, 0.9), (3, 1.0))]
    # Means 60 and 90, standard deviations sqrt((10^2 + 0 + 10^2) / 2) = 10; the gain is 30 for every seed.
    assert table_of(lines, "Test accuracy") == [
        ["method", "trec"],
        ["none", "60.0 ± 10.0"],
        ["amplify", "*90.0 ± 10.0"],
    ]
    columns, row = table_of(lines, "Differences to none")
    assert row[: columns.index("95 % interval")] == ["amplify", "trec", "3", "+30.0", "*better"]
    # The same for 1.11, 1.12 and 1.13 tenths of ECE, which less is better of; scaled it is the same for all.
    columns, plain, mixed = table_of(lines, "Calibration")
    assert columns == ["method", "task", "ECE\u00a0↓"]
    assert plain == ["none", *mixed[1:]] == ["none", "trec", "12.0 ± 1.0"]
    columns, plain, mixed = table_of(lines, "Calibration after temperature scaling")
    assert columns == ["method", "task", "ECE, scaled\u00a0↓", "temperature"]
    assert plain == ["none", *mixed[1:]] == ["none", "trec", "5.0 ± 0.0", "1.50 ± 0.00"]
    columns, plain, mixed = table_of(lines, "Cost")
    assert plain[2:] == ["50.0 ± 0.0", "900 ± 0", "1.00"] and mixed[2:] == [
        "60.0 ± 0.0",
        "900 ± 0",
        "1.20 (1.20 to 1.20)",
    ]
    columns, row = table_of(lines, "In how many settings")
    assert columns[4:] == ["failed runs", "mean difference, points", "step time over none", "clear where"]
    assert row == ["amplify", "1", "0", "0", "0", "+30.0", "1.20", "trec +30.0"]


def runs_of(worth: dict[str, float], *tasks: str, seeds: int = 2) -> list[dict[str, Any]]:
    """Runs of methods with these accuracies, each with a little noise of the seed."""
    return [
        run_line(accuracy + seed / 200, method, seed, task)
        for task in tasks
        for method, accuracy in worth.items()
        for seed in range(1, seeds + 1)
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            runs_of({"none": 0.8, "amplify": 0.8, "tmix": 0.3}, "trec", "rte", "sst2", seeds=5),
            "Five seeds on three tasks: nothing is clearly better than plain fine-tuning; one method is clearly worse "
            "(tmix in 3 of 3).",
        ),
        (
            [
                *runs_of({"none": 0.5, "amplify": 0.9, "tmix": 0.3, "ssmix": 0.9, "embedmix": 0.5}, "trec"),
                *runs_of({"none": 0.5, "amplify": 0.5, "ssmix": 0.1}, "rte", seeds=3),
            ],
            "Two to three seeds on two tasks: two methods are clearly better than plain fine-tuning (amplify in 1 of "
            "2, ssmix in 1 of 2); two methods are clearly worse (tmix, ssmix in 1 of 2).",
        ),
        (
            runs_of({"none": 0.5, "amplify": 0.9}, "trec"),
            "Two seeds on trec: one method is clearly better than plain fine-tuning (amplify).",
        ),
        (
            [
                run_line(0.8, method, seed, size=size)
                for method in ("none", "tmix")
                for seed in (1, 2)
                for size in ("10%", "all")
            ],
            "Two seeds in two settings on trec: nothing is clearly better or worse than plain fine-tuning.",
        ),
        (
            runs_of({"none": 0.5, **dict.fromkeys(("amplify", "tmix", "ssmix", "sentmix", "embedmix"), 0.9)}, "trec"),
            "Two seeds on trec: five methods are clearly better than plain fine-tuning (amplify, tmix, ssmix, sentmix "
            "and 1 more).",
        ),
        (
            [run_line(0.5, "none"), run_line(0.9, "amplify")],
            "One seed on trec does not tell whether a method is better than plain fine-tuning.",
        ),
        (
            [run_line(0.9, "amplify")],
            "No method has a seed in common with plain fine-tuning (none), so that nothing is compared with it.",
        ),
        ([failed_line("RuntimeError: out of memory")], "All runs failed, so that nothing can be compared."),
    ],
)
def test_the_report_opens_with_the_answer(lines, said):
    assert opening(Evidence(lines)) == said


def test_page_and_markdown_open_with_the_same_sentence(whole):
    html, markdown, _ = whole
    said = opening(Evidence(everything()))
    assert f'</h1>\n<p class="answer">{said}</p>\n<nav' in html
    assert markdown.splitlines()[2].replace("\\", "") == said and markdown.splitlines()[4] == "## What came out"


def test_outliers_do_not_flatten_the_others():
    # Three quarters of these reach 2 at most; what reaches more than four times as far is left out.
    spans = [(-1.0, 1.0), (-2.0, 0.0), (0.0, 1.0), (-80.0, -70.0)]
    assert scale_of(spans) == pytest.approx((-2 - 0.04 * 3, 1 + 0.04 * 3))
    assert scale_of([*spans[:3], (-8.0, 0.0)]) == pytest.approx((-8 - 0.04 * 9, 1 + 0.04 * 9))
    # Around another centre, which is always on it; of two nothing is an outlier, and nan does not count.
    assert scale_of([(91.0, 93.0), (16.0, 16.5), (90.0, 91.0), (91.0, 92.0)], 92.0) == pytest.approx((89.88, 93.12))
    assert scale_of([(0.0, 1.0), (50.0, 60.0), (float("nan"), 0.0)]) == pytest.approx((-2.4, 62.4))
    # In a figure they are arrows with their numbers: 0.8 to 0.05 is 75 points.
    lines = runs_of({"none": 0.8, "amplify": 0.81, "tmix": 0.79, "ssmix": 0.8, "batchmixup": 0.05}, "trec", seeds=3)
    found = {picture.name: picture for section in sections(Evidence(lines), "") for picture in section.pictures}
    (axes,) = found["difference_1"].draw().axes
    assert axes.get_xlim()[0] > -10 and [text.get_text() for text in axes.texts] == ["\u221275.0"]
    gains, _ = found["cost_1"].draw().axes
    # The mean of 5.5, 6.0 and 6.5 percent.
    assert gains.get_xlim()[0] > 50 and [text.get_text() for text in gains.texts] == ["6.0"]


def test_fourteen_methods_have_a_panel_each():
    methods = ["none", *(f"amplify:draws={number}" for number in range(1, 14))]
    lines = [
        run_line(0.8 + seed / 100, method, seed, size=size)
        for method in methods
        for seed in (1, 2)
        for size in ("10%", "all")
    ]
    found = {picture.name: picture for section in sections(Evidence(lines), "") for picture in section.pictures}
    drawn = {name: found[name].draw() for name in ("rows_1_gain", "reliability_1", "loss_1")}
    for name, count in (("rows_1_gain", 13), ("reliability_1", 14), ("loss_1", 14)):
        figure = drawn[name]
        titles = [axes.get_title(loc="left").replace("\n", " ") for axes in figure.axes]
        assert titles == [method.replace(":", " ") for method in methods[14 - count :]] and not figure.legends
    # All lines are in each panel, that of the method is no grey one, and all panels have one scale.
    panels = drawn["loss_1"].axes
    assert all(len(axes.lines) == 15 and len({line.get_color() for line in axes.lines}) == 2 for axes in panels)
    assert len({axes.get_ylim() for axes in panels}) == 1
    # What a method costs and gains is a row.
    assert [text.get_text() for text in found["cost_1"].draw().axes[0].get_yticklabels()][:2] == [
        "none",
        "amplify\ndraws=1",
    ]


def test_a_line_that_leaves_the_panel_says_how_far_it_goes():
    lines = runs_of({"none": 0.8, "amplify": 0.8, "tmix": 0.8, "ssmix": 0.8}, "trec")
    for line in lines:
        if line["cell"]["method"] == "ssmix":
            line["loss"] = [[10, 104.0], [20, 1.0]]
    (picture,) = (
        picture
        for section in sections(Evidence(lines), "")
        for picture in section.pictures
        if picture.name == "loss_1"
    )
    (legend,) = picture.draw().legends
    assert [text.get_text() for text in legend.get_texts()] == ["none", "amplify", "tmix", "ssmix (goes to 104)"]


def test_bars_of_an_accuracy_end_at_0_and_100():
    # 97 % and 100 %, and 0 % and 3 %: means of 98.5 and 1.5 with standard deviations of 2.1.
    lines = [
        run_line(accuracy, "none", seed, size=size)
        for size in ("10%", "all")
        for seed, accuracy in ((1, 0.97), (2, 1.0))
    ]
    lines += [
        run_line(accuracy, "tmix", seed, size=size)
        for size in ("10%", "all")
        for seed, accuracy in ((1, 0.0), (2, 0.03))
    ]
    found = {picture.name: picture for section in sections(Evidence(lines), "") for picture in section.pictures}
    bars = [
        point
        for container in found["rows_1"].draw().axes[0].containers
        for collection in container[2]
        for segment in collection.get_segments()
        for point in segment[:, 1]
    ]
    (gains, _) = found["cost_1"].draw().axes
    ends = [
        point for collection in gains.collections for segment in collection.get_segments() for point in segment[:, 0]
    ]
    for drawn in (bars, ends):
        assert max(drawn) == pytest.approx(100) and min(drawn) == pytest.approx(0)
    assert sorted(ends)[1:3] == pytest.approx([1.5 + 100 * 0.03 / 2**0.5, 98.5 - 100 * 0.03 / 2**0.5])


def test_a_loss_is_marked_and_not_bold():
    lines = [run_line(0.9, "none", seed) for seed in (1, 2)] + [run_line(0.5, "sentmix", seed) for seed in (1, 2)]
    assert table_of(lines, "Test accuracy")[2] == ["sentmix", "50.0 ± 0.0 ▼"]


def test_ranks_are_those_worked_out_by_hand():
    lines = [run_line(0.8, "none"), run_line(0.9, "amplify"), run_line(0.7, "sentmix")]
    lines += [run_line(0.8, "none", task="rte"), run_line(0.8, "amplify", task="rte")]
    lines += [run_line(0.9, "sentmix", task="rte"), run_line(0.9, "none", task="lacks the others")]
    # Ranks 2, 1, 3 and, with a tie, 2.5, 2.5, 1.
    wanted = [["amplify", "1.75"], ["sentmix", "2.00"], ["none", "2.25"]]
    assert table_of(lines, "Average ranks over 2 settings")[1:] == wanted
    # q of Demsar's Table 5 for 3 classifiers is 2.343, so that the difference is 2.343 sqrt(3 * 4 / (6 * 2)).
    (picture,) = next(part.pictures for part in sections(Evidence(lines), "") if part.title == "Average rank")
    assert "critical difference 2.34" in {text.get_text()[:24] for text in picture.draw().axes[0].texts}


def test_markdown_and_page_have_the_same_tables(whole):
    html, markdown, _ = whole
    tables = [
        [[cell.replace("**", "").replace("\\", "").strip() for cell in row[1:-1].split(" | ")] for row in rows]
        for rows in (re.findall(r"^\| .*\|$", block, re.MULTILINE) for block in markdown.split("\n\n"))
        if rows
    ]
    page = Page(html)
    assert tables == [[[cell.replace("*", "") for cell in row] for row in rows] for rows in page.tables.values()]


def test_the_page_needs_nothing_beside_it(whole):
    html, _, _ = whole
    page = Page(html)
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "base")
        assert not attributes.keys() & {"src", "srcset", "onclick"}
        for name in ("href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#")
            assert name not in attributes or attributes[name][1:] in identifiers
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", html)
    assert "http:" not in without_namespaces and "https:" not in without_namespaces
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(identifiers)
    assert "@import" not in html


def test_every_figure_is_in_both(whole):
    html, markdown, folder = whole
    # 2 sizes x 2 shares of noise; curves join those that differ on one axis.
    kinds = {"difference": 4, "ranks": 1, "rows": 2, "noise": 2, "reliability": 4, "loss": 4, "cost": 4}
    names = {f"{kind}_{i + 1}" if kind != "ranks" else kind for kind, count in kinds.items() for i in range(count)}
    names |= {f"{kind}_{i}_gain" for kind in ("rows", "noise") for i in (1, 2)}
    page = Page(html)
    assert {attributes["id"] for tag, attributes in page.tags if tag == "figure"} == names
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(drawings) == len(names)
    assert all(each["role"] == "img" and each["aria-label"] for each in drawings)
    shown = re.findall(r"!\[.+\]\((figures/.+\.png)\)", markdown)
    assert set(shown) == {f"figures/{name}.png" for name in names}
    for file in shown:
        assert (folder / file).read_bytes().startswith(b"\x89PNG")


def test_all_colours_of_figures_follow_the_scheme(whole):
    html, _, _ = whole
    styles = " ".join(re.findall(r'<(?:path|use|text|g|rect)[^>]*style="([^"]*)"', html))
    used = set(re.findall(r"#[0-9a-f]{6}", styles))
    assert used <= set(DARK) and len(used) > 4
    assert not re.search(r"(?<!, )#[0-9a-f]{6}", styles), "a colour that is no variable of the page"


@pytest.mark.parametrize("dark", [False, True])
def test_colours_can_be_told_from_the_ground(dark):
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    ground = luminance(DARK[PAPER] if dark else PAPER)
    for light, other in list(DARK.items())[4:]:
        high, low = sorted((ground, luminance(other if dark else light)), reverse=True)
        # WCAG 2.2, 1.4.11: what is needed to understand a graphic has a contrast of 3 to 1.
        assert (high + 0.05) / (low + 0.05) >= 3, light


def test_a_method_has_one_look_everywhere():
    lines = [line for line in everything() if "amplify" not in line["key"] or " 10% " in line["key"]]
    found = sections(Evidence(lines), "results.jsonl")
    looks: dict[str, set[str]] = {}
    for picture in (picture for section in found for picture in section.pictures):
        for legend in picture.draw().legends:
            for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
                looks.setdefault(text.get_text(), set()).add(handle.get_color())
    assert looks.keys() == {"none", "amplify\nalpha=0.4", "sentmix"}
    assert all(len(colours) == 1 for colours in looks.values())
    assert len(set.union(*looks.values())) == 3


def test_names_and_errors_are_escaped(tmp_path):
    task, error = '<b>|$x_1$ & "q"', "ValueError: <script>alert(1)</script> `a` | b"
    lines = [run_line(0.8, method, seed, task=task) for method in ("none", "amplify") for seed in (1, 2)]
    html, markdown = report_of([*lines, failed_line(error, seed=3, task=task)], tmp_path)
    page = Page(html)
    assert [tag for tag, _ in page.tags].count("script") == 1 and "b" not in {tag for tag, _ in page.tags}
    assert page.table("What failed")[1] == ["run", lines[0]["key"].replace("seed=1", "seed=3"), error]
    assert page.table("Test accuracy")[0] == ["method", task]
    assert task in page.text
    assert r"\<script\>alert(1)\</script\> \`a\` \| b |" in markdown
    assert r'| method | \<b\>\|\$x_1\$ \& "q" |' in markdown


def test_what_the_runs_do_not_have_is_left_out():
    lines = [run_line(0.8, method, metrics={"pearson": 0.8}, loss=[]) for method in ("none", "amplify")]
    for line in lines:
        del line["measures"], line["reliability"]
    assert titles_of(lines) == ["What came out", "Results", "Differences to none", "Cost", "What was run"]


def test_one_seed_has_no_interval_and_no_verdict():
    lines = [run_line(0.5, "none"), run_line(0.9, "amplify"), run_line(0.9, "amplify", seed=2)]
    assert "one seed says nothing about others" in sections(Evidence(lines), "")[0].text[0]
    assert table_of(lines, "Test accuracy")[1:] == [["none", "50.0"], ["amplify", "90.0 ± 0.0"]]
    assert table_of(lines, "Differences to none")[1] == ["amplify", "trec", "1", "+40.0", "–", "–", "–", "–"]
    assert not {"▼", "*"} & set(str(tables_of(lines)))


def test_alphas_of_a_method_are_a_curve():
    worth = {"none": 0.0, "tmix": 0.0, "amplify": 0.01, "amplify:alpha=0.4": 0.02, "amplify:alpha=1": 0.05}
    worth |= {"sentmix:alpha=1": 0.03}
    lines = [run_line(0.7 + gain + seed / 100, method, seed) for method, gain in worth.items() for seed in (1, 2)]
    (section,) = (each for each in sections(Evidence(lines), "") if each.title == "Alpha")
    # AMPLIFY's default is 0.1; sentmix has one alpha only and is no curve. A method has its colour of other figures.
    means, gains = (picture.draw().axes[0].containers for picture in section.pictures)
    for bars, wanted in ((means, [[71.5] * 3, [72.5, 73.5, 76.5]]), (gains, [[1, 2, 5]])):
        for line, right in zip([each[0] for each in bars], wanted, strict=True):
            np.testing.assert_allclose(line.get_xdata(), [0.1, 0.4, 1.0], rtol=0.05)
            np.testing.assert_allclose(line.get_ydata(), right)
    assert means[1][0].get_color() == gains[0][0].get_color() == styles(list(worth))["amplify"].colour
    # What was tuned has another alpha than its name says.
    assert "Alpha" not in titles_of([{**line, "tune": 4} for line in lines])


def test_methods_stand_in_the_order_of_alpha_whichever_run_ended_first():
    ended = ["sentmix", "amplify:alpha=1", "amplify-code", "none", "amplify", "amplify:alpha=0.4", "mine"]
    lines = [run_line(method=method) for method in ended]
    lines[-1]["method"] = "amplify:alpha=0.2"
    wanted = ["none", "sentmix", "amplify", "mine", "amplify:alpha=0.4", "amplify:alpha=1", "amplify-code"]
    assert Evidence(lines).methods == wanted
    # So do those that differ in other numbers; which run ended first decides between the names of methods alone.
    draws = ["amplify:draws=20", "tmix", "amplify:layers=3,4", "amplify:draws=3", "none", "amplify:layers=1,2"]
    ordered = ["none", "amplify:draws=3", "amplify:draws=20", "amplify:layers=1,2", "amplify:layers=3,4", "tmix"]
    assert Evidence(run_line(0.8, method) for method in draws).methods == ordered


def test_methods_with_names_of_their_own_are_explained_and_drawn_as_what_they_are():
    worth = {"none": 0.0, "little": 0.01, "much": 0.05}
    lines = [run_line(0.7 + gain + seed / 100, method, seed) for method, gain in worth.items() for seed in (1, 2)]
    for line in lines:
        if (method := line["cell"]["method"]) != "none":
            line["method"] = f"amplify:alpha={0.4 if method == 'little' else 1}"
    found = {section.title: section for section in sections(Evidence(lines), "")}
    assert found["Results"].text == ["little is amplify:alpha=0.4; much is amplify:alpha=1."]
    assert [row[0] for row in table_of(lines, "Test accuracy")[1:]] == ["none", "little", "much"]
    (means,) = (picture.draw().axes[0].containers for picture in found["Alpha"].pictures if picture.name == "alpha_1")
    np.testing.assert_allclose(means[1][0].get_xdata(), [0.4, 1.0], rtol=0.05)


def test_a_reliability_diagram_leaves_out_bins_of_a_few_rows():
    bins = {"count": [1, 49, 150], "confidence": [0.1, 0.5, 0.9], "accuracy": [1.0, 0.4, 0.8]}
    lines = [run_line(0.8, reliability={"raw": bins, "scaled": bins})]
    (section,) = (each for each in sections(Evidence(lines), "") if each.title == "Calibration")
    (picture,) = section.pictures
    for axes in picture.draw().axes:
        _, line, *_ = axes.lines
        assert line.get_xdata().tolist() == [0.5, 0.9] and line.get_ydata().tolist() == [0.4, 0.8]


@pytest.mark.parametrize(
    ("method", "family", "alpha"),
    [
        ("amplify", "amplify", 0.1),
        ("amplify:layers=1,2:alpha=0.4", "amplify:layers=1,2", 0.4),
        ("none", "none", None),
        ("mixup-transformer", "mixup-transformer", None),
        ("something-older", "something-older", None),
    ],
)
def test_the_alpha_of_a_method(method, family, alpha):
    assert family_and_alpha(method) == (family, alpha)


def test_without_none_there_are_no_differences():
    lines = [run_line(0.8, "amplify", seed) for seed in (1, 2)]
    assert table_of(lines, "Test accuracy")[1:] == [["amplify", "80.0 ± 0.0"]]
    assert "Differences to none" not in titles_of(lines)


def test_methods_are_ranked_and_timed_on_the_seeds_that_all_have():
    lines = [run_line(accuracy, "none", seed) for seed, accuracy in ((1, 0.9), (2, 0.5))]
    # Above the mean of none, and below it on the seed that both have.
    lines += [
        run_line(0.8, "amplify", 1),
        run_line(0.9, "none", 1, task="rte"),
        run_line(0.7, "amplify", 1, task="rte"),
    ]
    assert table_of(lines, "Average ranks over 2 settings")[1:] == [["none", "1.00"], ["amplify", "2.00"]]
    (section,) = (each for each in sections(Evidence(lines), "") if each.title == "Results")
    assert "same seeds" in section.text[0]
    slow = run_line(0.5, "none", 2)
    slow["cost"] = {**slow["cost"], "step_seconds": 5.0}
    assert table_of([lines[0], slow, lines[2]], "Cost")[2][-1] == "1.20"
    # Times of different machines do not compare.
    elsewhere = [slow, run_line(0.5, "amplify", 2, machine="another")]
    assert table_of([*lines, *elsewhere], "Cost")[2][-1] == "1.20"


def test_means_over_settings_are_over_those_that_all_methods_have():
    worth = {"none": 0.5, "amplify": 0.6, "tmix": 0.7}
    lines = [run_line(worth[name], name, seed) for name in worth for seed in (1, 2)]
    lines += [
        run_line(0.9 if name == "tmix" else 0.5, name, seed, "rte") for name in ("none", "tmix") for seed in (1, 2)
    ]
    lines += [failed_line("NonFiniteLossError: no number", method="tmix", seed=seed) for seed in (3, 4)]
    caption = "; mean difference and time over the 1 of 2 settings that all of them have"
    (found,) = (table for name, table in tables_of(lines).items() if caption in name)
    assert [row[:1] + row[4:6] for row in found[1:]] == [["amplify", "0", "+10.0"], ["tmix", "2", "+20.0"]]


def test_measures_that_do_not_exist_leave_the_rest():
    lines = [run_line(0.5, name, seed, metrics={"pearson": None}) for name in ("none", "amplify") for seed in (1, 2)]
    lines += [
        run_line(0.5, name, seed, "sts", metrics={"pearson": 0.5}) for name in ("none", "amplify") for seed in (1, 2)
    ]
    lines[-1]["metrics"] = {"pearson": None}
    for some in (lines[:4], lines):
        for section in sections(Evidence(some), ""):
            for picture in section.pictures:
                picture.draw()
    assert table_of(lines, "Differences to none")[1][2:] == ["1", "+0.0", "–", "–", "–", "–"]


def test_figures_have_names_of_their_own_without_none_too():
    lines = [
        run_line(0.8, method, seed, task, size)
        for method in ("amplify", "amplify:alpha=1")
        for seed in (1, 2)
        for task in ("trec", "rte")
        for size in ("10%", "all")
    ]
    names = [picture.name for section in sections(Evidence(lines), "") for picture in section.pictures]
    assert len(names) == len(set(names)) and {"rows_1", "rows_2", "alpha_1", "alpha_4"} <= set(names)


def test_failures_alone_make_a_report():
    assert titles_of([failed_line("RuntimeError: out of memory")]) == ["Failures", "What was run"]


def lines_of(grid: Grid) -> list[dict[str, Any]]:
    """A run for each cell of a grid."""
    return [
        run_line(task="colours", seed=cell.seed) | runner._job(grid, "run", cell, {}).record({})
        for cell in grid.cells()
    ]


def test_the_rerun_is_the_same_grid(grid, settings, tmp_path):
    settings["tasks"] = [{"folder": settings["tasks"][0], "options": {"num_train_epochs": 2}}]
    # Which one of the methods has in its own way.
    settings["options"] = {**settings["options"], "weight_decay": 0.1}
    settings["methods"] = ["none", "amplify:alpha=1:weight_decay=0.2", "mine=tmix:alpha=1:weight_decay=0.3"]
    grid = make_grid(settings)
    lines = lines_of(grid)
    (code,) = (code.text for code in sections(Evidence(lines), "")[-1].code if code.language == "yaml")
    again = yaml.safe_load(code)
    again["tasks"][0]["folder"] = settings["tasks"][0]["folder"]
    again["models"] = settings["models"]
    again = make_grid(again)
    assert again.cells() == grid.cells()
    results_of(lines, tmp_path).check_grid(again)  # raises where an option is another
    assert [again.run_options(cell) for cell in again.cells()] == [grid.run_options(cell) for cell in grid.cells()]


def test_tuning_is_shown():
    tuning = {
        **run_line(),
        "kind": "tuning",
        "key": "tuning trec",
        "best": {"learning_rate": 2e-5},
        "trials": [
            {"flags": {"learning_rate": 2e-5}, "value": 0.75, "state": "COMPLETE"},
            {"flags": {"learning_rate": 1e-5}, "value": 0.80, "state": "PRUNED"},
        ],
    }
    wanted = [
        "trec",
        "minilm",
        "all",
        "0%",
        "none",
        "2",
        "1",
        "75.0",
        "learning_rate=2e-05",
    ]
    assert table_of([tuning, run_line()], "Tuning")[1] == wanted


# ---- The command ------------------------------------------------------------------------------------------------


def call(*words: object) -> int:
    try:
        return main(["report", *map(str, words)])
    except SystemExit as stop:
        return stop.code


def test_the_command_writes_and_replaces_a_report(tmp_path, capsys):
    results = results_of([run_line()], tmp_path)
    for _ in range(2):
        assert call(results.path, "--output", tmp_path / "out") == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        str(tmp_path / "out" / f"report.{end}") for end in ("html", "md")
    ]


def fill(folder: Path) -> None:
    folder.mkdir()
    (folder / "report.html").write_text("mine")


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda path: (path / "results.jsonl").unlink(), "there is no file of results"),
        (lambda path: (path / "results.jsonl").write_text(""), "is empty"),
        (lambda path: (path / "results.jsonl").write_text('{"a": 1}\n{"b": 2}\n'), "no file of results"),
        (lambda path: (path / "results.jsonl").write_text('{"key": "a", "kind": "run"}\n'), "no file of results"),
        (lambda path: (path / "out").write_text("mine"), "is a file"),
        (lambda path: (path / "out").symlink_to(path / "nowhere"), "cannot be made"),
        (
            lambda path: (path / "out").mkdir() or (path / "out" / "report.html").write_text("mine"),
            "other than a report",
        ),
    ],
)
def test_mistakes_are_one_sentence_and_nothing_is_overwritten(prepare, said, tmp_path, capsys):
    results = results_of([run_line()], tmp_path)
    prepare(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert call(results.path, "--output", tmp_path / "out") == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.startswith("hf-mixup report: ")
    assert captured.err.count("\n") == 1 and captured.out == ""
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def report_with_pictures(tmp_path: Path) -> tuple[Path, Path]:
    """A file of results, and the folder of its report."""
    path = results_of([run_line(), run_line(seed=2)], tmp_path).path
    assert call(path, "--output", tmp_path / "out") == 0
    return path, tmp_path / "out"


def contents(folder: Path) -> dict[Path, bytes | Path]:
    """The files below a folder, and what links lead to."""
    return {path: path.readlink() if path.is_symlink() else path.read_bytes() for path in files_below(folder)}


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]


def test_only_pictures_of_the_older_report_are_removed(tmp_path):
    results, folder = report_with_pictures(tmp_path)
    ours = {"cost_1.png", "loss_1.png", "reliability_1.png"}
    assert {path.name for path in (folder / "figures").iterdir()} == ours
    for name in ("mine.png", "loss_2.png", "Loss_1.png", "notes.txt"):
        (folder / "figures" / name).write_bytes(b"mine")
    (folder / "mine.html").write_bytes(b"mine")
    # A report with fewer pictures, and one of its pictures is gone.
    results.write_text("")
    results_of([run_line(loss=[])], tmp_path)
    (folder / "figures" / "cost_1.png").unlink()
    assert call(results, "--output", folder) == 0
    mine = {"mine.png", "loss_2.png", "Loss_1.png", "notes.txt"}
    assert {path.name for path in (folder / "figures").iterdir()} == {*mine, "cost_1.png", "reliability_1.png"}
    assert all((folder / "figures" / name).read_bytes() == b"mine" for name in mine)
    assert (folder / "mine.html").read_bytes() == b"mine"


def link(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda out, others: link(out / "figures", others), "figures is a link"),
        (lambda out, others: link(out / "report.html", others / "report.html"), "report.html is a link"),
        (lambda out, others: link(out / "report.md", others / "report.md"), "report.md is a link"),
        (lambda out, others: link(out / "report.md", others / "nothing"), "report.md is a link"),
        (lambda out, others: link(out / "figures" / "loss_1.png", others / "a.png"), "loss_1.png is not of the older"),
        (lambda out, others: shutil.copy(others / "a.png", out / "figures" / "ranks.png"), "ranks.png is not of the"),
        (lambda out, others: shutil.rmtree(out / "figures") or shutil.copy(others / "a.png", out / "figures"), "File"),
        (lambda out, others: (out / "report.md").unlink() or (out / "report.md").mkdir(), "Is a directory"),
    ],
)
def test_a_report_replaces_nothing_of_others(tmp_path, capsys, spoil, said):
    results, folder = report_with_pictures(tmp_path)
    others = tmp_path / "others"
    shutil.copytree(folder, others)
    (others / "a.png").write_bytes(b"theirs")
    spoil(folder, others)
    # The next one has the picture of the ranks, too.
    results_of([run_line(method=method, task=task) for method in ("none", "tmix") for task in "ab"], tmp_path)
    capsys.readouterr()
    before = {path: content for path, content in contents(tmp_path).items() if path.parent != folder}
    assert call(results, "--output", folder) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and captured.out == ""
    after = contents(tmp_path)
    assert {path: after[path] for path in before} == before


def test_a_report_on_a_full_disk_is_told_and_written_again_later(tmp_path, capsys, monkeypatch):
    results, folder = report_with_pictures(tmp_path)

    def full(figure, file):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("hf_mixup.compare.figures.save_png", full)
        assert call(results, "--output", folder) == 2
    said = capsys.readouterr().err
    assert re.search(r"the report cannot be written \(.*\.png: No space left on device\); make room", said)
    assert call(results, "--output", folder) == 0


def test_compare_writes_a_report_at_its_end(grid, settings, tmp_path, capsys):
    settings_file = tmp_path / "grid.yaml"
    settings_file.write_text(yaml.safe_dump(settings))
    flags = [str(settings_file), "--output", str(results_of(lines_of(grid), tmp_path).path), "--report"]
    assert main(["compare", *flags, str(tmp_path / "out")]) == 0  # all of the grid is done
    assert capsys.readouterr().out.endswith(f"{tmp_path / 'out' / 'report.md'}\n")
    assert Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8")).table("Test accuracy")
    assert main(["compare", *flags, str(settings_file)]) == 2
    assert "grid.yaml is a file; give a folder" in capsys.readouterr().err


def test_compare_tells_that_its_report_would_replace_something(grid, settings, tmp_path, capsys, monkeypatch):
    path = results_of(lines_of(grid), tmp_path).path
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(settings))
    # What came into the folder while the grid ran.
    monkeypatch.setattr("hf_mixup.compare.main.run_grid", lambda *_: fill(tmp_path / "out"))
    assert (
        main(["compare", str(tmp_path / "grid.yaml"), "--output", str(path), "--report", str(tmp_path / "out")]) == 2
    )
    assert "out holds something other than a report; give a new folder" in capsys.readouterr().err
    assert (tmp_path / "out" / "report.html").read_text() == "mine"


# ---- In a browser -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium: the machine's own, or that of playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with api.sync_playwright() as playwright:
        if path is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip("no browser is installed: apt-get install chromium")
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(browser, scheme, width, whole):
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    address = (whole[2] / "report.html").as_uri()
    page.goto(address)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(21, 20, 26)"
    )
    # Ink on the figures is that of the page.
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert page.evaluate("getComputedStyle(document.querySelector('svg text')).fill") == ink
    figures = page.locator("figure svg")
    assert figures.count() == 25
    for figure in figures.all():
        figure.scroll_into_view_if_needed()
        box = figure.bounding_box()
        assert figure.is_visible() and box["width"] > 200 and box["height"] > 80
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
    # Nothing is wider than the window, but what scrolls by itself and says so.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.evaluate(
        "[...document.querySelectorAll('.scroll')].map(each => [each.scrollWidth > each.clientWidth,"
        " getComputedStyle(each.querySelector('caption span'), '::after').content])"
    )
    said_so = [content.startswith('" The table is wider than the page') for _, content in wide]
    assert [is_wide for is_wide, _ in wide] == said_so and any(said_so) == (width == 390)
    assert page.locator(".answer").inner_text().startswith("Three seeds in four settings on trec: ")

    table = page.locator("table", has_text="Differences to none in points")
    heading = table.locator("th", has_text="difference")
    place = [text.strip() for text in table.locator("th").all_inner_texts()].index("difference")

    def shown() -> list[float]:
        texts = table.locator(f"tbody tr td:nth-child({place + 1})").all_inner_texts()
        return [float(text.replace("−", "-")) for text in texts]

    unsorted = shown()
    heading.locator("button").click()
    assert shown() == sorted(unsorted) != unsorted and heading.get_attribute("aria-sort") == "ascending"
    heading.locator("button").press("Enter")
    assert shown() == sorted(unsorted, reverse=True) and heading.get_attribute("aria-sort") == "descending"
    method = table.locator("th", has_text="method")
    method.locator("button").click()
    names = table.locator("tbody tr td:first-child").all_inner_texts()
    assert names == sorted(names) and heading.get_attribute("aria-sort") is None
    assert said == [] and asked == [address]
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "paper", "ink"), [("light", PAPER, "#1b1b1f"), ("dark", DARK[PAPER], "#ececf1")])
def test_a_picture_of_its_own_follows_the_scheme(browser, scheme, paper, ink, tmp_path):
    (picture, *_) = (picture for section in sections(Evidence(everything()), "") for picture in section.pictures)
    save_svg(picture.draw(), tmp_path / "figure.svg", picture.label)
    page = browser.new_page(color_scheme=scheme)
    page.goto((tmp_path / "figure.svg").as_uri())
    for element, colour in (("path", paper), ("text", ink)):
        wanted = f"rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})"
        assert page.evaluate(f"getComputedStyle(document.querySelector('{element}')).fill") == wanted
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_attention_page_in_a_browser(browser, scheme, width):
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    page.goto((Path(__file__).parents[2] / "docs" / "results" / "attention_layer4_head1.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = "rgb(255, 255, 255)" if scheme == "light" else "rgb(21, 20, 26)"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    # The map of a short text needs no scrolling on a phone, as long as no numbers are shown.
    fits = "(each => each.scrollWidth <= each.clientWidth)(document.querySelector('.map'))"
    assert page.evaluate(fits)
    page.locator("#numbers").check()
    assert page.evaluate(fits) == (width == 1280)
    page.close()
