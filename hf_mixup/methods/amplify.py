r"""AMPLIFY: mix the outputs of multi-head attention in every layer.

Paper: AMPLIFY: Attention-based Mixup for Performance Improvement and Label Smoothing in Transformer.
Leixin Yang, Yaping Zhang, Haoyu Xiong, Yu Xiang, 2023. https://arxiv.org/abs/2309.12689

For each batch one permutation $\pi$ and one $\lambda = \max_{j \le n} \lambda_j$ with
$\lambda_j \sim Beta(\alpha, \alpha)$, $n = 5$ and $\alpha = 0.1$ serve all layers. In every block, with $A$ the
output of multi-head attention,

$$\tilde A_i = \lambda A_i + (1 - \lambda) A_{\pi(i)}, \qquad
L = \lambda CE(z_i, y_i) + (1 - \lambda) CE(z_i, y_{\pi(i)}).$$

Attention sees the row's own mask; there is no clean batch beside the mixed one. Most draws are nearly 1: the share of
the partner is above 0.01 in about one batch of seven, and exactly 0 in float32 in 37 % of the batches, which then cost
nothing.

Paper and authors' code (github.com/kiwi-lilo/AMPLIFY) differ in the place. The paper mixes "the output of multi-head
attention", which `amplify` reads as the self-attention output, before its dense layer and the residual. The code
mixes after dense, dropout, residual and LayerNorm, that is the residual stream itself: `amplify-code`. There the
mixing compounds over the layers, so that less of the own row is left at the top than the label's $\lambda$ says. The
code also pools over all positions; these methods keep the head of the model.

The paper's one-layer ablation (Table 4) is `--mixup_layers 4`, `8` or `12`.
"""

from dataclasses import replace

from hf_mixup.methods.method import Method, Paper
from hf_mixup.mixing.ratios import Ratio

AMPLIFY = Method(
    name="amplify",
    summary="Mix the self-attention outputs of every block (the paper's reading).",
    paper=Paper(
        title="AMPLIFY: Attention-based Mixup for Performance Improvement and Label Smoothing in Transformer",
        authors="Yang, Zhang, Xiong, Xiang",
        year=2023,
        url="https://arxiv.org/abs/2309.12689",
    ),
    site="attention",
    layers="all",
    ratio=Ratio("max-of-n", alpha=0.1, draws=5),
)

AMPLIFY_CODE = replace(
    AMPLIFY,
    name="amplify-code",
    summary="Mix after attention, dense, residual and LayerNorm of every block (the authors' code).",
    site="attention_block",
)
