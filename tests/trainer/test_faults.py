"""What happens at night: processes that are killed or asked to end, full disks and memories, losses that are NaN."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, TrainerCallback

import run_glue_mixup
from hf_mixup import MixupTrainer, NonFiniteLossError, SaveError, save_on_sigterm
from hf_mixup.glue import faults
from hf_mixup.glue.faults import fault_sentence, watch_the_background
from hf_mixup.trainer.checkpoints import checkpoints, disk_fault
from tests.data_files import labelled_sentences, write_csv
from tests.launching import python, torchrun
from tests.tiny import same_weights, tiny_dataset, tiny_model, wordpiece_tokenizer
from tests.trainer.runs import STRONG, logged, train

HERE = Path(__file__).parent
EVALUATED = {"trainer_options": {"eval_dataset": tiny_dataset(seed=1)}}
EPOCHS = {"max_steps": -1, "num_train_epochs": 2, "eval_strategy": "epoch"}
BEST = {"load_best_model_at_end": True, "save_total_limit": 1, "learning_rate": 0.02}


@pytest.fixture
def flags(tiny_bert_folder, tmp_path):
    """The flags of a run of the script that mixes, with dropout, two accumulated batches and epochs of five steps."""
    rows = labelled_sentences(["red", "green", "blue"], 37)
    words = {
        "model_name_or_path": tiny_bert_folder,
        "train_file": write_csv(tmp_path / "train.csv", ("sentence", "label"), rows),
        "max_seq_length": 16,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_steps": 8,
        "learning_rate": 1e-3,
        "log_level": "warning",
        "disable_tqdm": True,
        "use_cpu": True,
        **STRONG,
    }
    return ["--do_train", *(f"--{name}={value}" for name, value in words.items())]


# ---- Killed -----------------------------------------------------------------------------------------------------


def killed(folder, flags, seed, between, in_saves, *more):
    """What each killed run left; the last run, which nobody killed, ends with the weights of an undisturbed one."""
    saving = ["--save_steps", "3", "--save_total_limit", "2", *more]
    done = python(
        HERE / "kill_worker.py", folder, str(seed), str(between), str(in_saves), *flags, *saving, timeout=280
    )
    straight, last = ((folder / name / "model.safetensors").read_bytes() for name in ("straight", "killed"))
    assert straight == last
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_killed_in_the_middle_of_a_save(tmp_path, flags):
    left = killed(tmp_path, flags, 0, 1, 2, "--max_steps", "14")
    assert len(left) == 3 and None not in left
    assert any(each["half_written"] for each in left if each["in_save"])


@pytest.mark.slow
def test_killed_at_twenty_random_moments(tmp_path, flags):
    left = killed(tmp_path, flags, 1, 11, 9, "--max_steps", "80")
    assert len(left) == 20 and None not in left
    broken = [each["half_written"] for each in left if each["half_written"]]
    assert len(broken) >= 5
    # They died at different files, and what they left was set aside.
    assert len({len(names) for each in broken for names in each.values()}) >= 2
    assert list((tmp_path / "killed").glob("broken-checkpoint-*"))
    log = (tmp_path / "log.txt").read_text()
    assert "is not whole (it has no trainer_state.json): it is now called broken-checkpoint-" in log
    assert "Traceback" not in log


# ---- Asked to end -----------------------------------------------------------------------------------------------


class Signalled(MixupTrainer):
    """Gets SIGTERM, twice, in the first pass of a step."""

    step = 3

    def train(self, *args, **kwargs):
        with save_on_sigterm(self):
            return super().train(*args, **kwargs)

    def compute_loss(self, *args, **kwargs):
        if self.model.training and self.state.global_step + 1 == self.step:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return super().compute_loss(*args, **kwargs)


@pytest.mark.parametrize(
    "step, options",
    [
        (3, {"gradient_accumulation_steps": 2, "max_steps": 7}),
        (6, {}),
        # It comes in the first of three updates, and the checkpoint after the last.
        (3, {"mixup_updates": 3}),
        (4, {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2, **BEST}),
        (3, {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2, **BEST}),
        (5, {"save_strategy": "epoch", **EPOCHS, **BEST}),
        (7, {"save_strategy": "epoch", **EPOCHS, **BEST}),
        # The evaluation at this step, the second one, finds nothing better.
        (10, {"save_strategy": "best", "metric_for_best_model": "loss", "greater_is_better": True, **EPOCHS}),
        (7, {"save_strategy": "best", "metric_for_best_model": "loss", **EPOCHS}),
    ],
)
def test_sigterm_saves_and_ends_and_nothing_is_lost(tmp_path, caplog, step, options):
    options = {**STRONG, **options}
    straight = train(tmp_path / "straight", **options, **EVALUATED)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        train(tmp_path / "out", trainer_class=type("Trainer", (Signalled,), {"step": step}), **options, **EVALUATED)
    assert ended.value.code == 143 and signal.getsignal(signal.SIGTERM) is handler
    assert checkpoints(str(tmp_path / "out"))[0].name == f"checkpoint-{step}"
    assert f"SIGTERM stopped the training after step {step} of {straight.state.max_steps}" in caplog.text
    resumed = train(tmp_path / "out", tiny_model("bert", seed=5), **options, **EVALUATED, resume=True)
    assert same_weights(resumed.model, straight.model)
    assert logged(resumed, "eval_loss") == logged(straight, "eval_loss")


def test_sigterm_ends_the_script_with_143_and_the_same_command_goes_on(tmp_path, flags, monkeypatch, capfd):
    run_glue_mixup.main([*flags, "--output_dir", str(tmp_path / "straight")])
    again = [*flags, "--output_dir", str(tmp_path / "out")]
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(run_glue_mixup, "MixupTrainer", Signalled)
        run_glue_mixup.cli(again)
    assert ended.value.code == 143 and not (tmp_path / "out" / "model.safetensors").exists()
    assert run_glue_mixup.cli([*again, "--resume_from_checkpoint", "true"]) == 0
    straight, resumed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("straight", "out"))
    assert straight == resumed


def test_without_sigterm_and_in_a_thread_training_is_as_ever(tmp_path):
    expected = train(tmp_path, **STRONG).model
    calm = type("Trainer", (Signalled,), {"step": 0})
    handler = signal.getsignal(signal.SIGTERM)
    seen = [train(tmp_path, trainer_class=calm, **STRONG)]
    thread = threading.Thread(target=lambda: seen.append(train(tmp_path, trainer_class=calm, **STRONG)))
    thread.start()
    thread.join()
    assert len(seen) == 2 and all(same_weights(trainer.model, expected) for trainer in seen)
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.slow
def test_two_processes_stop_together_and_resume_from_the_newest_whole_checkpoint(tmp_path):
    torchrun(2, HERE / "stop_worker.py", tmp_path)
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    # Only the second process got the signal.
    assert first["stopped"] == second["stopped"] == {"code": 143, "step": 3}
    assert first["resumed"] == second["resumed"] == first["straight"] == second["straight"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["broken-checkpoint-3", "checkpoint-2"]


# ---- One of two processes ----


@pytest.mark.slow
def test_where_one_of_two_processes_fails_both_end_with_a_sentence(tmp_path, flags):
    """Started by nobody who would look after them: none waits for the other one until a time limit ends it."""
    cases = {
        "kill 0": {"rank": 0, "fault": "kill"},
        "kill 1": {"rank": 1, "fault": "kill"},
        "disk 0": {"rank": 0, "fault": "disk"},
        "disk 1": {"rank": 1, "fault": "disk"},
        "other seed": {"rank": 1, "fault": ["--seed", "1"]},
        "other steps": {"rank": 1, "fault": ["--do_eval", "--validation_split", "0.2"]},
        "other data": {"rank": 1, "fault": ["--max_train_samples", "36"]},
        "nothing": {"rank": 1, "fault": None},
    }
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    saving = ["--save_steps", "2", "--max_steps", "4"]
    done = python(HERE / "peer_worker.py", tmp_path, tmp_path / "cases.json", *flags, *saving, timeout=280)
    found = dict(map(json.loads, done.stdout.splitlines()))
    assert found.keys() == cases.keys()
    for name, each in found.items():
        assert each["seconds"] < 60 and "Traceback" not in "".join(each["said"]), (name, each)
    lost = "another process of the run ended, or does not answer: what it said tells why"
    for rank in (0, 1):
        killed, full = found[f"kill {rank}"], found[f"disk {rank}"]
        assert killed["codes"][rank] == -signal.SIGKILL and killed["codes"][1 - rank] == 1
        assert lost in killed["said"][1 - rank]
        assert full["codes"] == [1, 1] and "checkpoint-2 could not be saved (" in full["said"][rank]
        assert lost in full["said"][1 - rank]
        # What is half-written passes for no checkpoint.
        assert "checkpoint-2/trainer_state.json" not in full["left"]
    for name, words in {
        "other seed": "the option seed (process 0 has 42, process 1 has 1)",
        "other steps": "the option do_eval (process 0 has False, process 1 has True)",
        "other data": "the training data: number of rows (process 0 has 37, process 1 has 36)",
    }.items():
        assert found[name]["codes"] == [2, 2], found[name]
        assert all(f"the processes of the run differ in {words}" in said for said in found[name]["said"])
        assert not any("checkpoint" in path or "model" in path for path in found[name]["left"])
    assert found["nothing"]["codes"] == [0, 0] and "model.safetensors" in found["nothing"]["left"]


@pytest.mark.parametrize(
    ("rank", "of_another", "events"),
    [
        (0, False, ["said"]),
        (1, False, [1, "said"]),
        # Another one, whose own sentence tells more, speaks meanwhile.
        (0, True, ["said", 2]),
        (1, True, [3, "said"]),
    ],
)
def test_who_speaks_first_of_several_processes(monkeypatch, rank, of_another, events):
    seen = []
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setattr(faults.time, "sleep", lambda seconds: seen.append(seconds / faults._WAIT))
    monkeypatch.setattr(faults.sys, "stderr", SimpleNamespace(write=lambda _: seen.append("said"), flush=lambda: None))
    faults.tell("a sentence", of_another)
    assert seen == events


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (RuntimeError("[/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:18821."), True),
        (RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [::1]:4: Connection r"), True),
        (torch.distributed.DistBackendError("NCCL error in: ncclRemoteError: remote process exited"), True),
        (torch.distributed.DistNetworkError("The client socket has timed out"), True),
        (RuntimeError("Connection closed by peer"), False),
        (ConnectionError("Connection closed by peer"), False),
    ],
)
def test_which_errors_are_another_process(error, is_one):
    assert faults.is_of_another_process(error) == is_one
    assert ("another process of the run ended" in (fault_sentence(error) or "")) == is_one


# ---- No room ----------------------------------------------------------------------------------------------------


class FullDisk(TrainerCallback):
    """From a step on, no file may grow beyond a size: the system refuses the rest of it."""

    def __init__(self, step, size):
        self.step, self.size = step, size

    def on_step_end(self, args, state, control, **kwargs):
        import resource

        if state.global_step == self.step:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, hard))


@pytest.fixture
def unlimited():
    """Lifts the limit on the size of files after the test."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("factor", [0.5, 1.2], ids=["weights", "optimizer"])
