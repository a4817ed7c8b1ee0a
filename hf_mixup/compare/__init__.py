"""Comparing runs: measures of quality beyond accuracy."""

from hf_mixup.compare.calibration import expected_calibration_error, negative_log_likelihood

__all__ = ["expected_calibration_error", "negative_log_likelihood"]
