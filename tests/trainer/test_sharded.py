"""Whether what FSDP and DeepSpeed wrote is whole, on layouts made by hand and by PyTorch itself."""

import pytest
import torch
from torch.distributed import checkpoint

from hf_mixup.trainer.sharded import faults_of_shards, is_sharded


def faults(folder, processes=1):
    return list(faults_of_shards(folder, processes))


def cut(path):
    """Keep the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def zero(tmp_path):
    """The files of ZeRO in two processes; what is in them does not matter."""
    inner = tmp_path / "global_step6"
    inner.mkdir()
    (tmp_path / "latest").write_text("global_step6")
    torch.save({}, inner / "mp_rank_00_model_states.pt")
    for rank in range(2):
        torch.save({}, inner / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    return inner


def test_the_files_of_deepspeed(zero):
    folder = zero.parent
    assert is_sharded(folder) and faults(folder, 2) == []
    assert faults(folder, 1) == ["DeepSpeed saved its optimizer in 2 parts, one a process, and this run has 1"]
    cut(zero / "zero_pp_rank_1_mp_rank_00_optim_states.pt")
    assert faults(folder, 2) == ["zero_pp_rank_1_mp_rank_00_optim_states.pt is damaged, or holds something else"]
    (zero / "zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    (zero / "mp_rank_00_model_states.pt").unlink()
    assert faults(folder, 2)[0] == "global_step6 has no model states"
    assert "1 parts" in faults(folder, 2)[1]


def test_without_zero_deepspeed_goes_on_in_any_number_of_processes(zero):
    for path in zero.glob("*_optim_states.pt"):
        path.unlink()
    assert faults(zero.parent, 1) == faults(zero.parent, 8) == []


def test_the_file_that_names_the_folder(zero):
    (zero.parent / "latest").write_text("global_step9")
    assert "global_step9 has no model states" in faults(zero.parent, 2)
    (zero.parent / "latest").unlink()
    assert faults(zero.parent, 2) == ["it has no latest"]


def test_whole_state_dicts_of_fsdp(tmp_path):
    for name in ("pytorch_model_fsdp", "optimizer"):
        torch.save({"weight": torch.ones(100)}, tmp_path / f"{name}.bin")
    assert is_sharded(tmp_path) and faults(tmp_path) == []
    cut(tmp_path / "pytorch_model_fsdp.bin")
    (tmp_path / "optimizer.bin").unlink()
    assert faults(tmp_path) == [
        "pytorch_model_fsdp.bin is damaged, or holds something else",
        "it has no optimizer.bin",
    ]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_sharded_state_dicts_of_fsdp(tmp_path):
    for name in ("pytorch_model_fsdp_0", "optimizer_0"):
        checkpoint.save({"weight": torch.ones(100)}, checkpoint_id=tmp_path / name)
    assert is_sharded(tmp_path) and faults(tmp_path) == []
    (shard,) = (tmp_path / "optimizer_0").glob("*.distcp")
    cut(shard)
    assert faults(tmp_path) == [f"optimizer_0/{shard.name} is damaged"]
    shard.unlink()
    assert faults(tmp_path) == [f"optimizer_0 has no {shard.name}"]
    cut(tmp_path / "pytorch_model_fsdp_0" / ".metadata")
    assert faults(tmp_path)[0] == "pytorch_model_fsdp_0 has no metadata that can be read"
