"""Options that older versions of transformers and `run_glue.py` had: what each of them is called now.

Tutorials still use them. The command line rewrites them (`hf_mixup.glue.legacy`); from Python the complaint about an
unknown option says what replaces it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LegacyFlag:
    """One flag of old.

    Attributes:
        name: the flag without its dashes.
        now: the flag that replaces it, or None if nothing is needed.
        notice: what the user is told, after the name of the flag.
        switch: whether the flag stands alone or with true/false, and not with a value.
        values: for a switch, what value `now` takes for "true" and for "false" (left out: the flag is dropped).
    """

    name: str
    now: str | None
    notice: str
    switch: bool = False
    values: dict[str, str] = field(default_factory=dict)

    def in_python(self) -> str:
        """The notice for a call from Python, where options have no dashes.

        Example:
            >>> LEGACY_FLAGS["no_cuda"].in_python()
            'is now use_cpu=True'
        """
        if self.values:
            return f"is now {self.now}={_value(self.values['true'])!r}"
        return re.sub(r"--(\w+)", r"\1", self.notice)


def _value(text: str) -> object:
    """What the text of a flag says: a bool, a dictionary, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _renamed(old: str, new: str) -> LegacyFlag:
    return LegacyFlag(old, new, f"is now called --{new}")


def _switch(old: str, new: str, value: str) -> LegacyFlag:
    return LegacyFlag(old, new, f"is now --{new} {value}", switch=True, values={"true": value})


def _dropped(old: str, reason: str, switch: bool = False) -> LegacyFlag:
    return LegacyFlag(old, None, f"is no longer needed: {reason}", switch=switch)


_TABLE = (
    _renamed("evaluation_strategy", "eval_strategy"),
    _renamed("per_gpu_train_batch_size", "per_device_train_batch_size"),
    _renamed("per_gpu_eval_batch_size", "per_device_eval_batch_size"),
    _renamed("push_to_hub_model_id", "hub_model_id"),
    _renamed("push_to_hub_token", "hub_token"),
    _renamed("torchdynamo", "torch_compile_backend"),
    _renamed("use_auth_token", "token"),
    _renamed("xpu_backend", "ddp_backend"),
    LegacyFlag(
        "warmup_ratio", "warmup_steps", "is now --warmup_steps, where a number below 1 is a share of all steps"
    ),
    _switch("adafactor", "optim", "adafactor"),
    _switch("evaluate_during_training", "eval_strategy", "steps"),
    _switch("group_by_length", "train_sampling_strategy", "group_by_length"),
    _switch("include_inputs_for_metrics", "include_for_metrics", "inputs"),
    _switch("include_tokens_per_second", "include_num_input_tokens_seen", "all"),
    _switch("no_cuda", "use_cpu", "true"),
    _switch("split_batches", "accelerator_config", '{"split_batches": true}'),
    _switch("tpu_metrics_debug", "debug", "tpu_metrics_debug"),
    _dropped("fp16_backend", "mixed precision always runs through PyTorch's autocast"),
    _dropped("fp16_opt_level", "mixed precision always runs through PyTorch's autocast"),
    _dropped("half_precision_backend", "mixed precision always runs through PyTorch's autocast"),
    _dropped("fsdp_min_num_params", "it is the key min_num_params of the file given to --fsdp_config"),
    _dropped("fsdp_transformer_layer_cls_to_wrap", "it is a key of the file given to --fsdp_config"),
    _dropped("logging_dir", "TensorBoard's folder is set by the environment variable TENSORBOARD_LOGGING_DIR"),
    _dropped("mp_parameters", "SageMaker's model parallelism is no longer part of transformers"),
    _dropped("past_index", "no sequence classifier uses it"),
    _dropped("push_to_hub_organization", "it goes before the name, as in --hub_model_id organization/name"),
    _dropped("ray_scope", "it belongs to hyperparameter search, which is started from Python"),
    _dropped("sharded_ddp", "sharded training is --fsdp"),
    _dropped("tpu_num_cores", "the launcher sets the number of processes"),
    _dropped("jit_mode_eval", "the model is compiled with --torch_compile", switch=True),
    _dropped("save_safetensors", "weights are always saved as safetensors", switch=True),
    _dropped("use_ipex", "PyTorch has these optimisations itself", switch=True),
    _dropped("use_legacy_prediction_loop", "there is one prediction loop", switch=True),
    _dropped("use_mps_device", "an Apple GPU is used where there is one", switch=True),
)

LEGACY_FLAGS: dict[str, LegacyFlag] = {flag.name: flag for flag in _TABLE}
"""All flags of old by name."""
