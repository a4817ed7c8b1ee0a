"""Runs that go on where the order of the data, workers or callbacks make that hard: exact, or a line says so."""

import shutil

import pytest
import torch
from datasets import IterableDataset
from transformers import EarlyStoppingCallback, TrainerCallback

from hf_mixup import MixupTrainer
from tests.tiny import same_weights, tiny_dataset, tiny_model
from tests.trainer.runs import STRONG, logged, train

# Five steps are an epoch.
OPTIONS = {**STRONG, "max_steps": 15, "save_strategy": "steps", "save_steps": 1, "logging_steps": 100}


def told(caplog):
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    return [line for line in lines if line.split(" ")[0].rpartition("/")[2].startswith("checkpoint-")]


def resumed(folder, straight, step, **options):
    """A run that goes on from a step of the undisturbed one, and whether it ends with the same weights."""
    trainer = train(folder, tiny_model("bert", seed=5), resume=str(folder / f"checkpoint-{step}"), **options)
    return same_weights(trainer.model, straight.model)


def both(tmp_path, caplog, steps, **options):
    """Whether the run is exact from each of these steps, and what it says there."""
    options = {**OPTIONS, **options}
    straight = train(tmp_path, **options)
    caplog.clear()
    exact = [resumed(tmp_path, straight, step, **{**options, "save_strategy": "no"}) for step in steps]
    return exact, told(caplog)


def evaluated(strategy="epoch"):
    return {"eval_strategy": strategy, "trainer_options": {"eval_dataset": tiny_dataset(8, seed=1)}}


# ---- Workers ----------------------------------------------------------------------------------------------------

WORKERS = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}


def test_workers_that_stay(tmp_path, caplog):
    """They start once, and draw a random number for that: a resumed run starts them later."""
    assert both(tmp_path, caplog, [3, 5, 7], max_steps=12, **WORKERS, **evaluated()) == ([True] * 3, [])


@pytest.mark.slow
@pytest.mark.parametrize("data", ["none", "one", "several"])
def test_workers_that_stay_with_every_kind_of_evaluation(tmp_path, caplog, data):
    sets = {"none": {}, "one": evaluated("steps"), "several": evaluated()}[data]
    if data == "several":
        sets["trainer_options"]["eval_dataset"] = {"a": tiny_dataset(8, seed=1), "b": tiny_dataset(5, seed=2)}
    steps = [1, 4, 5, 6, 9, 10, 13]
    assert both(tmp_path, caplog, steps, **WORKERS, **sets, eval_steps=4) == ([True] * len(steps), [])


# ---- The order of the rows --------------------------------------------------------------------------------------


def stream(shuffled):
    rows = tiny_dataset().to_list()
    data = IterableDataset.from_generator(lambda: iter(rows))
    return data.shuffle(seed=3, buffer_size=20) if shuffled else data


class Endless(torch.utils.data.IterableDataset):
    """A stream of torch, without a length or epochs of its own."""

    def __iter__(self):
        return iter(tiny_dataset().to_list())


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("kind", ["shuffled", "plain", "torch"])
def test_a_stream_in_every_pass(tmp_path, caplog, kind, accumulated):
    data = Endless() if kind == "torch" else stream(kind == "shuffled")
    steps = {1: [3, 5, 8, 10, 12], 2: [1, 2, 3, 5, 7]}[accumulated]
    options = {"gradient_accumulation_steps": accumulated, "max_steps": steps[-1] + 2}
    assert both(tmp_path, caplog, steps, dataset=data, **options) == ([True] * 5, [])


def test_data_that_are_not_skipped(tmp_path, caplog):
    exact, lines = both(tmp_path, caplog, [5, 7], ignore_data_skip=True, max_steps=9)
    assert exact == [True, False]
    (line,) = lines
    assert "checkpoint-7 is of the middle of an epoch, which ignore_data_skip begins again" in line


@pytest.mark.parametrize(
    "options, name",
    [
        ({"train_sampling_strategy": "group_by_length"}, "train_sampling_strategy=group_by_length"),
        ({"accelerator_config": {"use_seedable_sampler": False}}, "use_seedable_sampler=false"),
    ],
)
def test_an_order_that_is_drawn_from_the_random_numbers_of_the_run(tmp_path, caplog, options, name):
    exact, lines = both(tmp_path, caplog, [3, 5, 7], max_steps=9, **options)
    assert exact == [True, True, False]
    (line,) = lines
    assert (
        f"checkpoint-7 is of an epoch whose order of rows {name} has drawn from random numbers that are gone" in line
    )


