"""Plain fine-tuning: nothing is mixed, the baseline of every comparison."""

from hf_mixup.methods.method import Method

NONE = Method(name="none", summary="Plain fine-tuning, the baseline.")
