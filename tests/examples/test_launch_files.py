"""The launch files: read by `accelerate launch` itself, and the one for a CPU really launched."""

import json

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.utils import DistributedType

from tests.data_files import write_csv
from tests.launching import ROOT, launch_arguments, launch_environment, python

FOLDER = ROOT / "configs" / "accelerate"
TYPES = {
    "cpu": DistributedType.NO,
    "single_gpu": DistributedType.NO,
    "ddp": DistributedType.MULTI_GPU,
    "fsdp2": DistributedType.FSDP,
    **{f"deepspeed_zero{stage}": DistributedType.DEEPSPEED for stage in (1, 2, 3)},
}


def test_there_are_no_others():
    assert {path.stem for path in FOLDER.iterdir()} == set(TYPES)


@pytest.mark.parametrize("name", TYPES)
def test_accelerate_reads_the_file(name):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert isinstance(config, ClusterConfig) and config.distributed_type == TYPES[name]
    arguments = launch_arguments(FOLDER / f"{name}.yaml")
    zero = int(name[-1]) if name.startswith("deepspeed") else None
    several = zero is not None or name in ("ddp", "fsdp2")
    assert (arguments.num_processes, arguments.num_machines) == (2 if several else 1, 1)
    assert (arguments.use_cpu, arguments.mixed_precision) == (name == "cpu", "no")
    assert (arguments.multi_gpu, arguments.use_fsdp) == (name == "ddp", name == "fsdp2")
    assert (arguments.use_deepspeed, arguments.zero_stage) == (zero is not None, zero)
    # What the trainer fills in.
    assert (arguments.gradient_accumulation_steps, arguments.gradient_clipping) == (None, None)
    assert bool(arguments.zero3_save_16bit_model) == (zero == 3)
    if zero is None and several:
        assert launch_environment(FOLDER / f"{name}.yaml")["ACCELERATE_MIXED_PRECISION"] == "no"


@pytest.mark.slow
def test_the_script_runs_under_accelerate_launch(tmp_path, tiny_bert_folder):
    rows = [(f"{word} is here", label) for label, word in (("a", "fox"), ("b", "dog")) for _ in range(6)]
    data = write_csv(tmp_path / "train.csv", ("sentence", "label"), rows)
    options = {
        "model_name_or_path": tiny_bert_folder,
        "train_file": data,
        "validation_file": data,
        "output_dir": str(tmp_path / "out"),
        "mixup_method": "amplify",
        "max_steps": "3",
        "per_device_train_batch_size": "4",
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    launcher = ("-m", "accelerate.commands.launch", "--config_file", FOLDER / "cpu.yaml")
    python(*launcher, ROOT / "run_glue_mixup.py", *flags, "--do_train", "--do_eval", timeout=240)
    results = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert {"train_loss", "eval_accuracy"} <= set(results)
