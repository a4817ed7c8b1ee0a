"""The mathematics of mixing: pure tensor functions and small dataclasses, without transformers."""

from hf_mixup.mixing.objectives import Objective, infer_problem_type, weighted_mean
from hf_mixup.mixing.plan import AttentionProbe, BatchPlan, PairPlan, Plan, SpanPlan, StepKey, mix
from hf_mixup.mixing.ratios import BatchWeights, Ratio, Spans
from hf_mixup.mixing.targets import balanced_class_weights, mix_targets

__all__ = [
    "AttentionProbe",
    "BatchPlan",
    "BatchWeights",
    "Objective",
    "PairPlan",
    "Plan",
    "Ratio",
    "SpanPlan",
    "Spans",
    "StepKey",
    "balanced_class_weights",
    "infer_problem_type",
    "mix",
    "mix_targets",
    "weighted_mean",
]
