"""The model card: what was trained on what, how well it does, how it was mixed, and how to load it."""

from __future__ import annotations

import math
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData
from transformers import PreTrainedConfig, Trainer

import hf_mixup
from hf_mixup.methods import METHODS
from hf_mixup.methods.method import Paper
from hf_mixup.shown import code_block, code_span, markdown, python_string, visible

TASK = "text-classification"
# What is measured before and after a calibration, in words.
CALIBRATION_MEASURES = {"nll": "NLL", "ece": "ECE, 15 bins", "brier": "Brier score"}
# What an evaluation reports beside its metrics.
_NOT_METRICS = ("loss", "samples", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
_ALWAYS_SHOWN = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "optim",
    "weight_decay",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "seed",
)
_FIRST = ("method", "site", "layers", "ratio")
# Of a model on the Hub: a folder that is gone may have a longer path, or one from the root.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
# A token in a command line, as `without_tokens` leaves it.
_TOKEN = re.compile(r"(--[\w-]+=)?\$HF_TOKEN")
_SHOWN_IF_CHANGED = ("max_steps", "max_grad_norm", "label_smoothing_factor", "class_weights", "fp16", "bf16")


@dataclass(frozen=True)
class CardFacts:
    """What a model card says, as plain data.

    Args:
        name: the name of the model.
        model_id: the name of the repository; None where the model is only in the folder of the card.
        model_type: the architecture, such as `bert`.
        problem_type: as in the config of the model.
        labels: the names of the classes, in order; empty for regression.
        base_model: the model that the training started from: a name on the Hub, or the name of a local folder.
        base_on_hub: whether it is a name on the Hub.
        dataset: the name of the data set, in words.
        dataset_id: its name on the Hub.
        dataset_config: its configuration there.
        evaluations: for each evaluated set (a split, or a file) its numbers, such as `{"accuracy": 0.91}`.
        mixing: what the config of the model notes about mixing; None for plain fine-tuning.
        options: the mixup options that were given.
        hyperparameters: the other settings of the training.
        command: the command line, word by word, without access tokens and absolute paths.
        versions: of the packages that the model was trained with.
        language, license, tags: for the metadata.
        is_adapter: whether the folder holds an adapter of peft instead of a whole model.
    """

    name: str
    model_id: str | None
    model_type: str
    problem_type: str | None
    labels: list[str]
    base_model: str | None = None
    base_on_hub: bool = False
    dataset: str | None = None
    dataset_id: str | None = None
    dataset_config: str | None = None
    evaluations: dict[str, dict[str, float]] = field(default_factory=dict)
    mixing: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    command: list[str] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    language: str | list[str] | None = None
    license: str | None = None
    tags: list[str] = field(default_factory=list)
    is_adapter: bool = False


# ---- Writing ----


def model_card(facts: CardFacts) -> ModelCard:
    """Write the model card.

    Example:
        >>> card = model_card(CardFacts("model", "me/model", "bert", "single_label_classification", ["no", "yes"]))
        >>> card.data.tags, card.data.library_name
        (['generated_from_trainer'], 'transformers')
    """
    parts = [f"# {markdown(facts.name)}", _opening(facts), *_results(facts), *_usage(facts)]
    parts += [*_mixing(facts), *_training(facts), *_citation(facts)]
    return ModelCard(f"---\n{_metadata(facts).to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")


def _metadata(facts: CardFacts) -> ModelCardData:
    results = _eval_results(facts)
    mixing = [] if facts.mixing is None else ["mixup", facts.mixing["method"]]
    return ModelCardData(
        language=facts.language,
        license=facts.license,
        library_name="peft" if facts.is_adapter else "transformers",
        pipeline_tag=TASK,
        tags=[*mixing, *facts.tags, "generated_from_trainer"],
        base_model=facts.base_model if facts.base_on_hub else None,
        datasets=None if facts.dataset_id is None else [facts.dataset_id],
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=visible(facts.name),
        eval_results=results or None,
    )


def _eval_results(facts: CardFacts) -> list[EvalResult]:
    on_hub = facts.dataset_id is not None
    return [
        EvalResult(
            task_type=TASK,
            task_name="Text Classification",
            dataset_type=facts.dataset_id if on_hub else "local",
            dataset_name=visible(facts.dataset or facts.dataset_id if on_hub else evaluated),
            dataset_config=visible(facts.dataset_config) if on_hub and facts.dataset_config else None,
            dataset_split=visible(evaluated) if on_hub else None,
            metric_type=metric,
            metric_name=metric.replace("_", " ").capitalize(),
            metric_value=value,
        )
        for evaluated, numbers in facts.evaluations.items()
        for metric, value in numbers.items()
        if metric not in _NOT_METRICS and math.isfinite(value)
    ]