@pytest.mark.parametrize("strategy", ["batch_rebalance", "sequential"])
def test_other_orders(tmp_path, caplog, strategy):
    assert both(tmp_path, caplog, [3, 7], max_steps=9, train_sampling_strategy=strategy) == ([True] * 2, [])


# ---- Callbacks --------------------------------------------------------------------------------------------------


class EvaluatesAtEpochEnd(TrainerCallback):
    """Asks for an evaluation that no strategy knows of, or makes it itself."""

    def __init__(self, by_itself):
        self.by_itself = by_itself

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.by_itself:
            self.trainer.evaluate(tiny_dataset(8, seed=1))
        control.should_evaluate |= not self.by_itself


@pytest.mark.parametrize("by_itself", [False, True])
def test_a_callback_that_evaluates_at_the_end_of_an_epoch(tmp_path, by_itself):
    class Calling(MixupTrainer):
        def __init__(self, *args, **kwargs):
            callback = EvaluatesAtEpochEnd(by_itself)
            super().__init__(*args, **kwargs, callbacks=[callback])
            callback.trainer = self

    options = {**OPTIONS, **evaluated("no"), "trainer_class": Calling, "max_steps": 8}
    straight = train(tmp_path, **options)
    assert len(logged(straight, "eval_loss")) == 2
    assert all(resumed(tmp_path, straight, step, **options) for step in (4, 5))


class EndsEpochs(TrainerCallback):
    """Makes an epoch of three steps."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_epoch_stop = round(state.epoch % 1, 1) == 0.6


def test_epochs_that_end_early(tmp_path, caplog):
    options = {"max_steps": 12, "trainer_options": {"callbacks": [EndsEpochs()]}}
    exact, lines = both(tmp_path, caplog, [2, 4], **options)
    assert exact == [True, False]
    (line,) = lines
    assert "checkpoint-4 has epochs of another length than this run: the undisturbed run went on with other" in line


def no_better(prediction):
    return {"same": 1.0}


def stopping(patience):
    """Ends after so many epochs of no gain beyond the first one."""
    callbacks = [EarlyStoppingCallback(patience)]
    return {"eval_dataset": tiny_dataset(8, seed=1), "compute_metrics": no_better, "callbacks": callbacks}


STOPPING = {"eval_strategy": "epoch", "metric_for_best_model": "eval_same", "greater_is_better": True, "max_steps": 40}


@pytest.mark.parametrize("strategy", ["epoch", "steps"])
def test_early_stopping_counts_on(tmp_path, strategy):
    options = {**OPTIONS, **STOPPING, "save_strategy": strategy, "load_best_model_at_end": strategy == "epoch"}
    straight = train(tmp_path, **options, trainer_options=stopping(2))
    assert straight.state.global_step == 15
    for step in (5, 10, 15):
        for folder in tmp_path.glob("checkpoint-*"):
            if int(folder.name.rpartition("-")[2]) > step:
                shutil.rmtree(folder)
        again = train(tmp_path, tiny_model("bert", seed=5), **options, trainer_options=stopping(2), resume=True)
        assert again.state.global_step == 15 and same_weights(again.model, straight.model)
        assert logged(again, "eval_same") == logged(straight, "eval_same")
        straight_files = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-{step}"))
        assert (straight_files / "checkpoint-15").is_dir()
    # With more patience it trains on from its end.
    more = train(tmp_path, tiny_model("bert", seed=5), **options, trainer_options=stopping(3), resume=True)
    assert more.state.global_step == 20


def test_a_callback_that_was_not_there_before(tmp_path):
    """`Trainer` fails at the next save, where it looks for the state of each callback."""
    train(tmp_path, **{**OPTIONS, **STOPPING, "max_steps": 5}, trainer_options={**stopping(1), "callbacks": []})
    resumed = train(tmp_path, **{**OPTIONS, **STOPPING}, trainer_options=stopping(2), resume=True)
    assert resumed.state.global_step == 15
    states = [callback.state() for callback in resumed.callback_handler.callbacks if hasattr(callback, "state")]
    assert [state["attributes"]["early_stopping_patience_counter"] for state in states] == [2]
