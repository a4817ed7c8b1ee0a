"""The mixup class that fits a checkpoint or a config."""

from __future__ import annotations

from os import PathLike
from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from hf_mixup.mixing.checks import check_type
from hf_mixup.modeling.albert import MixupAlbertForSequenceClassification
from hf_mixup.modeling.bert import MixupBertForSequenceClassification
from hf_mixup.modeling.camembert import MixupCamembertForSequenceClassification
from hf_mixup.modeling.deberta_v2 import MixupDebertaV2ForSequenceClassification
from hf_mixup.modeling.distilbert import MixupDistilBertForSequenceClassification
from hf_mixup.modeling.electra import MixupElectraForSequenceClassification
from hf_mixup.modeling.gpt2 import MixupGPT2ForSequenceClassification
from hf_mixup.modeling.llama import MixupLlamaForSequenceClassification
from hf_mixup.modeling.modernbert import MixupModernBertForSequenceClassification
from hf_mixup.modeling.mpnet import MixupMPNetForSequenceClassification
from hf_mixup.modeling.qwen2 import MixupQwen2ForSequenceClassification
from hf_mixup.modeling.qwen3 import MixupQwen3ForSequenceClassification
from hf_mixup.modeling.roberta import MixupRobertaForSequenceClassification
from hf_mixup.modeling.sequence_classification import MixupModel
from hf_mixup.modeling.xlm_roberta import MixupXLMRobertaForSequenceClassification

MODELS: dict[str, type[MixupModel]] = {
    "albert": MixupAlbertForSequenceClassification,
    "bert": MixupBertForSequenceClassification,
    "camembert": MixupCamembertForSequenceClassification,
    "deberta-v2": MixupDebertaV2ForSequenceClassification,
    "distilbert": MixupDistilBertForSequenceClassification,
    "electra": MixupElectraForSequenceClassification,
    "gpt2": MixupGPT2ForSequenceClassification,
    "llama": MixupLlamaForSequenceClassification,
    "modernbert": MixupModernBertForSequenceClassification,
    "mpnet": MixupMPNetForSequenceClassification,
    "qwen2": MixupQwen2ForSequenceClassification,
    "qwen3": MixupQwen3ForSequenceClassification,
    "roberta": MixupRobertaForSequenceClassification,
    "xlm-roberta": MixupXLMRobertaForSequenceClassification,
}

# Pipelines look here for the name of the class that they are given. No model type has these keys, so that the Auto
# classes of transformers stay as they are.
MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.update(
    {f"mixup-{family}": model_class.__name__ for family, model_class in MODELS.items()}
)

HUB_OPTIONS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
    "trust_remote_code",
)


class AutoMixupModelForSequenceClassification:
    """Picks the mixup class by the `model_type` of the config, as `AutoModelForSequenceClassification` does.

    Example:
        >>> from transformers import BertConfig
        >>> config = BertConfig(num_hidden_layers=1, hidden_size=8, num_attention_heads=2, intermediate_size=8)
        >>> type(AutoMixupModelForSequenceClassification.from_config(config)).__name__
        'MixupBertForSequenceClassification'
    """

    def __init__(self) -> None:
        raise TypeError("Use AutoMixupModelForSequenceClassification.from_pretrained(...) or .from_config(...).")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike[str], **kwargs: Any) -> MixupModel:
        """The checkpoint, with the arguments of `PreTrainedModel.from_pretrained`.

        Raises:
            ValueError: the model's family has no mixup class.
        """
        config = kwargs.get("config")
        if not isinstance(config, PreTrainedConfig):
            hub_options = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
            config = AutoConfig.from_pretrained(config or pretrained_model_name_or_path, **hub_options)
        return _model_class(config).from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_config(cls, config: PreTrainedConfig, **kwargs: Any) -> MixupModel:
        """A model with random weights, with the arguments of `AutoModelForSequenceClassification.from_config`.

        Raises:
            ValueError: the config's family has no mixup class.
        """
        return _model_class(config)._from_config(config, **kwargs)


def _model_class(config: PreTrainedConfig) -> type[MixupModel]:
    check_type("config", config, PreTrainedConfig, "a config, or the name of a model to from_pretrained")
    if config.model_type not in MODELS:
        raise ValueError(
            f"The model family {config.model_type!r} has no mixup class: supported are {', '.join(sorted(MODELS))}; "
            "other families train with mixup_method='none' and their own class."
        )
    return MODELS[config.model_type]
