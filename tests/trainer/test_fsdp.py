"""FSDP2 in two real processes (gloo), set up by Accelerate as the launch file asks, against DDP.

On a CPU Accelerate runs DDP where FSDP is asked for, so the worker makes it believe that it is on GPUs; from there on
everything is what it does on GPUs: wrap policy, units, optimizer, gradient norm, checkpoint.
"""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.launching import ROOT, launch, launch_environment
from tests.tiny import NUM_LAYERS, PARENTS
from tests.trainer.test_distributed import CHECKPOINTS, SGD, STRONG, logged, saved

# PyTorch 2.6 cannot shard on a CPU, where streams are but names.
needs_sharding_on_cpu = pytest.mark.skipif(
    not hasattr(torch.cpu.Stream(), "record_event"), reason="this PyTorch shards on accelerators alone"
)
CONFIG = ROOT / "configs" / "accelerate" / "fsdp2.yaml"
BLOCKS = {"bert": "MixupBertLayer", "roberta": "MixupRobertaLayer", "distilbert": "MixupTransformerBlock"}
# Both read the model more than once a batch, so that no process may mix where another one does not.
HALF = {
    "attentionmix": {"mixup_method": "attentionmix", "mixup_attention_head": "1", "mixup_attention_layer": 2},
    "ssmix": {"mixup_method": "ssmix"},
}
QUICK = {
    "amplify": {**STRONG, "gradient_accumulation_steps": 2},
    "embedmix": {"mixup_method": "embedmix"},
    # Reads the weights of a block outside of the block's forward pass.
    "attentionmix": {"mixup_method": "attentionmix", "mixup_attention_layer": 2, "mixup_attention_head": "1"},
}
SLOW = {
    "word_embeddings": {"mixup_method": "embedmix", "mixup_site": "word_embeddings"},
    "clean": {"mixup_method": "tmix", "mixup_clean": "average"},
    "batchmixup": {"mixup_method": "batchmixup"},
    "ssmix": {"mixup_method": "ssmix", "gradient_accumulation_steps": 2},
    "checkpointing": {**STRONG, "gradient_checkpointing": True},
}


def launch_both(folder, cases, **more):
    """Each case, a family and its options, trained by DDP and by FSDP2; DDP sees the same launch file."""
    runs = {
        f"{name} {kind}": {"family": family, "shard": shard, "max_steps": 3, **SGD, **options}
        for name, (family, options) in cases.items()
        for kind, shard in (("ddp", None), ("fsdp", BLOCKS[family]))
    }
    return launch(folder, {**runs, **more}, **launch_environment(CONFIG))


def compare(folder, cases, results):
    for name, (family, _) in cases.items():
        for result in results:
            ddp, fsdp = result[f"{name} ddp"], result[f"{name} fsdp"]
            assert (ddp["distributed_type"], fsdp["distributed_type"]) == ("MULTI_CPU", "FSDP")
            assert ddp["units"] == []
            assert sum(unit == f"FSDP{BLOCKS[family]}" for unit in fsdp["units"]) == NUM_LAYERS
            assert ddp["plans"] == fsdp["plans"] and any(ddp["plans"])
            for value in ("loss", "grad_norm", "mixup_lambda"):
                message = f"{name}: {value}"
                np.testing.assert_allclose(logged(fsdp, value), logged(ddp, value), rtol=1e-5, err_msg=message)
            assert fsdp["eval_loss"] == pytest.approx(ddp["eval_loss"], rel=1e-5)
        it_saved_a_plain_checkpoint(folder, family, name)


def it_saved_a_plain_checkpoint(folder, family, name):
    model = AutoModelForSequenceClassification.from_pretrained(folder / f"{name} fsdp")
    assert type(model) is PARENTS[family]
    sharded, whole = saved(folder, f"{name} fsdp"), saved(folder, f"{name} ddp")
    assert set(sharded) == set(whole) == set(model.state_dict())
    for parameter in whole:
        np.testing.assert_allclose(sharded[parameter], whole[parameter], atol=1e-5, err_msg=parameter)


def test_the_launch_file_shards_berts_blocks():
    environment = launch_environment(CONFIG)
    assert environment["ACCELERATE_USE_FSDP"] == "true" and environment["FSDP_VERSION"] == "2"
    assert environment["FSDP_AUTO_WRAP_POLICY"] == "TRANSFORMER_BASED_WRAP"
    assert environment["FSDP_TRANSFORMER_CLS_TO_WRAP"] == BLOCKS["bert"]


@needs_sharding_on_cpu
def test_fsdp2_trains_as_ddp_does(tmp_path):
    cases = {f"{family} {name}": (family, QUICK[name]) for family in ("bert", "distilbert") for name in QUICK}
    compare(tmp_path, cases, launch_both(tmp_path, cases))


