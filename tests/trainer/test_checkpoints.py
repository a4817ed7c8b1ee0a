"""Which checkpoint a run goes on from, and what is said about the others."""

import json
import logging
import random
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback

from hf_mixup import CheckpointError, MixupTrainingArguments
from hf_mixup.files import set_aside
from hf_mixup.trainer.checkpoints import check_weights_fit, checkpoints, disk_fault, fault_of
from hf_mixup.trainer.checkpoints import whole_checkpoint as whole
from hf_mixup.trainer.checksums import differences, write_checksums
from tests.tiny import same_weights, tiny_config, tiny_dataset, tiny_model
from tests.trainer.runs import STRONG, logged, train

OPTIONS_OF_MIXING = [name for name in STRONG if name.startswith("mixup_") and name != "mixup_method"]
SAVING = {**STRONG, "save_strategy": "steps", "save_steps": 3}


def arguments(folder, **options):
    return MixupTrainingArguments(output_dir=str(folder), use_cpu=True, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of six steps, saved after the third and the sixth; for reading only."""
    folder = tmp_path_factory.mktemp("run") / "out"
    return folder, train(folder, **SAVING).model


@pytest.fixture
def out(finished, tmp_path):
    """A copy of that run, to be broken."""
    return shutil.copytree(finished[0], tmp_path / "out")


@pytest.fixture
def unsummed(out):
    """That copy without checksums: its files can be changed on purpose, or are a stock Trainer's."""
    for path in out.glob("*/checksums.json"):
        path.unlink()
    return out


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


def zero_half(path):
    """As a disk leaves a file of which the second half never got there."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


def flip(path):
    """Four bytes near the end, among the numbers of a file of tensors."""
    content = bytearray(path.read_bytes())
    for index in range(len(content) * 3 // 4, len(content) * 3 // 4 + 4):
        content[index] ^= 1
    path.write_bytes(content)


def foreign(path):
    """Something of the right format that belongs elsewhere."""
    if path.suffix in {".pt", ".pth"}:
        torch.save({"another": torch.zeros(2)}, path)
    else:
        path.write_text('["another"]')


NAMES = [
    "checksums.json",
    "config.json",
    "model.safetensors",
    "optimizer.pt",
    "rng_state.pth",
    "scheduler.pt",
    "trainer_state.json",
]


DAMAGES = [remove, cut, empty, foreign, zero_half, flip]


@pytest.mark.parametrize(
    "name, damage",
    # A checkpoint without checksums is taken as it is.
    [(name, damage) for name in NAMES for damage in DAMAGES if (name, damage) != ("checksums.json", remove)],
)
def test_a_broken_checkpoint_is_put_aside_or_named(out, caplog, name, damage):
    last = out / "checkpoint-6"
    args = arguments(out)
    assert fault_of(last, args) is None and whole(args, True) == whole(args, str(last)) == str(last)
    damage(last / name)
    before = files(out)
    with pytest.raises(CheckpointError, match=f"checkpoint-6 cannot be resumed from .*{name}") as caught:
        whole(args, str(last))
    assert files(out) == before and "\n" not in str(caught.value)
    with caplog.at_level(logging.WARNING):
        assert whole(args, True) == str(out / "checkpoint-3")
    assert f"{last} is not whole" in caplog.text and name in caplog.text
    assert "it is now called broken-checkpoint-6" in caplog.text
    assert sorted(path.name for path in out.iterdir()) == ["broken-checkpoint-6", "checkpoint-3"]
    assert checkpoints(str(out)) == [out / "checkpoint-3"]


@pytest.mark.parametrize("damage", [zero_half, flip])
def test_damage_to_a_learned_label_weight_is_found(tmp_path, damage):
    learned = {"mixup_method": "nonlinear", "mixup_label_weight": "learned"}
    train(tmp_path, **learned, save_strategy="steps", save_steps=6)
    assert whole(arguments(tmp_path, **learned), True) == str(tmp_path / "checkpoint-6")
    damage(tmp_path / "checkpoint-6" / "label_gate.safetensors")
    with pytest.raises(CheckpointError, match="label_gate.safetensors is not what was saved"):
        whole(arguments(tmp_path, **learned), True)


def test_a_file_that_was_changed_on_purpose_is_named_with_the_way_on(finished, out):
    last = out / "checkpoint-3"
    shutil.rmtree(out / "checkpoint-6")
    config = json.loads((last / "config.json").read_text())
    (last / "config.json").write_text(json.dumps({**config, "my_note": "better labels"}))
    (last / "notes.txt").write_text("a file that was added is no damage")
    with pytest.raises(
        CheckpointError, match="config.json is not what was saved.* if it was changed on purpose"
    ) as caught:
        whole(arguments(out), str(last))
    assert "delete checksums.json" in str(caught.value) and "notes" not in str(caught.value)
    (last / "checksums.json").unlink()
    assert same_weights(train(out, tiny_model("bert", seed=5), **SAVING, resume=True).model, finished[1])


def test_a_file_of_the_checkpoint_that_is_gone_is_named(out):
    """Also one that no rule asks for, such as those of a tokenizer; the pickle of the arguments is not missed."""
    last = out / "checkpoint-6"
    (last / "training_args.bin").unlink()
    assert fault_of(last, arguments(out)) is None
    (last / "tokenizer.json").write_text("{}")
    write_checksums(last, {})
    assert fault_of(last, arguments(out)) is None
    (last / "tokenizer.json").unlink()
    assert fault_of(last, arguments(out)) == "it has no tokenizer.json"


@pytest.mark.parametrize("size", [0, 1, 1 << 24, (1 << 24) + 5])
def test_every_byte_of_a_file_counts(tmp_path, size):
    content = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(content)
    write_checksums(tmp_path, {})
    assert list(differences(tmp_path)) == []
    for index in {0, size // 2, size - 1} if size else ():
        changed = bytearray(content)
        changed[index] ^= 128
        (tmp_path / "file").write_bytes(changed)
        assert len(list(differences(tmp_path))) == 1
    (tmp_path / "file").write_bytes(content + b"0")
    assert len(list(differences(tmp_path))) == 1


@pytest.mark.parametrize("only_model", [False, True])
def test_checksums_are_there_before_older_checkpoints_are_removed(tmp_path, monkeypatch, only_model):
    rotate, seen = transformers.trainer.rotate_checkpoints, []

    def watch(output_dir, **options):
        newest = checkpoints(output_dir)[0]
        seen.append((newest.name, list(differences(newest)), (newest / "checksums.json").is_file()))
        rotate(output_dir, **options)

    monkeypatch.setattr(transformers.trainer, "rotate_checkpoints", watch)
    train(tmp_path, **SAVING, save_total_limit=1, save_only_model=only_model)
    assert seen == [("checkpoint-3", [], True), ("checkpoint-6", [], True)]


def test_a_stock_checkpoint_is_taken_with_a_line(tmp_path, caplog):
    """A stock Trainer's has no checksums; what it trained goes on to the last bit."""
    stock = {"trainer_class": Trainer, "model": tiny_model("bert", mixup=False), "save_strategy": "steps"}
    straight = train(tmp_path, **stock, save_steps=3)
    shutil.rmtree(tmp_path / "checkpoint-6")
    resumed = train(tmp_path, tiny_model("bert", seed=5), resume=True)
    assert same_weights(resumed.model, straight.model)
    (line,) = [record.getMessage() for record in caplog.records if "checksums.json" in record.getMessage()]
    assert line.startswith(f"{tmp_path}/checkpoint-3 has no checksums.json") and "\n" not in line


def test_what_was_put_aside_is_never_overwritten(out):
    names = []
    for step in (6, 3):
        shutil.copytree(out / f"checkpoint-{step}", out / "checkpoint-9")
        names.append(set_aside(out / "checkpoint-9", "broken").name)
    assert names == ["broken-checkpoint-9", "broken-checkpoint-9-2"]
    assert json.loads((out / names[0] / "trainer_state.json").read_text())["global_step"] == 6


def test_where_no_checkpoint_is_whole_all_are_named_and_stay(out):
    for step, name in ((3, "optimizer.pt"), (6, "trainer_state.json")):
        (out / f"checkpoint-{step}" / name).unlink()
    before = files(out)
    wanted = "to resume from .checkpoint-6: it has no trainer_state.json; checkpoint-3: it has no optimizer.pt"
    with pytest.raises(CheckpointError, match=wanted):
        whole(arguments(out), True)
    assert files(out) == before
    for folder in (out / "none", out / "broken"):
        with pytest.raises(CheckpointError, match="has no whole checkpoint to resume from: start afresh"):
            whole(arguments(folder), True)
    with pytest.raises(CheckpointError, match="nowhere cannot be resumed from .it has no trainer_state.json"):
        whole(arguments(out), "nowhere")


def test_resuming_takes_the_newest_whole_one_and_ends_like_the_undisturbed_run(finished, out, caplog):
    cut(out / "checkpoint-6" / "optimizer.pt")
    resumed = train(out, tiny_model("bert", seed=5), **SAVING, resume=True)
    assert same_weights(resumed.model, finished[1])
    assert "optimizer.pt is damaged" in caplog.text
    assert sorted(path.name for path in out.iterdir()) == ["broken-checkpoint-6", "checkpoint-3", "checkpoint-6"]


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_resuming_after_the_last_step_makes_no_other_one(finished, out, strategy):
    """Five steps are an epoch: the sixth is the first of the second epoch, which ends with it."""
    written = {path: path.stat().st_mtime_ns for path in (out / "checkpoint-6").iterdir()}
    resumed = train(out, tiny_model("bert", seed=5), **{**SAVING, "save_strategy": strategy}, resume=True)
    assert resumed.state.global_step == 6 and same_weights(resumed.model, finished[1])
    # To write the same again would put it at risk.
    assert {path: path.stat().st_mtime_ns for path in (out / "checkpoint-6").iterdir()} == written


def test_resuming_after_an_epoch_that_is_evaluated_repeats_the_random_numbers(tmp_path):
    evaluated = {"trainer_options": {"eval_dataset": tiny_dataset(seed=1)}, "eval_strategy": "epoch"}
    options = {**SAVING, "save_steps": 5, "max_steps": 7, **evaluated}
    straight = train(tmp_path, **options)
    shutil.rmtree(tmp_path / "checkpoint-7")
    resumed = train(tmp_path, tiny_model("bert", seed=5), **options, resume=True)
    assert same_weights(resumed.model, straight.model)
    assert logged(resumed, "eval_loss") == logged(straight, "eval_loss")


def test_a_checkpoint_without_the_state_of_the_run_is_a_model_only(tmp_path):
    train(tmp_path, **SAVING, save_only_model=True)
    for resume in (True, str(tmp_path / "checkpoint-6")):
        with pytest.raises(CheckpointError, match="checkpoint-6 was saved with save_only_model.*model_name_or_path"):
            train(tmp_path, **SAVING, resume=resume)
    assert checkpoints(str(tmp_path)) == [tmp_path / "checkpoint-6", tmp_path / "checkpoint-3"]


@pytest.mark.parametrize(
    "options, has, wants",
    [
        ({"num_labels": 4}, r"the shape \[3\] for classifier.bias", r"the shape \[4\]"),
        ({"family": "distilbert"}, r"the shape \[32\] for bert.embeddings.LayerNorm.bias", "nothing"),
    ],
)
def test_the_checkpoint_of_another_model_is_refused(out, options, has, wants):
    other = tiny_model(options.pop("family", "bert"), **options)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"another model .model.safetensors has {has}, the model {wants}"):
        train(out, other, **SAVING, resume=True)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_a_checkpoint_that_lacks_a_tensor_is_refused(unsummed):
    path = unsummed / "checkpoint-6" / "model.safetensors"
    tensors = load_file(path)
    del tensors["classifier.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="has nothing for classifier.weight, the model the shape"):
        train(unsummed, **SAVING, resume=True)


def test_tied_weights_are_saved_once(tmp_path):
    """As the output layer of a language model that is tied to its word embeddings."""
    model = tiny_model("bert")
    embeddings = model.bert.embeddings.word_embeddings
    model.extra = torch.nn.Linear(*embeddings.weight.shape[::-1], bias=False)
    model.extra.weight = embeddings.weight
    tensors = {name: value.clone() for name, value in model.state_dict().items() if name != "extra.weight"}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    check_weights_fit(str(tmp_path), model)


def test_weights_in_several_files(unsummed):
    last = unsummed / "checkpoint-6"
    model = AutoModelForSequenceClassification.from_pretrained(last)
    (last / "model.safetensors").unlink()
    model.save_pretrained(last, max_shard_size="20KB")
    shards = sorted(path.name for path in last.glob("model-*.safetensors"))
    assert len(shards) > 2 and fault_of(last, arguments(unsummed)) is None
    check_weights_fit(str(last), model)
    cut(last / shards[1])
    assert fault_of(last, arguments(unsummed)) == f"{shards[1]} is damaged, or holds something else"
    (last / shards[1]).unlink()
    assert fault_of(last, arguments(unsummed)) == f"it has no {shards[1]}"
    foreign(last / "model.safetensors.index.json")
    assert "model.safetensors.index.json" in fault_of(last, arguments(unsummed))


def test_adapters_and_the_layouts_of_sharded_training(unsummed):
    last = unsummed / "checkpoint-6"
    (last / "adapter_config.json").write_text("{}")
    assert fault_of(last, arguments(unsummed)) == "it has no adapter_model.safetensors"
    (last / "model.safetensors").rename(last / "adapter_model.safetensors")
    assert fault_of(last, arguments(unsummed)) is None
    for name in ("adapter_config.json", "adapter_model.safetensors", "optimizer.pt"):
        (last / name).unlink()
    assert "model.safetensors" in fault_of(last, arguments(unsummed))
    (last / "global_step6").mkdir()
    assert fault_of(last, arguments(unsummed)) == "it has no latest"
    (last / "latest").write_text("global_step6")
    torch.save({}, last / "global_step6" / "mp_rank_00_model_states.pt")
    assert fault_of(last, arguments(unsummed)) is None
    (last / "rng_state.pth").unlink()
    assert fault_of(last, arguments(unsummed)) == "it has no rng_state.pth"


def test_a_learned_label_weight_belongs_to_the_checkpoint(out):
    learned = arguments(out, mixup_method="nonlinear", mixup_label_weight="learned")
    assert fault_of(out / "checkpoint-6", learned) == "it has no label_gate.safetensors"
    # And its parameters to the optimizer's state.
    save_file({"weight": torch.zeros(1, 32), "bias": torch.zeros(1)}, out / "checkpoint-6" / "label_gate.safetensors")
    with pytest.raises(CheckpointError, match="optimizer.pt or scheduler.pt of .*checkpoint-6 is that of another"):
        train(
            out,
            **{**SAVING, "mixup_method": "nonlinear", "mixup_ratio": None},
            mixup_label_weight="learned",
            resume=True,
        )


@pytest.mark.parametrize(
    "saved, processes, outcome",
    [
        (["0", "1"], 2, None),
        (["0", "1"], 1, "world size of 2, this run has 1"),
        ([""], 4, "world size of 1, this run has 4"),
        (["0", "1"], 4, "world size of 2, this run has 4"),
        (["0", "1", "2"], 2, "world size of 3, this run has 2"),
        (["", "0", "1"], 1, None),
        (["", "0", "1"], 2, None),
        (["0", "2"], 3, "it has no rng_state_1.pth"),
        ([], 2, "it has no rng_state_0.pth"),
    ],
)
def test_random_states_of_each_process(unsummed, caplog, monkeypatch, saved, processes, outcome):
    last = unsummed / "checkpoint-6"
    state = (last / "rng_state.pth").read_bytes()
    (last / "rng_state.pth").unlink()
    for rank in saved:
        (last / f"rng_state{rank and '_'}{rank}.pth").write_bytes(state)
    args = arguments(unsummed)
    monkeypatch.setattr(type(args), "world_size", processes)
    monkeypatch.setattr(torch.distributed, "barrier", lambda: None)
    if outcome is None or "world size" in outcome:
        assert whole(args, str(last)) == str(last)
        assert (outcome or "") in caplog.text and bool(caplog.text) == bool(outcome)
    else:
        with pytest.raises(CheckpointError, match=outcome):
            whole(args, str(last))


def test_a_save_replaces_what_another_run_left_in_its_folder(finished, out):
    left = out / "checkpoint-3"
    (left / "stale.bin").touch()
    seen = []

    class Watch(TrainerCallback):
        def on_save(self, *_, **__):
            seen.append((left / "stale.bin").exists())

    train(out, trainer_options={"callbacks": [Watch()]}, **SAVING, save_only_model=True)
    assert seen == [False, False]
    assert not (left / "optimizer.pt").exists() and fault_of(left, arguments(out)) is None


def test_which_errors_are_the_disks():
    assert disk_fault(OSError(28, "")) == "no space left on device"
    assert disk_fault(OSError(2, "No such file")) is None and disk_fault(ConnectionError("down")) is None
    assert disk_fault(RuntimeError("a bug")) is None


def test_another_config_is_no_fault_but_a_broken_one_is(unsummed):
    tiny_config("roberta").save_pretrained(unsummed / "checkpoint-6")
    assert fault_of(unsummed / "checkpoint-6", arguments(unsummed)) is None
    (unsummed / "checkpoint-6" / "config.json").write_bytes(b"\xff\xfe")
    assert "config.json" in fault_of(unsummed / "checkpoint-6", arguments(unsummed))


def test_the_folder_of_the_run_is_no_checkpoint(out):
    with pytest.raises(CheckpointError, match="is the folder of a run, not one of its checkpoints: give .*-6"):
        whole(arguments(out), str(out))


def test_a_state_of_nothing_is_no_checkpoint(out):
    (out / "checkpoint-6" / "trainer_state.json").write_text("{}")
    assert "trainer_state.json is damaged" in fault_of(out / "checkpoint-6", arguments(out))


def test_other_mixing_is_told_and_the_same_is_not(out, caplog):
    shutil.rmtree(out / "checkpoint-6")
    with caplog.at_level(logging.WARNING):
        train(out, resume=True, **SAVING)
    assert "was trained by" not in caplog.text
    shutil.rmtree(out / "checkpoint-6")
    with caplog.at_level(logging.WARNING):
        train(out, resume=True, **{**SAVING, "mixup_method": "none", **dict.fromkeys(OPTIONS_OF_MIXING)})
    assert f"was trained by the method {STRONG['mixup_method']}, this run has none" in caplog.text


def test_another_optimizer_is_refused(out):
    shutil.rmtree(out / "checkpoint-6")
    with pytest.raises(CheckpointError, match="is that of another optimizer .it has no dampening.: resume with the"):
        train(out, resume=True, **{**SAVING, "optim": "sgd"})
