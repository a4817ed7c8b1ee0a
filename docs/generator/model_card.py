"""The example of a model card."""

from __future__ import annotations

import json
from pathlib import Path

from docs.generator.tables import DOCS
from hf_mixup.trainer.model_card import CardFacts, model_card

CARD = """# A model card

What `run_glue_mixup.py` and `MixupTrainer.create_model_card` write as `README.md` beside the model: here that of a
short run on the first 1000 rows of MRPC, from [its facts](results/model_card_example.json).

````markdown
{card}````
"""


def pages() -> dict[Path, str]:
    """The page by its path."""
    facts = json.loads((DOCS / "results" / "model_card_example.json").read_text(encoding="utf-8"))
    return {DOCS / "model_card_example.md": CARD.format(card=model_card(CardFacts(**facts)))}
