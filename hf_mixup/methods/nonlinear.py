r"""Nonlinear mixup: a weight for every feature.

Paper: Nonlinear Mixup: Out-Of-Manifold Data Augmentation for Text Classification. Hongyu Guo, 2020.
https://doi.org/10.1609/aaai.v34i04.5822

$$\tilde h_i = \rho_i \circ h_i + (1 - \rho_i) \circ h_{\pi(i)}, \quad \rho_{i,d} \sim Beta(\alpha, \alpha), \qquad
\lambda_i = \text{mean of } \rho_{i,d}.$$

Only the abstract was read. The paper draws a matrix of ratios for the word embeddings and learns the label weights;
this is our reading at hidden states, as BatchMixup's paper compares it: one weight for each hidden dimension, the
same at all positions, at one upper block drawn for each batch as in `tmix`, and for the labels the mean weight, or
with `--mixup_label_weight learned` $\lambda_i = \sigma(g^T \tilde p_i + c)$ from the mixed pooled vector
$\tilde p_i$, where the gate $(g, c)$ is trained along, kept out of the model's weights, and saved beside them for
resuming. $\alpha = 1$ is our choice.
"""

from hf_mixup.methods.method import Method, Paper
from hf_mixup.methods.tmix import TMIX
from hf_mixup.mixing.ratios import Ratio

NONLINEAR = Method(
    name="nonlinear",
    summary="Mix the output of one upper block with a weight for each hidden dimension.",
    paper=Paper(
        title="Nonlinear Mixup: Out-Of-Manifold Data Augmentation for Text Classification",
        authors="Guo",
        year=2020,
        url="https://doi.org/10.1609/aaai.v34i04.5822",
    ),
    site="hidden",
    layers=TMIX.layers,
    one_layer=True,
    per_feature=True,
    ratio=Ratio("beta", alpha=1.0),
    attention_mask="union",
)
