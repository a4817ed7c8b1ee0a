r"""SentMix (senMixup): mix the sentence vectors.

Paper: Augmenting Data with Mixup for Sentence Classification: An Empirical Study. Hongyu Guo, Yongyi Mao, Richong
Zhang, 2019. https://arxiv.org/abs/1905.08941

$$\tilde p_i = \lambda p_i + (1 - \lambda) p_{\pi(i)}$$

with $p$ what the last linear layer reads, after the last dropout, and the loss of the two labels as in `embedmix`. The
public reimplementation (xashru/mixup-text) runs both texts of a pair through the model; here the batch is run once and
the partner's vector gathered, dropout mask included. With one ratio a row, mixing the logits (`--mixup_site logits`)
computes the same, because the last layer is linear.

The ratio is that of `embedmix`; the reimplementation's own default is a raw Beta(1, 1): `--mixup_ratio beta
--mixup_alpha 1`.
"""

from hf_mixup.methods.embedmix import GUO_2019
from hf_mixup.methods.method import Method
from hf_mixup.mixing.ratios import Ratio

SENTMIX = Method(
    name="sentmix",
    summary="Mix the vectors that the last linear layer reads (senMixup).",
    paper=GUO_2019,
    site="pooled",
    ratio=Ratio("beta-max", alpha=0.2),
)
