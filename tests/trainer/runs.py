"""Whole small training runs, for the tests to compare."""

from torch import nn
from transformers import TrainingArguments

from hf_mixup import MixupTrainer, MixupTrainerMixin, MixupTrainingArguments
from tests.tiny import tiny_dataset, tiny_model

# AMPLIFY that mixes in nearly every batch; with the paper's alpha a third of the batches stay plain.
STRONG = {"mixup_method": "amplify", "mixup_ratio": "beta", "mixup_alpha": 1.0}
# Transformers renamed gradient checkpointing; both ends of the supported range are tested.
CHECKPOINTING = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in TrainingArguments.__dataclass_fields__
)


class ByTheDocs(MixupTrainer):
    """Computes the loss by itself, as the documentation of transformers does: pops the labels and calls the model."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = nn.functional.cross_entropy(outputs.logits, labels)
        return (loss, outputs) if return_outputs else loss


def train(
    folder,
    model=None,
    trainer_class=MixupTrainer,
    dataset=None,
    trainer_options=None,
    resume=None,
    family="bert",
    **options,
):
    """A trainer after its run of six steps of eight rows, or what `options` make of that."""
    arguments_class = MixupTrainingArguments if issubclass(trainer_class, MixupTrainerMixin) else TrainingArguments
    settings = {
        "max_steps": 6,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": "none",
        "use_cpu": True,
        "dataloader_pin_memory": False,
    }
    arguments = arguments_class(output_dir=str(folder), **{**settings, **options})
    trainer = trainer_class(
        model=model if model is not None else tiny_model(family),
        args=arguments,
        train_dataset=dataset if dataset is not None else tiny_dataset(),
        **(trainer_options or {}),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def logged(trainer, name):
    """The values that were logged under a name, in order."""
    return [entry[name] for entry in trainer.state.log_history if name in entry]