@needs_sharding_on_cpu
def test_fsdp2_mixes_the_same_batches_in_all_processes(tmp_path):
    """Each would wait for the other's weights else, or take the weights of another block."""
    bert = {"shard": BLOCKS["bert"], **SGD, "mixup_prob": 0.5, "max_steps": 8}
    runs = {name: {**bert, **options} for name, options in HALF.items()}
    uneven = {**bert, **HALF["ssmix"], "accelerator_config": {"even_batches": False}, "max_steps": 1, "error": True}
    first, second = launch(tmp_path, {**runs, "uneven": uneven}, **launch_environment(CONFIG))
    for name in runs:
        assert first[name]["plans"] == second[name]["plans"] and set(first[name]["plans"]) == {
            None,
            "found in the model",
        }
        assert logged(first[name]) == logged(second[name])
        applied = [float(plan is not None) for plan in first[name]["plans"]]
        assert logged(first[name], "mixup_applied") == applied
    assert "under FSDP: leave even_batches" in first["uneven"] and first["uneven"] == second["uneven"]


@needs_sharding_on_cpu
@pytest.mark.slow
def test_fsdp2_resumes_and_stops_with_whole_and_with_sharded_checkpoints(tmp_path):
    saving = {**CHECKPOINTS, "shard": BLOCKS["bert"]}
    runs = {"straight": saving, "resumed": {**saving, "resume": "straight/checkpoint-2"}}
    constant = {"shard": BLOCKS["bert"], **SGD, "lr_scheduler_type": "constant"}
    for kind, method in (("one pass", STRONG), ("two passes", HALF["ssmix"])):
        runs[f"good {kind}"] = {**constant, **method, "max_steps": 2}
        runs[f"NaN {kind}"] = {**constant, **method, "fault": ["loss", 2, 1]}
    runs["saved ssmix"] = {**HALF["ssmix"], **{name: saving[name] for name in saving.keys() - STRONG.keys()}}
    runs["resumed ssmix"] = {**runs["saved ssmix"], "resume": "saved ssmix/checkpoint-2"}
    learned = {"mixup_method": "nonlinear", "mixup_label_weight": "learned", "shard": BLOCKS["bert"], "error": True}
    environment = launch_environment(CONFIG)
    for kind, file in (("FULL", "pytorch_model_fsdp.bin"), ("SHARDED", "pytorch_model_fsdp_0")):
        folder = tmp_path / kind
        folder.mkdir()
        environment["FSDP_STATE_DICT_TYPE"] = f"{kind}_STATE_DICT"
        for result in launch(folder, {**runs, "learned": learned}, **environment):
            assert result["resumed"]["weights"] == result["straight"]["weights"]
            assert result["resumed ssmix"]["weights"] == result["saved ssmix"]["weights"]
            assert logged(result["resumed"]) == logged(result["straight"])
            for kind in ("one pass", "two passes"):
                assert "of step 3 is not a finite number" in result[f"NaN {kind}"]["message"]
                assert result[f"NaN {kind}"]["weights"] == result[f"good {kind}"]["weights"]
            assert "a gate beside the model, which FSDP does not admit" in result["learned"]
        assert (folder / "straight" / "checkpoint-2" / file).exists()


@needs_sharding_on_cpu
@pytest.mark.slow
def test_fsdp2_in_bfloat16_rounds_no_lambda(tmp_path):
    mixed = {"family": "bert", "shard": BLOCKS["bert"], "max_steps": 2, **SGD, "mixup_method": "embedmix"}
    mixed |= {"mixup_ratio": "constant", "mixup_lambda": 0.9985}
    for result in launch(tmp_path, {"whole": mixed, "half": {**mixed, "bf16": True}}, **launch_environment(CONFIG)):
        # bfloat16 has no number between 0.996 and 1.
        assert logged(result["half"], "mixup_lambda") == pytest.approx([0.9985] * 2, abs=1e-6)
        np.testing.assert_allclose(logged(result["half"], "loss"), logged(result["whole"], "loss"), rtol=0.02)


@needs_sharding_on_cpu
@pytest.mark.slow
def test_fsdp2_trains_roberta_and_more_methods_as_ddp_does(tmp_path):
    cases = {name: ("roberta", options) for name, options in {**QUICK, **SLOW}.items()}
    encoder = {"shard": "RobertaEncoder", "error": True, "mixup_method": "attentionmix", "mixup_attention_head": "0"}
    whole = {**CHECKPOINTS, "family": "roberta", "shard": BLOCKS["roberta"]}
    results = launch_both(
        tmp_path,
        cases,
        straight=whole,
        resumed={**whole, "resume": "straight/checkpoint-2"},
        refused={"family": "roberta", **encoder},
    )
    compare(tmp_path, cases, results)
    assert (tmp_path / "straight" / "checkpoint-2" / "model.safetensors").is_file()
    for result in results:
        assert result["resumed"]["weights"] == result["straight"]["weights"]
        assert "let FSDP2 wrap the blocks" in result["refused"]
