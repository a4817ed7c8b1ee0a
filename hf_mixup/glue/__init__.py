"""Tasks, file loading, labels, metrics and arguments behind the command-line script `run_glue_mixup.py`."""
