"""Write the pages that follow from the code and from the raw results; each module of `docs/generator` writes its own.

    python docs/generate.py

A test fails when a page is not what this writes.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from docs.generator import advice, calibrate, claims, families, gpu, methods, model_card, performance, results


def pages() -> dict[Path, str]:
    """The pages by path."""
    modules = (methods, results, claims, advice, calibrate, performance, families, model_card, gpu)
    return {path: text for module in modules for path, text in module.pages().items()}


def figures() -> dict[Path, Figure]:
    """The figures by path."""
    return results.figures() | performance.figures()


def main() -> None:
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    # The same input gives the same file: no random names, no date.
    with rc_context({"svg.hashsalt": "hf_mixup", "svg.fonttype": "none"}):
        for path, figure in figures().items():
            path.parent.mkdir(exist_ok=True)
            figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
