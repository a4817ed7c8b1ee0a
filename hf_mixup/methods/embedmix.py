r"""EmbedMix (wordMixup): mix the embeddings.

Paper: Augmenting Data with Mixup for Sentence Classification: An Empirical Study. Hongyu Guo, Yongyi Mao, Richong
Zhang, 2019. https://arxiv.org/abs/1905.08941

$$\tilde e_{i,t} = \lambda e_{i,t} + (1 - \lambda) e_{\pi(i),t}, \qquad
L = \lambda CE(z_i, y_i) + (1 - \lambda) CE(z_i, y_{\pi(i)}).$$

The paper interpolates the word vectors of a CNN or LSTM. For Transformers the later code (SSMix, AMPLIFY's baselines,
and the public reimplementation xashru/mixup-text) mixes the output of the embedding module, positions and types
included, as this does; `--mixup_site word_embeddings` mixes the word vectors alone. Attention sees the union of both
rows' tokens.

The ratio is $\max(\lambda', 1 - \lambda')$ with $\lambda' \sim Beta(0.2, 0.2)$, as in the baselines of AMPLIFY's paper
(eq. 9) and of SSMix; `--mixup_ratio beta` keeps the raw draw.
"""

from hf_mixup.methods.method import Method, Paper
from hf_mixup.mixing.ratios import Ratio

GUO_2019 = Paper(
    title="Augmenting Data with Mixup for Sentence Classification: An Empirical Study",
    authors="Guo, Mao, Zhang",
    year=2019,
    url="https://arxiv.org/abs/1905.08941",
)

EMBEDMIX = Method(
    name="embedmix",
    summary="Mix the output of the embedding module (wordMixup).",
    paper=GUO_2019,
    site="embeddings",
    ratio=Ratio("beta-max", alpha=0.2),
    attention_mask="union",
)
