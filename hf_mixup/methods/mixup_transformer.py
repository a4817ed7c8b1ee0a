r"""Mixup-Transformer: mix the final representations, in the last part of the training.

Paper: Mixup-Transformer: Dynamic Data Augmentation for NLP Tasks. Lichao Sun, Congying Xia, Wenpeng Yin, Tingting
Liang, Philip S. Yu, Lifang He, 2020. https://arxiv.org/abs/2010.02394

$$\tilde p_i = \lambda p_i + (1 - \lambda) p_{\pi(i)}, \qquad \lambda = 0.5,$$

with $p$ the final representation of the text, for classification and for regression alike. Our reading of "dynamic":
the first half of the training is plain, the second half mixes (`--mixup_start`). The paper's code was not found; the
constant 0.5 and the half are our reading too.
"""

from hf_mixup.methods.method import Method, Paper
from hf_mixup.mixing.ratios import Ratio

MIXUP_TRANSFORMER = Method(
    name="mixup-transformer",
    summary="Mix the final representations half and half, in the last half of the training.",
    paper=Paper(
        title="Mixup-Transformer: Dynamic Data Augmentation for NLP Tasks",
        authors="Sun, Xia, Yin, Liang, Yu, He",
        year=2020,
        url="https://arxiv.org/abs/2010.02394",
    ),
    site="pooled",
    ratio=Ratio("constant", lam=0.5),
    start=0.5,
)
