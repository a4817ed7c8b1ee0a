"""Labels of other number types than the heads' losses take: they train and evaluate as the right types do."""

import numpy as np
import pytest
import torch
from datasets import IterableDataset
from torch import nn

from tests.tiny import same_weights, tiny_dataset, tiny_model
from tests.trainer.runs import STRONG, logged, train

SINGLE, MULTI = "single_label_classification", "multi_label_classification"


def evaluated(folder, labels, problem_type, data_collator=None, **options):
    dataset = tiny_dataset(rows=19, label=labels)
    trainer = train(
        folder,
        tiny_model("bert", problem_type=problem_type),
        dataset=dataset,
        trainer_options={"eval_dataset": dataset, "data_collator": data_collator},
        max_steps=3,
        **options,
    )
    return trainer, trainer.evaluate()["eval_loss"]


@pytest.mark.parametrize(
    ("kind", "problem_type", "mixup"),
    [(int, MULTI, {}), (int, None, STRONG), (bool, MULTI, {**STRONG, "mixup_prob": 0.5}), (bool, None, {})],
    ids=["none", "inferred", "some batches", "bool"],
)
def test_multi_hot_labels_may_be_whole_numbers(tmp_path, kind, problem_type, mixup):
    hits = np.random.default_rng(0).integers(0, 2, (19, 3))
    floats, expected_loss = evaluated(tmp_path, hits.astype(float).tolist(), MULTI, **mixup)
    whole, loss = evaluated(tmp_path, hits.astype(kind).tolist(), problem_type, **mixup)
    assert whole.model.config.problem_type == MULTI
    assert same_weights(whole.model, floats.model) and logged(whole, "loss") == logged(floats, "loss")
    logits = torch.tensor(whole.predict(whole.eval_dataset).predictions)
    by_torch = nn.BCEWithLogitsLoss()(logits, torch.tensor(hits).float()).item()
    assert loss == expected_loss == pytest.approx(by_torch, rel=1e-5)


def test_multi_hot_labels_are_evaluated_before_any_training(tmp_path):
    hits = np.random.default_rng(0).integers(0, 2, (19, 3))
    dataset = tiny_dataset(rows=19, label=hits.tolist())
    trainer = train(
        tmp_path, tiny_model("bert"), dataset=tiny_dataset(), max_steps=1, trainer_options={"eval_dataset": dataset}
    )
    trainer.model.config.problem_type = None
    logits = torch.tensor(trainer.predict(tiny_dataset(rows=19)).predictions)
    trainer.model.config.problem_type = None
    expected = nn.BCEWithLogitsLoss()(logits, torch.tensor(hits).float()).item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_one_hot_whole_numbers_are_soft_labels(tmp_path):
    ids = np.random.default_rng(0).integers(0, 3, 19)
    one_hot = np.eye(3, dtype=int)[ids]
    floats, expected_loss = evaluated(tmp_path, one_hot.astype(float).tolist(), SINGLE, **STRONG)
    whole, loss = evaluated(tmp_path, one_hot.tolist(), SINGLE, **STRONG)
    assert same_weights(whole.model, floats.model)
    logits = torch.tensor(whole.predict(tiny_dataset(rows=19)).predictions)
    assert loss == expected_loss == pytest.approx(nn.CrossEntropyLoss()(logits, torch.tensor(ids)).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("dtype", "mixup"), [(torch.int32, {}), (torch.int16, STRONG), (torch.bool, {}), (torch.bool, STRONG)], ids=str
)
def test_class_ids_may_have_any_whole_type(tmp_path, dtype, mixup):
    ids = [row % 2 for row in range(19)]

    def collate(features):
        batch = {name: torch.tensor([row[name] for row in features]) for name in ("input_ids", "attention_mask")}
        return {**batch, "labels": torch.tensor([row["label"] for row in features]).to(dtype)}

    options = {**mixup, "remove_unused_columns": False}
    expected, expected_loss = evaluated(tmp_path, ids, None, **options)
    found, loss = evaluated(tmp_path, ids, None, data_collator=collate, **options)
    assert found.model.config.problem_type == SINGLE
    assert same_weights(found.model, expected.model) and loss == expected_loss


def streamed(labels):
    """Batches whose labels nobody looks at before the training."""
    rows = tiny_dataset(rows=len(labels), label=labels)
    return IterableDataset.from_generator(lambda: iter(rows))


@pytest.mark.parametrize(
    "mixup", [{}, STRONG, {"mixup_method": "mixup-transformer"}, {"mixup_method": "tmix"}], ids=str
)
def test_a_streamed_batch_without_any_label_is_a_step_without_loss(tmp_path, mixup):
    trainer = train(tmp_path, dataset=streamed([-100] * 8 + [0, 1, 2, 0, 1, 2, 0, 1]), max_steps=2, **mixup)
    losses = logged(trainer, "loss")
    assert losses[0] == 0 and losses[1] > 0


def test_rows_of_several_labels_without_any_do_not_count_in_an_evaluation(tmp_path):
    hits = np.random.default_rng(0).integers(0, 2, (19, 3)).astype(float)
    hits[3] = hits[11] = -100
    trainer, loss = evaluated(tmp_path, hits.tolist(), MULTI)
    logits = torch.tensor(trainer.predict(tiny_dataset(rows=19, label=[[0.0] * 3] * 19)).predictions)
    labelled = torch.tensor([row not in (3, 11) for row in range(19)])
    # Trainer averages the losses of the batches, here of 8, 8 and 3 rows, by their rows.
    parts = [(part, labelled[part]) for part in (slice(0, 8), slice(8, 16), slice(16, 19))]
    targets = torch.tensor(hits).float()
    expected = sum(
        nn.BCEWithLogitsLoss()(logits[part][known], targets[part][known]).item() * len(known) for part, known in parts
    )
    assert loss == pytest.approx(expected / 19, rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}, STRONG], ids=["none", "cut", "mixed"])
def test_class_ids_may_stand_in_a_column_of_one(tmp_path, options):
    ids = [row % 3 for row in range(19)]

    def collate(features):
        batch = {name: torch.tensor([row[name] for row in features]) for name in ("input_ids", "attention_mask")}
        return {**batch, "labels": torch.tensor([[row["label"]] for row in features])}

    options = {**options, "remove_unused_columns": False}
    expected, expected_loss = evaluated(tmp_path, ids, SINGLE, **options)
    found, loss = evaluated(tmp_path, ids, SINGLE, data_collator=collate, **options)
    assert same_weights(found.model, expected.model) and loss == expected_loss


def test_label_smoothing_that_transformers_drops_is_refused(tmp_path):
    with pytest.raises(ValueError, match="label smoothing has no meaning for multi_label_classification"):
        train(tmp_path, tiny_model("bert", problem_type=MULTI), label_smoothing_factor=0.1)


def test_class_ids_as_floats_are_told_to_be_whole_numbers(tmp_path):
    with pytest.raises(ValueError, match="or class ids as whole numbers"):
        train(tmp_path, dataset=tiny_dataset(rows=4, label=[0.0, 1.0, 2.0, 1.0]))
