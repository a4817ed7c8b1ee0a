"""Methods whose label weights the model finds: one mean over all rows that count, as in a loop over the rows."""

import numpy as np
import pytest
import torch
from torch import nn

from hf_mixup import METHODS
from hf_mixup.methods import Mixup
from hf_mixup.mixing import StepKey
from tests.modeling import reference
from tests.tiny import tiny_batch, tiny_dataset, tiny_model, wordpiece_tokenizer
from tests.trainer.runs import logged, train

ROWS, STEPS, RATE = 8, 4, 0.3
CLASS_WEIGHTS = (0.5, 4.0, 1.0)
# Rows without a label meet labelled partners, and each half of the batch has another number of them.
LABELS = [0, -100, 2, 1, -100, 1, -100, 0]
METHOD_OPTIONS = {
    "attentionmix": {"attention_head": 1},
    "nonlinear": {"label_weight": "learned"},
    "ssmix": {},
}


def plan_of(name, micro, step, labels):
    mixup = Mixup(
        METHODS[name].with_options(**METHOD_OPTIONS[name]),
        num_layers=3,
        hidden_size=32,
        num_heads=4,
        special_ids=[wordpiece_tokenizer().pad_token_id],
    )
    return mixup.plan({}, labels, StepKey(42, 0, step, micro))


def batch_terms(name, model, gate, batch, labels, plan):
    """The loss and weight of one batch; of ssmix both passes, each with half the weight."""
    partner = plan.partner.tolist()
    if name != "ssmix":
        outputs = model(**batch, mixup=plan)
        share = outputs.label_weight if gate is None else torch.sigmoid(gate(outputs.pooled)).squeeze(-1)
        return reference.weighted_terms(outputs.logits, labels, partner, share, CLASS_WEIGHTS)
    tap = torch.zeros(*batch["input_ids"].shape, 32, requires_grad=True)
    clean_loss, clean_weight = reference.weighted_terms(
        model(**batch, mixup=plan.tapped(tap)).logits, labels, partner, [1.0] * len(labels), CLASS_WEIGHTS
    )
    (gradient,) = torch.autograd.grad(clean_loss, tap, retain_graph=True)
    ids, swapped = plan.swapped(batch["input_ids"], batch["attention_mask"], gradient)
    logits = model(input_ids=ids, attention_mask=batch["attention_mask"], mixup=swapped).logits
    loss, weight = reference.weighted_terms(logits, labels, partner, swapped.label_weight.tolist(), CLASS_WEIGHTS)
    return (clean_loss + loss) / 2, (clean_weight + weight) / 2


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("name", METHOD_OPTIONS)
def test_the_sum_of_the_losses_is_divided_by_the_sum_of_their_weights(tmp_path, name, accumulated):
    # Rows of different lengths, or every swap of ssmix would have the same share.
    padded = tiny_batch("bert", rows=ROWS, length=40)
    dataset = tiny_dataset(rows=ROWS, label=LABELS, **{key: value.tolist() for key, value in padded.items()})
    options = {f"mixup_{option}": value for option, value in METHOD_OPTIONS[name].items()}
    trainer = train(
        tmp_path,
        tiny_model("bert", dropout=0.0),
        dataset=dataset,
        trainer_options={"processing_class": wordpiece_tokenizer()},
        mixup_method=name,
        class_weights=list(CLASS_WEIGHTS),
        per_device_train_batch_size=ROWS // accumulated,
        gradient_accumulation_steps=accumulated,
        train_sampling_strategy="sequential",
        max_steps=STEPS,
        optim="sgd",
        learning_rate=RATE,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        **options,
    )

    model, gate = tiny_model("bert", dropout=0.0), None
    parameters = list(model.parameters())
    if name == "nonlinear":
        gate = nn.Linear(32, 1)
        nn.init.zeros_(gate.weight)
        nn.init.zeros_(gate.bias)
        parameters += gate.parameters()
    optimizer, losses, counted_by_own_labels = torch.optim.SGD(parameters, lr=RATE), [], []
    for step in range(STEPS):
        sums = []
        for micro, rows in enumerate(np.split(np.arange(ROWS), accumulated)):
            batch = {key: value[rows] for key, value in padded.items()}
            labels = [LABELS[i] for i in rows]
            plan = plan_of(name, micro, step, torch.tensor(labels))
            sums.append(batch_terms(name, model, gate, batch, labels, plan))
        loss, weight = (sum(parts) for parts in zip(*sums, strict=True))
        optimizer.zero_grad()
        (loss / weight).backward()
        optimizer.step()
        losses.append((loss / weight).item())
        counted_by_own_labels.append(loss.item() / sum(CLASS_WEIGHTS[label] for label in LABELS if label != -100))
    assert logged(trainer, "loss") == pytest.approx(losses, abs=1e-5)
    assert logged(trainer, "mixup_loss") == pytest.approx(losses, abs=1e-5)
    # The weights of the own labels alone are another divisor, by more than the comparison above forgives.
    assert np.abs(np.subtract(losses, counted_by_own_labels)).max() > 3e-5
    for (parameter, ours), expected in zip(trainer.model.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, atol=2e-6, rtol=1e-4, msg=parameter)
    if gate is not None:
        torch.testing.assert_close(trainer._label_gate.weight, gate.weight, atol=2e-6, rtol=1e-4)
        torch.testing.assert_close(trainer._label_gate.bias, gate.bias, atol=2e-6, rtol=1e-4)
