"""Comparing runs: measures of quality beyond accuracy, and grids of runs with their statistics.

`hf-mixup compare` goes from `grid` (what is run) and `data` (what each run sees) over `run` (one run), `tuning`,
`launchers` (where) and `runner` (which are left) to a file of `results`, whose fields stand there, and from that to
`statistics`.
"""

from hf_mixup.compare.calibration import (
    adaptive_calibration_error,
    brier_score,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability_bins,
)

__all__ = [
    "adaptive_calibration_error",
    "brier_score",
    "expected_calibration_error",
    "fit_temperature",
    "negative_log_likelihood",
    "reliability_bins",
]
