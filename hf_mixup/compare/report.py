"""`hf-mixup report`: a file of results as a page for a browser, and as Markdown with pictures."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_mixup.compare.results import Results
from hf_mixup.errors import OneSentenceParser, UsageError, as_one_line, install_hint
from hf_mixup.files import check_writable, written_beside
from hf_mixup.shown import code_block, visible, visible_lines
from hf_mixup.shown import markdown as markdown_text

if TYPE_CHECKING:
    from hf_mixup.compare.blocks import Section

_TEMPLATES = Path(__file__).parent / "templates"
_OURS = '<meta name="generator" content="hf_mixup">'
# The page names the pictures beside it, as all text of the data in it is escaped.
_FIGURE = re.compile(r'<figure id="([a-z0-9_]+)">')


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the command line without the program's name; that of the process by default.

    Returns:
        The exit code: 0; 2 after one sentence on stderr for a mistake of the user.

    Raises:
        SystemExit: code 2 for a mistake in the flags, code 0 after `--help`.

    Example:
        >>> main(["trec.jsonl", "--output", "report"])  # doctest: +SKIP
        0
    """
    options = _parser().parse_args(argv)
    try:
        if not options.results.exists():
            raise UsageError(f"there is no file of results {options.results}; hf-mixup compare writes one")
        results = Results(options.results)
        results.warn("hf-mixup report")
        written = write_report(results, options.output)
    except UsageError as error:
        sys.stderr.write(f"hf-mixup report: {as_one_line(error)}\n")
        return 2
    sys.stdout.write("".join(f"{visible(file)}\n" for file in written))
    return 0


def check_report(folder: Path) -> None:
    """Check that a report can be written to a folder: one that is new, empty, or holds an older report and no links.

    Raises:
        UsageError: if not.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(f"a report needs {error.name}, which is not installed; {install_hint('compare')}") from error
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"the report's folder {folder} is a file; give a folder")
    check_writable(folder, f"the report's folder {folder}")
    for path in (folder / "report.html", folder / "report.md", folder / "figures"):
        if path.is_symlink():
            raise UsageError(
                f"{path} is a link, and what it leads to is not replaced; give a new folder for the report"
            )
    if folder.exists() and any(folder.iterdir()) and _OURS not in _older_page(folder):
        raise UsageError(f"the folder {folder} holds something other than a report; give a new folder for the report")


def _older_page(folder: Path) -> str:
    """The page of the report in a folder; empty if the folder has no report."""
    page = folder / "report.html"
    return page.read_text(encoding="utf-8", errors="replace") if page.is_file() else ""


def write_report(results: Results, folder: Path) -> list[Path]:
    """Write `report.html`, which needs nothing beside it, and `report.md` with its pictures in `figures`.

    Args:
        results: the file, with at least one line.
        folder: where it goes; an older report in it is replaced, its pictures too, and nothing else.

    Returns:
        The two files.

    Raises:
        UsageError: the file of results is empty, or the folder holds what is not to be replaced, or is full.

    Example:
        >>> write_report(Results("trec.jsonl"), Path("report"))  # doctest: +SKIP
    """
    # Drawing is loaded only where it is wanted: the extra `compare` has it.
    from markupsafe import Markup

    from hf_mixup.compare import figures
    from hf_mixup.compare.evidence import Evidence
    from hf_mixup.compare.sections import opening, sections

    if not results.lines:
        raise UsageError(f"the file of results {results.path} is empty; run hf-mixup compare first")
    check_report(folder)
    evidence = Evidence(results.lines.values())
    parts = sections(evidence, results.path.name)
    pictures = {folder / "figures" / f"{each.name}.png": each for part in parts for each in part.pictures}
    older = {folder / "figures" / f"{name}.png" for name in _FIGURE.findall(_older_page(folder))}
    _check_pictures(pictures, older)
    drawn = {path: picture.draw() for path, picture in pictures.items()}
    drawings = {
        picture.name: Markup(figures.to_svg(drawn[path], picture.name, picture.label))
        for path, picture in pictures.items()
    }
    dark = {colour[1:]: dark for colour, dark in figures.DARK.items()}
    title, generator = f"Comparison of mixup methods: {results.path.name}", Markup(_OURS)
    answer = opening(evidence)
    files = {
        folder / "report.html": _render(
            "report.html",
            sections=parts,
            title=title,
            answer=answer,
            drawings=drawings,
            dark=dark,
            generator=generator,
        ),
        folder / "report.md": markdown(parts, title, answer),
    }
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for picture in older - pictures.keys():
            picture.unlink(missing_ok=True)
        # The page goes first: what it names is this report's, should the writing end here.
        for file, page in files.items():
            with written_beside(file) as beside:
                beside.write_text(page, encoding="utf-8")
        for file, figure in drawn.items():
            with written_beside(file) as beside:
                figures.save_png(figure, beside)
    except OSError as error:
        raise UsageError(
            f"the report cannot be written ({error.filename or folder}: {error.strerror}); make room, or give a new "
            "folder for the report"
        ) from error
    return list(files)


def _check_pictures(pictures: Iterable[Path], older: Collection[Path]) -> None:
    """Raise a UsageError if a picture would take the place of a file that is not the older report's."""
    for path in pictures:
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file() or path not in older):
            raise UsageError(f"{path} is not of the older report; rename it, or give a new folder for the report")


def markdown(
    parts: Sequence[Section], title: str, answer: str = "", pictures: str = "figures/", ending: str = ".png"
) -> str:
    """Sections as a page in Markdown, which shows pictures whose paths are `pictures`, their name and `ending`.

    The answer, if there is one, stands between the title and the sections.
    """
    return _render("report.md", sections=parts, title=title, answer=answer, pictures=pictures, ending=ending)


def _render(template: str, **content: Any) -> str:
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=lambda name: name == "report.html",
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible_text,
    )
    environment.filters |= {"markdown": markdown_text, "code_block": code_block, "anchor": _anchor}
    return environment.get_template(template).render(**content)


def _visible_text(value: Any) -> Any:
    """What a template writes: markup as it is, texts line by line with every character seen."""
    return visible_lines(value) if type(value) is str else value


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _parser() -> argparse.ArgumentParser:
    parser = OneSentenceParser(
        prog="hf-mixup report",
        description="Write report.html, one page that needs no network, and report.md with pictures, on the results "
        "of hf-mixup compare.",
    )
    parser.add_argument("results", type=Path, metavar="RESULTS", help="the file of results, JSON lines")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="where the report goes")
    return parser