def test_a_full_disk_is_one_sentence_and_leaves_what_was_saved(tmp_path, unlimited, factor):
    import resource

    options = {**STRONG, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}
    straight = train(tmp_path / "straight", **options)
    size = int(factor * (tmp_path / "straight" / "checkpoint-6" / "model.safetensors").stat().st_size)
    with pytest.raises(SaveError) as caught:
        train(tmp_path / "out", trainer_options={"callbacks": [FullDisk(4, size)]}, **options)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'out' / 'checkpoint-4'} could not be saved (") and "\n" not in message
    assert "file too large" in message or "is the disk full?" in message
    resumed = train(tmp_path / "out", tiny_model("bert", seed=5), **options, resume=True)
    assert same_weights(resumed.model, straight.model)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["broken-checkpoint-4", "checkpoint-6"]


def test_a_full_disk_ends_the_script_with_1(tmp_path, flags, unlimited, monkeypatch, capsys):
    import resource

    class Filling(MixupTrainer):
        def save_model(self, *args, **kwargs):
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
            super().save_model(*args, **kwargs)

    monkeypatch.setattr(run_glue_mixup, "MixupTrainer", Filling)
    assert run_glue_mixup.cli([*flags, "--save_strategy", "no", "--output_dir", str(tmp_path / "out")]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "could not be saved" in line]
    assert line.startswith(f"{tmp_path / 'out'} could not be saved (file too large): make room")


def test_after_a_full_disk_the_same_command_goes_on(tmp_path, flags, unlimited, monkeypatch, capsys):
    """Full when the model is saved, its numbers, its state, the predictions or the card; with room it all succeeds."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    out = tmp_path / "out"
    test_file = write_csv(tmp_path / "test.csv", ("sentence", "label"), labelled_sentences(["red", "green"], 6))
    again = [*flags, "--save_strategy", "no", "--max_steps", "2", "--output_dir", str(out)]
    again += ["--do_eval", "--do_predict", "--validation_split", "0.2", "--test_file", test_file]
    for full, left in (
        ("save_model", []),
        ("save_metrics", ["all_results.json", "train_results.json"]),
        ("save_state", ["trainer_state.json"]),
        ("predict", ["predict_results_None.txt"]),
        ("create_model_card", ["README.md"]),
    ):

        def fill(self, *args, full=full, **kwargs):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
            return getattr(MixupTrainer, full)(self, *args, **kwargs)

        before = {name: (out / name).read_bytes() for name in left if (out / name).exists()}
        with monkeypatch.context() as patch:
            patch.setattr(run_glue_mixup, "MixupTrainer", type("Filling", (MixupTrainer,), {full: fill}))
            assert run_glue_mixup.cli(again) == 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        line = capsys.readouterr().err.splitlines()[-1]
        assert "(file too large)" in line and (not left or str(out / left[0]) in line or str(out / left[-1]) in line)
        # An earlier result stays as it was, a new one is not begun.
        assert {name: (out / name).read_bytes() for name in left if (out / name).exists()} == before
        assert not out.exists() or not list(out.glob("_part*"))
        assert run_glue_mixup.cli(again) == 0
        shutil.rmtree(out, ignore_errors=full in ("save_model", "save_metrics"))
        assert run_glue_mixup.cli(again) == 0


def test_no_memory_names_the_flags_that_help(tmp_path, flags, monkeypatch, capsys):
    values = {"--mixup_clean": "none", "--max_seq_length": 8}
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    for error in (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), caught.value):

        class Greedy(MixupTrainer):
            fault = error

            def compute_loss(self, *args, **kwargs):
                raise self.fault

        monkeypatch.setattr(run_glue_mixup, "MixupTrainer", Greedy)
        assert run_glue_mixup.cli([*flags, "--output_dir", str(tmp_path / "out")]) == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("the memory does not suffice: halve --per_device_train_batch_size and double")
        for flag in [word.strip(",") for word in line.split() if word.startswith("--")]:
            run_glue_mixup.parse_arguments(
                [*flags, f"{flag}={values.get(flag, 1)}"],
                (
                    run_glue_mixup.ModelArguments,
                    run_glue_mixup.DataTrainingArguments,
                    run_glue_mixup.MixupTrainingArguments,
                ),
            )


def may_mount():
    """Whether a process may make a small file system for itself."""
    command = ["unshare", "--map-root-user", "--mount", "true"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not may_mount(), reason="no file system of one's own")
@pytest.mark.parametrize("earlier, step", [(0, 24), (1, 8)])
def test_a_disk_full_at_any_level(tmp_path, flags, earlier, step):
    test_file = write_csv(tmp_path / "test.csv", ("sentence", "label"), labelled_sentences(["red", "green"], 6))
    steps = ["--max_steps", "4", "--save_steps", "2", "--logging_steps", "1", "--log_level", "error"]
    steps += ["--do_eval", "--do_predict", "--validation_split", "0.2", "--test_file", test_file]
    # The checkpoints of the earlier run give their room to those of the new one.
    steps += ["--overwrite_output_dir"]
    (tmp_path / "small").mkdir()
    done = python(
        HERE / "disk_worker.py",
        *(tmp_path / "small", str(step), str(earlier), *flags, *steps),
        launcher=("unshare", "--map-root-user", "--mount"),
        timeout=290,
    )
    *full, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(full) >= 15 and last["code"] == last["again"] == 0
    for each in full:
        assert (each["code"], len(each["said"]), each["lost"], each["again"]) == (1, 1, [], 0), each
        assert "no space left on device" in each["said"][0] or "is the disk full?" in each["said"][0]


@pytest.mark.parametrize("writer", ["torch", "safetensors", "tokenizers"])
def test_a_file_that_does_not_fit_is_a_fault_of_the_disk_at_every_size(tmp_path, unlimited, writer):
    """These write files in other languages than Python, each with words of its own, cut off here at forty places."""
    import resource

    tokenizer = wordpiece_tokenizer()
    write = {
        "torch": torch.save,
        "safetensors": save_file,
        "tokenizers": lambda content, path: tokenizer.save_pretrained(path),
    }[writer]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    content = {f"tensor {number}": torch.arange(500.0) for number in range(4)}
    write(content, tmp_path / "file")
    size = max(path.stat().st_size for path in [tmp_path / "file", *tmp_path.glob("file/*")] if path.is_file())
    for limit in range(0, size, size // 40):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        with pytest.raises(Exception) as caught:
            write(content, tmp_path / "file")
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert disk_fault(caught.value), f"at {limit} of {size}: {caught.value!r}"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_for_a_log_in_the_background_is_a_line_and_other_errors_keep_their_traceback(
    monkeypatch, capsys, caplog
):
    def fail(error):
        raise error

    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    watch_the_background()
    faults._tell_of_background.cache_clear()
    for error, told in ((OSError(28, "No space left on device"), True), (KeyError("a bug"), False)):
        thread = threading.Thread(target=fail, args=[error])
        thread.start()
        thread.join()
        assert ("Traceback" in capsys.readouterr().err) != told
        assert ("The disk failed for a log that is written beside the run (no space left" in caplog.text) == told
        type("Closing", (), {"__del__": lambda closing, error=error: fail(error)})()
        assert ("Exception ignored" in capsys.readouterr().err) != told
        # Once for a thread and what it leaves open.
        assert caplog.text.count("The disk failed") == told
        caplog.clear()


def test_bugs_are_no_faults():
    for error in (RuntimeError("shapes differ"), KeyError("x"), OSError(2, "No such file"), ValueError()):
        assert fault_sentence(error) is None


# ---- Not a number -----------------------------------------------------------------------------------------------


def test_a_loss_that_is_nan_leaves_the_last_good_model_where_the_script_says(tmp_path, flags, monkeypatch, capsys):
    class Breaking(MixupTrainer):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            return loss * float("nan") if self.state.global_step == 5 else loss

    constant = [*flags, "--lr_scheduler_type", "constant"]
    run_glue_mixup.main([*constant, "--max_steps", "5", "--output_dir", str(tmp_path / "good")])
    monkeypatch.setattr(run_glue_mixup, "MixupTrainer", Breaking)
    assert run_glue_mixup.cli([*constant, "--output_dir", str(tmp_path / "out")]) == 1
    folder = tmp_path / "out" / "last-good-weights"
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("The loss of step 6 is not a finite number (lambda of its last batch: ")
    assert line.endswith(f"the model of step 5 is saved in {folder}")
    good = (tmp_path / "good" / "model.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes() == good
    logits = AutoModelForSequenceClassification.from_pretrained(folder)(input_ids=torch.tensor([[2, 7, 3]])).logits
    assert np.isfinite(logits.detach().numpy()).all()
    # The folder is known as that of a run of the script.
    monkeypatch.undo()
    assert run_glue_mixup.cli([*constant, "--output_dir", str(tmp_path / "out")]) == 0
    with pytest.raises(NonFiniteLossError):
        raise NonFiniteLossError(line)
