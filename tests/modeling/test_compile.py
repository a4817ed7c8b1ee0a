"""torch.compile: the same logits, and one frame for the plain steps and one for the mixed ones."""

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from hf_mixup.mixing import PairPlan
from tests.tiny import tiny_batch, tiny_model

# The compiler itself uses what torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")


# Every site in one family, and in another one the sites for which it has code of its own.
@pytest.mark.parametrize(
    ("family", "site", "layers", "draws"),
    [
        ("bert", "attention", (1, 2, 3), False),
        ("bert", "attention_block", (2,), False),
        ("bert", "hidden", (0, 1, 2, 3), True),
        ("bert", "attention", (1, 3), True),
        ("bert", "pooled", (), False),
        ("distilbert", "attention", (1, 3), True),
        ("distilbert", "attention_block", (2,), False),
    ],
    ids=str,
)
def test_changing_plans_compile_once(family, site, layers, draws):
    assert compiled_frames(family, site, layers, draws) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("site", "layers", "draws"), [("attention", (1, 2, 3), False), ("hidden", (0, 1, 2, 3), True)]
)
def test_changing_plans_compile_once_in_every_family(any_family, site, layers, draws):
    assert compiled_frames(any_family, site, layers, draws) == 2


def logits_and_gradients(model, batch, plan):
    model.zero_grad()
    logits = model(**batch, mixup=plan).logits
    logits.square().sum().backward()
    return logits, [torch.zeros(()) if each.grad is None else each.grad.clone() for each in model.parameters()]


def compiled_frames(family, site, layers, draws):
    """The frames of plain passes and of passes with changing plans, after comparing what both give."""
    torch.compiler.reset()
    model = tiny_model(family, dropout=0.0)
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter)
    batch = tiny_batch(family)
    generator = np.random.default_rng(0)
    for _ in range(4):
        plan = PairPlan(
            torch.from_numpy(generator.permutation(5)),
            torch.tensor(generator.random(), dtype=torch.float32),
            site,
            layers=layers,
            drawn=torch.tensor(generator.choice(layers)) if draws else None,
            attention_mask="union" if layers else "own",
        )
        expected, expected_gradients = logits_and_gradients(model, batch, plan)
        found, gradients = logits_and_gradients(compiled, batch, plan)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(gradients, expected_gradients, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(compiled(**batch).logits, model(**batch).logits, atol=1e-5, rtol=1e-5)
    return counter.frame_count
