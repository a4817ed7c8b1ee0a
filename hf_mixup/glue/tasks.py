"""The nine GLUE tasks: where their texts stand, what their classes are called, which numbers they report."""

from dataclasses import dataclass

from hf_mixup.errors import UsageError, nearest


@dataclass(frozen=True)
class Task:
    """One GLUE task.

    Attributes:
        name: the configuration of the Hub dataset `nyu-mll/glue`.
        text_columns: one or two columns that hold the texts.
        label_names: the classes in the order of their ids; empty for the regression task.
    """

    name: str
    text_columns: tuple[str, ...]
    label_names: tuple[str, ...]

    @property
    def is_regression(self) -> bool:
        """Whether the label is a score and not a class."""
        return not self.label_names


_TASKS = (
    Task("cola", ("sentence",), ("unacceptable", "acceptable")),
    Task("mnli", ("premise", "hypothesis"), ("entailment", "neutral", "contradiction")),
    Task("mrpc", ("sentence1", "sentence2"), ("not_equivalent", "equivalent")),
    Task("qnli", ("question", "sentence"), ("entailment", "not_entailment")),
    Task("qqp", ("question1", "question2"), ("not_duplicate", "duplicate")),
    Task("rte", ("sentence1", "sentence2"), ("entailment", "not_entailment")),
    Task("sst2", ("sentence",), ("negative", "positive")),
    Task("stsb", ("sentence1", "sentence2"), ()),
    Task("wnli", ("sentence1", "sentence2"), ("not_entailment", "entailment")),
)

TASKS: dict[str, Task] = {task.name: task for task in _TASKS}
"""All GLUE tasks by name."""


def get_task(name: str) -> Task:
    """Return the task called `name`, in upper or lower case.

    Raises:
        UsageError: if there is no such task; the sentence names the nearest one.
    """
    task = TASKS.get(name.lower())
    if task is None:
        guess = nearest(name, TASKS)
        hint = f"; did you mean {guess}?" if guess else ""
        raise UsageError(f"--task_name {name} is not a GLUE task, choose one of {', '.join(TASKS)}{hint}")
    return task
