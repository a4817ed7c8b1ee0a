"""How often a training step waits for the device, and what the filter of NaN losses still does."""

import numpy as np
import pytest
import torch
from transformers import Trainer

from hf_mixup import MixupTrainer
from tests.tiny import tiny_dataset
from tests.trainer.runs import train
from tests.trainer.waits import METHODS, waits_of_steps


@pytest.mark.parametrize("method", METHODS)
def test_no_step_waits_more_often_than_the_stock_trainers(tmp_path, method):
    stock = waits_of_steps(tmp_path, Trainer)
    ours = waits_of_steps(tmp_path, MixupTrainer, mixup_method=method, **METHODS[method])
    assert len(ours) == len(stock) == 3
    weighted = {"columns": {"weight": np.linspace(0, 2, 64).tolist()}}
    of_rows = waits_of_steps(tmp_path, MixupTrainer, **weighted, mixup_method=method, **METHODS[method])
    # Trainer looks at each of the two losses twice.
    assert min(stock) >= 4
    assert all(one <= two for one, two in zip(ours, stock, strict=True)), (ours, stock)
    assert of_rows == ours


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
