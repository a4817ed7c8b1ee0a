"""The methods by name, each a composition of the axes in `hf_mixup.mixing`, one paper a file."""

from hf_mixup.methods.amplify import AMPLIFY, AMPLIFY_CODE
from hf_mixup.methods.attentionmix import ATTENTIONMIX
from hf_mixup.methods.batchmixup import BATCHMIXUP, BATCHMIXUP_CODE, MIXUP_PAIRS
from hf_mixup.methods.embedmix import EMBEDMIX
from hf_mixup.methods.manifold import MANIFOLD
from hf_mixup.methods.method import Method, Methods, Paper
from hf_mixup.methods.mixup import Mixup
from hf_mixup.methods.mixup_transformer import MIXUP_TRANSFORMER
from hf_mixup.methods.none import NONE
from hf_mixup.methods.nonlinear import NONLINEAR
from hf_mixup.methods.sentmix import SENTMIX
from hf_mixup.methods.ssmix import SSMIX
from hf_mixup.methods.tmix import TMIX

METHODS = Methods(
    (method.name, method)
    for method in (
        NONE,
        AMPLIFY,
        AMPLIFY_CODE,
        EMBEDMIX,
        SENTMIX,
        MIXUP_TRANSFORMER,
        MANIFOLD,
        TMIX,
        ATTENTIONMIX,
        SSMIX,
        NONLINEAR,
        BATCHMIXUP,
        BATCHMIXUP_CODE,
        MIXUP_PAIRS,
    )
)

__all__ = ["METHODS", "Method", "Mixup", "Paper"]
