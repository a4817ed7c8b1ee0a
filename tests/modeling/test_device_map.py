"""Placing a model on several devices: a block, which adds its own input to its output, is never torn apart."""

import torch
from accelerate import cpu_offload, infer_auto_device_map
from accelerate.utils import compute_module_sizes

from hf_mixup.mixing import PairPlan
from tests.tiny import NUM_LAYERS, tiny_batch, tiny_model

BLOCKS = {"bert": "encoder.layer", "roberta": "encoder.layer", "distilbert": "transformer.layer"}
BUDGETS = 24


def test_no_memory_budget_splits_a_block(family):
    model = tiny_model(family)
    blocks = tuple(f"{family}.{BLOCKS[family]}.{number}." for number in range(NUM_LAYERS))
    total = compute_module_sizes(model)[""]
    splits = {"kept whole": 0, "free to split": 0}
    for number in range(1, BUDGETS + 1):
        # From hardly anything to the whole model on the first device, as much on the second, and the rest elsewhere.
        memory = {0: total * number // BUDGETS, 1: total * number // BUDGETS, "cpu": total}
        for whole, classes in (("kept whole", list(model._no_split_modules)), ("free to split", [])):
            device_map = infer_auto_device_map(model, memory, no_split_module_classes=classes)
            splits[whole] += any(name.startswith(blocks) for name in device_map)
    assert splits["kept whole"] == 0 and splits["free to split"] >= 10, splits


def test_a_mixed_pass_of_a_model_that_is_placed_piece_by_piece(family):
    model = tiny_model(family, dropout=0.0)
    batch = tiny_batch(family, rows=4)
    plan = PairPlan(torch.tensor([1, 2, 3, 0]), torch.tensor(0.7), "attention", layers=(1, 2))
    with torch.no_grad():
        expected = model(**batch, mixup=plan).logits
        placed = cpu_offload(model, execution_device="cpu")(**batch, mixup=plan).logits
    assert torch.equal(placed, expected)
