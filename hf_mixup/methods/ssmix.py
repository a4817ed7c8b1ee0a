r"""SSMix: swap the least salient span of a text for the most salient one of another.

Paper: SSMix: Saliency-Based Span Mixup for Text Classification. Soyoung Yoon, Gyuwan Kim, Kyumin Park, 2021.
https://arxiv.org/abs/2106.08062

The saliency of a token is the root mean square of the gradient of its row's loss with respect to its embedding. In a
text of $n$ tokens the span of $k = \max(\lfloor n / 10 \rfloor, 1)$ tokens with the least saliency is replaced by the
span of $k$ tokens of the partner with the most, and

$$\lambda = 1 - k / n, \qquad L = \tfrac{1}{2} CE(z(x_i), y_i)
+ \tfrac{1}{2} (\lambda CE(z(\tilde x_i), y_i) + (1 - \lambda) CE(z(\tilde x_i), y_{\pi(i)})).$$

Length and attention mask stay the own row's, and special tokens are never touched. Pairs are mixed first text with
first text and second with second, by the special tokens between them, so that tokenizers without token types work
too; then $\lambda = 1 - \sum k / \sum n$. A text whose partner is shorter than the span keeps its own.

The authors' code (github.com/clovaai/ssmix) makes forward and backward passes of their own for the saliency. Here it
is read off the backward pass of the clean rows, which the loss needs anyway: a step has two passes. The code pairs
the halves of a batch and skips odd batches; `flip` pairs first with last, and the middle row of an odd batch with
itself.
"""

from hf_mixup.methods.method import Method, Paper
from hf_mixup.mixing.ratios import Spans

SSMIX = Method(
    name="ssmix",
    summary="Swap the least salient span of tokens for the partner's most salient one; clean rows trained along.",
    paper=Paper(
        title="SSMix: Saliency-Based Span Mixup for Text Classification",
        authors="Yoon, Kim, Park",
        year=2021,
        url="https://arxiv.org/abs/2106.08062",
    ),
    site="input_ids",
    ratio=Spans(),
    partner="flip",
    clean="average",
)
