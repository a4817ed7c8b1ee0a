"""The embedded demo: synthetic customer requests, three fine-tunings, one table; needs no network.

`hf_mixup.demo.data` writes the data set, `hf_mixup.demo.run` trains and compares (`hf-mixup demo`).
"""