def _opening(facts: CardFacts) -> str:
    kind = "adapter for a " if facts.is_adapter else ""
    task = "regression on texts" if facts.problem_type == "regression" else "text classification"
    text = f"A {kind}{markdown(facts.model_type)} model for {task}"
    if facts.base_model is not None and facts.base_on_hub:
        address = f"https://huggingface.co/{quote(facts.base_model)}"
        text += f", fine-tuned from [{markdown(facts.base_model)}]({address})"
    elif facts.base_model is not None:
        text += f", fine-tuned from the local model {code_span(facts.base_model)}"
    if facts.dataset is not None:
        text += f" on {markdown(facts.dataset)}"
    if facts.mixing is None:
        return f"{text}."
    return (
        f"{text}, with the mixup method {code_span(facts.mixing['method'])}. Mixup is a way to train: what came out "
        "is a plain checkpoint that loads without any code of mixup."
    )


def _results(facts: CardFacts) -> list[str]:
    if not facts.evaluations:
        return []
    names = list(dict.fromkeys(name for numbers in facts.evaluations.values() for name in numbers))
    shown = [name for name in names if name not in _NOT_METRICS] + [name for name in ("loss",) if name in names]
    if "samples" in names:
        shown.append("samples")
    head = ["evaluation set", *("rows" if name == "samples" else markdown(name.replace("_", " ")) for name in shown)]
    rows = [
        [markdown(_set_name(facts, evaluated)), *(_number(numbers.get(name)) for name in shown)]
        for evaluated, numbers in facts.evaluations.items()
    ]
    return ["## Results", _table(head, rows)]


def _set_name(facts: CardFacts, evaluated: str) -> str:
    return evaluated if facts.dataset_id is None else f"{facts.dataset or facts.dataset_id}, {evaluated}"


def _usage(facts: CardFacts) -> list[str]:
    load = f'classify = pipeline("{TASK}", model={python_string(facts.model_id or ".")})'
    need = "peft and transformers" if facts.is_adapter else "transformers"
    where = f"With {need} alone" if facts.model_id else f"With {need} alone, in the folder of this card"
    code = f"""from transformers import pipeline

{load}
print(classify("A text of your own"))
# A pair of texts: classify({{"text": "The first", "text_pair": "The second"}})"""
    parts = ["## Use", f"{where}:", code_block(code, "python")]
    if facts.labels:
        several = ", of which a text may have several" if facts.problem_type == "multi_label_classification" else ""
        parts.append(f"The labels{several}: {', '.join(map(code_span, facts.labels))}.")
    elif facts.problem_type == "regression":
        parts.append("The score that it gives is the predicted number.")
    return parts


def _mixing(facts: CardFacts) -> list[str]:
    if facts.mixing is None:
        return []
    method = METHODS[facts.mixing["method"]]
    rows = [[code_span(name), markdown(_setting(value))] for name, value in _ordered(facts.mixing, *_FIRST)]
    parts = [
        "## How it was mixed",
        f"{method.summary} Batches were mixed in training only, never in evaluation.",
        _table(["setting", "value"], rows),
    ]
    if facts.options:
        given = ", ".join(code_span(f"{name}={value}") for name, value in facts.options.items())
        parts.append(f"Given by hand: {given}; everything else is the default of the method.")
    else:
        parts.append("All of these are the defaults of the method.")
    if method.paper is not None:
        paper = method.paper
        parts.append(f"Paper: {paper.authors} ({paper.year}), [{paper.title}]({paper.url}).")
    return parts


def _ordered(settings: Mapping[str, Any], *first: str) -> list[tuple[str, Any]]:
    """The items of a mapping in an order that writing it to JSON and back does not change."""
    return [(name, settings[name]) for name in first if name in settings] + [
        (name, settings[name]) for name in sorted(settings) if name not in first
    ]


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        value = [
            str(entry) if name == "kind" else f"{'lambda' if name == 'lam' else name} {entry}"
            for name, entry in _ordered(value, "kind")
        ]
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _training(facts: CardFacts) -> list[str]:
    parts = ["## Training"]
    if facts.command is not None:
        parts += ["The command:", code_block(_command(facts.command), "bash")]
    if facts.hyperparameters:
        rows = [[code_span(name), markdown(value)] for name, value in facts.hyperparameters.items()]
        parts.append(_table(["hyperparameter", "value"], rows))
    if facts.versions:
        parts.append("Versions: " + ", ".join(f"{name} {number}" for name, number in facts.versions.items()) + ".")
    return parts


