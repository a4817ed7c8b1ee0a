r"""TMix: mix the output of one of the upper blocks.

Paper: MixText: Linguistically-Informed Interpolation of Hidden Space for Semi-Supervised Text Classification. Jiaao
Chen, Zichao Yang, Diyi Yang, 2020. https://arxiv.org/abs/2004.12239

For each batch a block $m$ is drawn from {7, 9, 12} of 12 (for another depth, the same fractions of it, rounded up),
and

$$\tilde h^{(m)}_i = \lambda h^{(m)}_i + (1 - \lambda) h^{(m)}_{\pi(i)}, \qquad \lambda \sim Beta(16, 16),$$

with the loss of the two labels. This is the recipe of the authors' README for TMix alone; that for MixText takes
$\max(\lambda, 1 - \lambda)$: `--mixup_ratio beta-max`. Their code never passes an attention mask; the author advises
the union of both, which is the default here, and `--mixup_attention_mask` has the other policies. The code also pools
over all positions, where this keeps the head of the model.
"""

from fractions import Fraction

from hf_mixup.methods.method import Method, Paper
from hf_mixup.mixing.ratios import Ratio

TMIX = Method(
    name="tmix",
    summary="Mix the output of one upper block, drawn for each batch from 7, 9 and 12 of 12.",
    paper=Paper(
        title="MixText: Linguistically-Informed Interpolation of Hidden Space for Semi-Supervised Text Classification",
        authors="Chen, Yang, Yang",
        year=2020,
        url="https://arxiv.org/abs/2004.12239",
    ),
    site="hidden",
    layers=(Fraction(7, 12), Fraction(9, 12), Fraction(1)),
    one_layer=True,
    ratio=Ratio("beta", alpha=16.0),
    attention_mask="union",
)
