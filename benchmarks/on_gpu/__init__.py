"""What `benchmarks/gpu.py` checks and measures: one module a part, each with `checks(setting)`.

A check is a function that returns numbers by name: what it measured, or that with the most that it may be. It is
tried on whatever device the setting names; what only CUDA has raises `Skip` elsewhere.
"""