def _command(words: Sequence[str]) -> str:
    """One flag with its values on a line."""
    lines: list[str] = []
    for word in words:
        # The name of the variable must not be quoted, or the shell would not fill it in.
        quoted = word if _TOKEN.fullmatch(word) else shlex.quote(word)
        if word.startswith("--"):
            lines.append(quoted)
        elif lines:
            lines[-1] += f" {quoted}"
        else:
            lines = [quoted]
    return " \\\n    ".join(lines)


def _citation(facts: CardFacts) -> list[str]:
    paper = None if facts.mixing is None else METHODS[facts.mixing["method"]].paper
    return [] if paper is None else ["## Citation", "The mixup method:", code_block(bibtex(paper), "bibtex")]


def bibtex(paper: Paper) -> str:
    """The BibTeX entry of a paper.

    Example:
        >>> bibtex(Paper("On mixing", "Guo, Mao", 2019, "https://arxiv.org/abs/0")).splitlines()[0]
        '@misc{guo2019on,'
    """
    names = paper.authors.split(", ")
    first_word = re.sub(r"[^a-z0-9]", "", paper.title.split()[0].lower())
    lines = [
        f"@misc{{{re.sub('[^a-z]', '', names[0].lower())}{paper.year}{first_word},",
        f"  title = {{{{{paper.title}}}}},",
        f"  author = {{{' and '.join(names)}}},",
        f"  year = {{{paper.year}}},",
        f"  url = {{{paper.url}}}",
        "}",
    ]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


# ---- Calibration ----


def calibrated_card(card: str | None, before: str, name: str, noted: Mapping[str, Any]) -> str:
    """The card of a calibrated checkpoint: that of the model it was made from, with a section on the calibration.

    Args:
        card: the card of that model; None if it has none.
        before: the name of its folder.
        name: the name of the new folder.
        noted: what the config of the new checkpoint notes of the calibration.

    Example:
        >>> same = {"nll": 0.5, "ece": 0.1, "brier": 0.3}
        >>> noted = {"temperature": 1.5, "fitted_on": "9 rows of a.csv", "measured_on": "7 rows of b.csv"}
        >>> calibrated_card(None, "mine", "new", {**noted, "before": same, "after": same}).splitlines()[5]
        '# new'
    """
    others = " What the other parts of this card say of losses and probabilities is of the model before."
    if card is None:
        others = ""
        data = ModelCardData(library_name="transformers", pipeline_tag=TASK).to_yaml()
        card = f"---\n{data}\n---\n\n# {markdown(name)}"
    # The example of a card that a run wrote names its folder.
    card = card.replace(f"model={python_string(before)}", f"model={python_string(name)}")
    return "\n\n".join([card.rstrip(), *_calibration(before, noted, others)]) + "\n"


def _calibration(before: str, noted: Mapping[str, Any], others: str) -> list[str]:
    temperature = noted["temperature"]
    several = isinstance(temperature, Mapping)
    divided = "a temperature for each class" if several else f"the temperature {temperature:.3f}"
    parts = [
        "## Calibration",
        f"The logits are those of {code_span(before)} divided by {divided}. The division is within the weights of the "
        f"last linear layer, so that no code is needed for it{'' if several else ', and no prediction changes'}."
        f"{others}",
        f"Fitted on {markdown(noted['fitted_on'])}. Measured on {markdown(noted['measured_on'])}"
        f"{', mean over the classes' if several else ''}:",
        _table(
            ["measure", "before", "after"],
            [
                [words, _number(noted["before"][measure]), _number(noted["after"][measure])]
                for measure, words in CALIBRATION_MEASURES.items()
            ],
        ),
    ]
    if several:
        rows = [[code_span(label), f"{value:.3f}"] for label, value in temperature.items()]
        parts.append(_table(["class", "temperature"], rows))
    if "thresholds" in noted:
        parts += _thresholds(noted["thresholds"])
    return parts


def _thresholds(wished: Mapping[str, Any]) -> list[str]:
    rows = [
        [markdown(label), *("none" if each is None else f"{each:.2f}" for each in own.values())]
        for label, own in wished["by_class"].items()
    ]
    return [
        f"Answers of at least this probability have a precision of {wished['precision']:g} on the measured rows, and "
        "on new rows of the same kind with 95 % confidence:",
        _table(["answers", "on the measured rows", "with confidence"], rows),
    ]


# ---- Collecting ----


