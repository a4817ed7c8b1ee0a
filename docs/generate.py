"""Write the pages that follow from the code and from the raw results; each module of `docs/generator` writes its own.

    python docs/generate.py

A test fails when a page is not what this writes.
"""

from __future__ import annotations

from pathlib import Path

from docs.generator import advice, calibrate, claims, families, gpu, methods, model_card, performance, results
from hf_mixup.compare.blocks import Picture
from hf_mixup.compare.figures import save_svg


def pages() -> dict[Path, str]:
    """The pages by path."""
    modules = (methods, results, claims, advice, calibrate, performance, families, model_card, gpu)
    return {path: text for module in modules for path, text in module.pages().items()}


def figures() -> dict[Path, Picture]:
    """The figures by path."""
    return results.figures() | performance.figures()


def main() -> None:
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for path, picture in figures().items():
        path.parent.mkdir(exist_ok=True)
        save_svg(picture.draw(), path, picture.label)


if __name__ == "__main__":
    main()
