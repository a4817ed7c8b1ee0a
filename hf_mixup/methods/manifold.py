r"""Manifold mixup: mix at a random depth.

Paper: Manifold Mixup: Better Representations by Interpolating Hidden States. Vikas Verma, Alex Lamb, Christopher
Beckham, Amir Najafi, Ioannis Mitliagkas, David Lopez-Paz, Yoshua Bengio, 2019. https://arxiv.org/abs/1806.05236

For each batch a layer $k$ is drawn from an eligible set, and

$$\tilde h^{(k)}_i = \lambda h^{(k)}_i + (1 - \lambda) h^{(k)}_{\pi(i)}, \qquad \lambda \sim Beta(2, 2),$$

with the loss of the two labels. For text the set is the embeddings (0), the output of every block, and `pooled`, the
vector that the last linear layer reads; `--mixup_layers 0,3,6,pooled` gives another. Attention sees the union of both
rows' tokens. The paper's code (for images) takes a binary cross-entropy on the softmax, where this takes the
cross-entropy of the paper.
"""

from hf_mixup.methods.method import Method, Paper
from hf_mixup.mixing.ratios import Ratio

MANIFOLD = Method(
    name="manifold",
    summary="Mix at one depth, drawn for each batch from embeddings, blocks and pooled vector.",
    paper=Paper(
        title="Manifold Mixup: Better Representations by Interpolating Hidden States",
        authors="Verma, Lamb, Beckham, Najafi, Mitliagkas, Lopez-Paz, Bengio",
        year=2019,
        url="https://arxiv.org/abs/1806.05236",
    ),
    site="hidden",
    layers="all",
    one_layer=True,
    ratio=Ratio("beta", alpha=2.0),
    attention_mask="union",
)