def card_facts(
    trainer: Trainer,
    config: PreTrainedConfig,
    *,
    name: str,
    model_id: str | None,
    base_model: str | None = None,
    evaluations: Mapping[str, Mapping[str, float]] | None = None,
    license: str | None = None,
    **stated: Any,
) -> CardFacts:
    """Collect what a trainer knows for the card of its model.

    Args:
        trainer: with `MixupTrainingArguments`.
        config: of its model.
        name, model_id: as in `CardFacts`.
        base_model: a name on the Hub or a folder; by default what the model was loaded from.
        evaluations: what `evaluate` returned, by evaluated set; by default the last evaluation of the weights as they
            are that the trainer has logged.
        license: by default that of the base model on the Hub.
        stated: other fields of `CardFacts`.
    """
    base_model = base_model or getattr(config, "name_or_path", None) or None
    on_hub = base_model is not None and not Path(base_model).exists() and bool(_HUB_NAME.fullmatch(base_model))
    if evaluations is None:
        last = _last_evaluation(trainer)
        evaluations = {_evaluated_split(trainer): last} if last else {}
    mixing = getattr(config, "mixup", None)
    if not isinstance(mixing, dict) or mixing.get("method") not in METHODS:
        # Plain fine-tuning, or a method that this version does not know.
        mixing = None
    regression = config.problem_type == "regression"
    return CardFacts(
        name=name,
        model_id=model_id,
        model_type=config.model_type,
        problem_type=config.problem_type,
        labels=[] if regression else [config.id2label[index] for index in range(config.num_labels)],
        base_model=base_model if on_hub or base_model is None else Path(base_model).absolute().name,
        base_on_hub=on_hub,
        evaluations={name: _metrics(numbers) for name, numbers in evaluations.items()},
        mixing=mixing,
        options=_mixup_options(trainer.args) if mixing and mixing["method"] == trainer.args.mixup_method else {},
        hyperparameters=_hyperparameters(trainer.args),
        versions=_versions(),
        license=license or (_license(base_model) if on_hub else None),
        is_adapter=hasattr(trainer.model, "peft_config"),
        **stated,
    )


def _last_evaluation(trainer: Trainer) -> dict[str, float] | None:
    """Of the weights as they are: after the training the best ones may have been loaded again."""
    history = trainer.state.log_history
    ends = [index for index, entry in enumerate(history) if "train_runtime" in entry]
    after = [entry for entry in history[ends[-1] :] if _metrics(entry)] if ends else []
    logged = [entry for entry in history if _metrics(entry)]
    if not after and trainer.args.load_best_model_at_end and trainer.state.best_global_step:
        logged = [entry for entry in logged if entry.get("step") == trainer.state.best_global_step]
    return (after or logged or [None])[-1]


def _evaluated_split(trainer: Trainer) -> str:
    split = getattr(trainer.eval_dataset, "split", None)
    return "evaluation set" if split is None else str(split)


def _metrics(numbers: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation without `eval_` before their names."""
    metrics = {key.removeprefix("eval_"): value for key, value in numbers.items() if key.startswith("eval_")}
    return {
        name: value
        for name, value in metrics.items()
        if isinstance(value, int | float) and name not in _NOT_METRICS[2:]
    }


def _mixup_options(args: Any) -> dict[str, Any]:
    """The mixup options that differ from their default, the method itself aside."""
    return {
        option.name: getattr(args, option.name)
        for option in fields(args)
        if option.name.startswith("mixup_")
        and option.name != "mixup_method"
        and getattr(args, option.name) != option.default
    }


def _hyperparameters(args: Any) -> dict[str, Any]:
    defaults = {option.name: option.default for option in fields(args)}
    shown = {name: getattr(args, name) for name in _ALWAYS_SHOWN}
    shown |= {name: getattr(args, name) for name in _SHOWN_IF_CHANGED if getattr(args, name) != defaults[name]}
    if args.max_steps > 0:
        del shown["num_train_epochs"]
    if args.world_size > 1:
        shown["processes"] = args.world_size
    # The scheduler and the optimizer are enumerations.
    return {name: getattr(value, "value", value) for name, value in shown.items()}


def _versions() -> dict[str, str]:
    packages = ("transformers", "torch", "datasets", "tokenizers")
    numbers = {name: version(name) for name in packages}
    return {"hf_mixup": hf_mixup.__version__, **numbers, "Python": platform.python_version()}


def _license(base_model: str) -> str | None:
    try:
        tags = HfApi().model_info(base_model).tags or []
    # Without network, or for a name that the Hub does not know, the card does without.
    except Exception:
        return None
    return next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None)
