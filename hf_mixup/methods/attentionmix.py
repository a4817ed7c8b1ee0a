r"""AttentionMix: weigh every token by the attention it receives.

Paper: AttentionMix: Data augmentation method that relies on BERT attention mechanism. Dominik Lewy, Jacek Mandziuk,
2023. https://arxiv.org/abs/2309.11104

With $r_{i,t}$ the share of the attention of one head that token $t$ of row $i$ receives,

$$\rho_{i,t} = \frac{r_{i,t}}{r_{i,t} + r_{\pi(i),t}}, \qquad
\tilde e_{i,t} = \rho_{i,t} e_{i,t} + (1 - \rho_{i,t}) e_{\pi(i),t}, \qquad
\lambda_i = \text{mean of } \rho_{i,t} \text{ where either row has a token.}$$

No code was found and only summaries of the paper were read, so this is our reading of: the relevance (the column sums
of the attention over the real tokens, normalised), the ratio of the two relevances, no further random lambda, and the
label weight (the mean ratio). The paper reports single heads to be better than the mean of a layer, and the first
layers to be better than later ones; its "layer 0, head 8" is the default, `--mixup_attention_layer 1
--mixup_attention_head 8` in the numbering used here. `--mixup_attention_head average` takes the mean over the heads.

The attention is computed without dropout and without gradient, from the query and key rows of that head alone, in a
pass that ends at that block. Attention then sees the union of both rows' tokens.
"""

from hf_mixup.methods.method import Method, Paper
from hf_mixup.mixing.plan import AttentionProbe

ATTENTIONMIX = Method(
    name="attentionmix",
    summary="Mix the embeddings with a weight for each token, from the attention it receives.",
    paper=Paper(
        title="AttentionMix: Data augmentation method that relies on BERT attention mechanism",
        authors="Lewy, Mandziuk",
        year=2023,
        url="https://arxiv.org/abs/2309.11104",
    ),
    site="embeddings",
    ratio=AttentionProbe(layer=1, head=8),
    attention_mask="union",
)
