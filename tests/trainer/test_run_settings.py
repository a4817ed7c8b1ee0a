"""What a run that goes on with other settings than its checkpoint's is told, one line a difference."""

import json
import shutil

import pytest
import torch
from datasets import Dataset
from transformers import Trainer

from hf_mixup.trainer.run_settings import checksum_of
from tests.tiny import tiny_dataset, tiny_model
from tests.trainer.runs import STRONG, train

SAVING = {**STRONG, "save_strategy": "steps", "save_steps": 3}
OTHER_RUN = "the run goes on, but is not the undisturbed one; give what it was started with to repeat it exactly."
OLD_VALUE = "the run goes on with the value of the checkpoint; to use another one, start from it as a model."


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The checkpoints after three and after all six steps of a run; for reading only."""
    folder = tmp_path_factory.mktemp("run")
    train(folder, **SAVING)
    return folder


@pytest.fixture
def told(finished, tmp_path, caplog):
    """Resumes the run from its third step with other settings, and gives what it says of the checkpoint."""

    def resume(step=3, **options):
        folder = tmp_path / "out"
        shutil.rmtree(folder, ignore_errors=True)
        checkpoint = shutil.copytree(finished / f"checkpoint-{step}", folder / f"checkpoint-{step}")
        caplog.clear()
        resume.trainer = train(folder, **{**SAVING, "save_strategy": "no", **options}, resume=True)
        lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        return [line.removeprefix(f"{checkpoint} ") for line in lines if line.startswith(str(checkpoint))]

    return resume


def lines_of(differences, consequence):
    return {
        f"was trained with {name}={before}, this run has {now}: {consequence}" for name, before, now in differences
    }


def test_the_same_settings_say_nothing(told):
    assert told() == []
    # Neither do those that change nothing that is trained.
    assert told(logging_steps=1, per_device_eval_batch_size=3, dataloader_num_workers=1, run_name="another") == []


def test_each_other_setting_is_a_line(told):
    others = {
        "seed": (42, 7),
        "data_seed": (None, 3),
        "max_grad_norm": (1.0, 0.5),
        "label_smoothing_factor": (0.0, 0.1),
        "gradient_accumulation_steps": (1, 2),
        "train_sampling_strategy": ("random", "sequential"),
        "class_weights": (None, "1,2,1"),
        "bf16": (False, True),
        "eval_strategy": ("no", "epoch"),
        "dataloader_drop_last": (False, True),
        "neftune_noise_alpha": (None, 0.1),
    }
    lines = told(**{name: now for name, (_, now) in others.items()}, trainer_options={"eval_dataset": tiny_dataset(4)})
    # Of twice the accumulated batches an epoch has three steps in place of five.
    order = "has epochs of another length than this run: the undisturbed run went on with other rows"
    assert [line for line in lines if line.startswith(order)] == lines[:1]
    assert set(lines[1:]) == lines_of([(name, *both) for name, both in others.items()], OTHER_RUN)
    assert len(lines[1:]) == len(others)


def test_what_the_optimizer_keeps_is_said_to_stay(told):
    lines = told(learning_rate=0.5, weight_decay=0.1, adam_beta2=0.9, adam_epsilon=1e-6)
    differences = [
        ("learning_rate", 0.001, 0.5),
        ("weight_decay", 0.0, 0.1),
        ("betas", [0.9, 0.999], [0.9, 0.9]),
        ("eps", 1e-08, 1e-06),
    ]
    assert set(lines) == lines_of(differences, OLD_VALUE) and len(lines) == 4
    group = told.trainer.optimizer.param_groups[0]
    assert (group["initial_lr"], group["weight_decay"], tuple(group["betas"])) == (0.001, 0.0, (0.9, 0.999))


@pytest.mark.parametrize(
    "step, options, name, before, now, rates",
    [
        # A linear rate of 0.001 is 0 after all of 6 steps and half after 3 of 6; after 3 of 12 three quarters of it
        # are left, after 6 of 12 one half.
        (3, {"max_steps": 12}, "max_steps", 6, 12, (0.0005, 0.00075)),
        (6, {"max_steps": 12}, "max_steps", 6, 12, (0, 0.0005)),
        (6, {"max_steps": -1, "num_train_epochs": 2}, "max_steps", 6, 10, (0, 0.0004)),
        (3, {"lr_scheduler_type": "constant"}, "lr_scheduler_type", "linear", "constant", (0.0005, 0.001)),
        # Rises for 4 steps: 3 quarters.
        (3, {"warmup_steps": 4}, "warmup_steps", 0, 4, (0.0005, 0.00075)),
    ],
)
def test_another_schedule_tells_how_the_rate_jumps(told, step, options, name, before, now, rates):
    lines = told(step, **options)
    wanted = lines_of([(name, before, now)], OTHER_RUN)
    jump = f"ends with a learning rate of {rates[0]:.4g}, where the schedule of this run has {rates[1]:.4g}: it jumps"
    assert set(lines[:1]) == wanted and lines[1].startswith(jump) and len(lines) == 2


def test_other_rows_are_told(told):
    rows = tiny_dataset()
    assert told(dataset=rows.select(range(36, -1, -1)).select(range(36, -1, -1))) == []
    (line,) = told(dataset=rows.select(range(36)))
    assert line == f"was trained with train_rows=37, this run has 36: {OTHER_RUN}"
    labels = rows["label"][:]
    labels[20] = (labels[20] + 1) % 3
    other = rows.remove_columns("label").add_column("label", labels)
    for dataset in (other, rows.shuffle(seed=1)):
        assert told(dataset=dataset) == [f"was trained on other rows than this run, though as many: {OTHER_RUN}"]
    # A column that goes into no batch.
    assert told(dataset=rows.add_column("note", ["x"] * 37)) == []


def test_the_rows_count_however_they_are_stored(tmp_path):
    texts = [None if row % 7 == 0 else "word " * (row % 5) for row in range(2500)]
    rows = Dataset.from_dict({"ids": [list(range(row % 9)) for row in range(2500)], "text": texts})
    rows.save_to_disk(tmp_path / "rows", num_shards=3)
    copies = [
        Dataset.load_from_disk(tmp_path / "rows"),
        rows.map(lambda batch: batch, batched=True, batch_size=333),
        rows.select(list(range(2499, -1, -1))).select(list(range(2499, -1, -1))),
        rows.with_format("torch"),
    ]
    assert {checksum_of(copy) for copy in copies} == {checksum_of(rows)}
    others = [rows.select(range(2499)), rows.select([1, 0, *range(2, 2500)]), rows.rename_column("text", "label")]
    assert len({checksum_of(other) for other in [rows, *others]}) == 4


def test_another_optimizer_of_ones_own_is_told(tmp_path, caplog):
    def run(kind, **resume):
        model = tiny_model("bert")
        optimizer = kind(model.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 100)
        return train(tmp_path, model, trainer_options={"optimizers": (optimizer, schedule)}, max_steps=2, **resume)

    run(torch.optim.Adam, save_strategy="steps", save_steps=2)
    caplog.clear()
    run(torch.optim.AdamW, resume=True)
    assert "was trained with optimizer=Adam, this run has AdamW" in caplog.text


def test_of_a_stock_checkpoint_what_can_be_is_compared(tmp_path, caplog):
    stock = {"trainer_class": Trainer, "model": tiny_model("bert", mixup=False)}
    train(tmp_path, **stock, save_strategy="steps", save_steps=3, max_steps=3)
    train(tmp_path, resume=True, learning_rate=0.5, max_steps=6)
    lines = [record.getMessage() for record in caplog.records if "checkpoint-3 " in record.getMessage()]
    assert [line.split("checkpoint-3 ")[1].split(":")[0].split(",")[0] for line in lines] == [
        "has no checksums.json",
        "has no run_settings.json",
        "was trained with max_steps=3",
        "was trained with learning_rate=0.001",
        "ends with a learning rate of 0",
    ]


def test_the_settings_are_plain_and_hold_no_token(tmp_path):
    train(tmp_path, save_strategy="steps", save_steps=6, hub_token="hf_secret")
    text = (tmp_path / "checkpoint-6" / "run_settings.json").read_text()
    assert "hf_secret" not in text and json.loads(text)["train_rows"] == 37
