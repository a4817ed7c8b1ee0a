"""How often a training step waits for the device, and what the filter of NaN losses still does."""

from unittest.mock import patch

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Trainer

from hf_mixup import MixupTrainer
from tests.tiny import tiny_dataset, tiny_model, wordpiece_tokenizer
from tests.trainer.runs import train

aten = torch.ops.aten
METHODS = {
    "none": {},
    "amplify": {"mixup_ratio": "constant", "mixup_lambda": 0.7},
    "embedmix": {},
    "attentionmix": {"mixup_attention_head": "1"},
    "ssmix": {},
}


class Reads(TorchDispatchMode):
    """Counts the values of tensors that Python asks for: on a GPU the host waits for each."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default)
        return function(*args, **(kwargs or {}))


def reads_of_steps(folder, trainer_class, **options):
    """The reads of each optimizer step but the last, outside of drawing batches and plans, which the host does."""
    reads, counts = Reads(), []

    class Counted(trainer_class):
        def get_batch_samples(self, *args, **kwargs):
            counts.append(reads.count)
            samples = super().get_batch_samples(*args, **kwargs)
            reads.count = 0
            return samples

    # On a CPU values are checked, which is free there; those on a device are not looked at.
    checks = [patch(f"hf_mixup.mixing.{name}.can_read", return_value=False) for name in ("plan", "objectives")]
    with reads, checks[0], checks[1]:
        train(
            folder,
            tiny_model("bert", mixup=trainer_class is MixupTrainer),
            Counted,
            dataset=tiny_dataset(rows=64),
            trainer_options={"processing_class": wordpiece_tokenizer()},
            max_steps=4,
            gradient_accumulation_steps=2,
            logging_steps=100,
            **options,
        )
    return counts[1:]


@pytest.mark.parametrize("method", METHODS)
def test_no_step_waits_more_often_than_the_stock_trainers(tmp_path, method):
    stock = reads_of_steps(tmp_path, Trainer)
    ours = reads_of_steps(tmp_path, MixupTrainer, mixup_method=method, **METHODS[method])
    assert len(ours) == len(stock) == 3
    # Trainer looks at each of the two losses twice.
    assert min(stock) >= 4
    assert all(one <= two for one, two in zip(ours, stock, strict=True)), (ours, stock)


class NaNInEvaluation(MixupTrainer):
    """Its loss of the second evaluation batch is NaN."""

    def prediction_step(self, *args, **kwargs):
        loss, *rest = super().prediction_step(*args, **kwargs)
        self.losses.append(loss.item() if len(self.losses) != 1 else float("nan"))
        return torch.tensor(self.losses[-1]), *rest


@pytest.mark.parametrize("wanted", [True, False])
def test_the_filter_of_nan_losses_is_that_of_evaluations(tmp_path, wanted):
    trainer_class = type("Evaluated", (NaNInEvaluation,), {"losses": []})
    trainer = train(
        tmp_path,
        trainer_class=trainer_class,
        trainer_options={"eval_dataset": tiny_dataset(rows=24)},
        max_steps=2,
        eval_strategy="steps",
        eval_steps=2,
        per_device_eval_batch_size=8,
        logging_nan_inf_filter=wanted,
    )
    found = next(entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry)
    finite = [loss for loss in trainer_class.losses if loss == loss]
    assert len(finite) == 2
    assert found == pytest.approx(sum(finite) / 2, rel=1e-5) if wanted else found != found
    assert trainer.args.logging_nan_inf_filter is wanted
