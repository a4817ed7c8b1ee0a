r"""BatchMixup: every mixed point is a weighted mean of the whole batch.

Paper: BatchMixup: Improving Training by Interpolating Hidden States of the Entire Mini-batch. Wenpeng Yin, Huan Wang,
Jin Qu, Caiming Xiong, 2021. https://aclanthology.org/2021.findings-acl.434

`batchmixup`, the paper: for each of $n$ points and each feature, weights over the batch

$$M_i = \text{softmax}_b(B_i), \quad B_i \in R^{b \times d}, \; B_{i,b,h} \sim Beta(\alpha, \alpha), \qquad
\hat x_i = \sum_b M_{i,b} \circ x_b, \qquad \hat y_i = \sum_b M_{i,b} \circ w_{y_b},$$

with $x$ the pooled vectors and $w_c$ the rows of the classifier, and as loss the negative dot product of $\hat x_i$
and $\hat y_i$. That has no lower bound, and the paper names none; our reading is $-\log \sigma(\langle \hat x_i, \hat
y_i \rangle)$, which falls with the dot product but never below 0. The paper gives neither $n$ nor $\alpha$; here $n =
400$, as in its code for RTE, and $\alpha = 1$, which is the uniform distribution of its code.

`batchmixup-code`, the authors' code (github.com/wyin-Salesforce/Mixup_for_FewShot_NLP): one weight a row instead of
one a feature, from uniform draws; the mixed vectors are classified, with the cross-entropy to each row's label
weighted alike:

$$w_i = \text{softmax}_b(u_i), \; u_{i,b} \sim U(0, 1), \qquad L = \sum_b w_{i,b} CE(z(\hat x_i), y_b).$$

Neither separates classes by itself. The dot-product loss has only positive terms: it falls when all rows of the
classifier point the same way. And a softmax of numbers in [0, 1] is nearly uniform, so all points lie near the centre
of the batch, with nearly the same label; `--mixup_temperature` below 1 spreads them. The authors' scripts train in
two phases, BatchMixup and then standard mixup. Our reading of that, and the default: the first half of the training
mixes whole batches, the second is plain (`--mixup_stop 0.5`); `--mixup_stop 1` mixes to the end.

`mixup-pairs` is the standard mixup of that paper: all $b^2$ ordered pairs of a batch, with 15 draws of
$\lambda \sim Beta(0.4, 0.4)$, here in one update; their code makes 15: `--mixup_points 1 --mixup_updates 15`.
"""

from dataclasses import replace

from hf_mixup.methods.method import Method, Paper
from hf_mixup.mixing.ratios import BatchWeights

BATCHMIXUP = Method(
    name="batchmixup",
    summary="Mix the pooled vectors of the whole batch, with a weight for each feature; dot-product loss.",
    paper=Paper(
        title="BatchMixup: Improving Training by Interpolating Hidden States of the Entire Mini-batch",
        authors="Yin, Wang, Qu, Xiong",
        year=2021,
        url="https://aclanthology.org/2021.findings-acl.434",
    ),
    site="pooled",
    ratio=BatchWeights("softmax-beta", points=400, alpha=1.0, temperature=1.0),
    dot_product=True,
    stop=0.5,
)

BATCHMIXUP_CODE = replace(
    BATCHMIXUP,
    name="batchmixup-code",
    summary="Mix the pooled vectors of the whole batch, with a weight for each row; weighted cross-entropy.",
    ratio=BatchWeights("softmax-uniform", points=400, temperature=1.0),
    dot_product=False,
)

MIXUP_PAIRS = replace(
    BATCHMIXUP_CODE,
    name="mixup-pairs",
    summary="Mix the pooled vectors of all pairs of the batch, with 15 ratios.",
    ratio=BatchWeights("pairs", points=15, alpha=0.4),
    stop=1.0,
)
