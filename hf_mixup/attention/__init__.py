"""What mixup does to attention: maps of one pair of texts, and numbers over a file of texts."""

from hf_mixup.attention.maps import AttentionMap, attention_maps
from hf_mixup.attention.measures import attention_entropy, attention_share, measure_texts

__all__ = ["AttentionMap", "attention_entropy", "attention_maps", "attention_share", "measure_texts"]
