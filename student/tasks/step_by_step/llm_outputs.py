"""What a large model wrote about the items of a data set, in the files that were published with the method.

    DATA/NAME/llm/SPLIT_CoT_0.json, _1.json ...     PaLM-540B; one array of texts a file, in the order of the items
    DATA/gpt-neox/NAME/SPLIT.json                   GPT-NeoX-20B

Each text goes on after the answer: the model invents the next question. It is cut there.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from cache.answers.parsing import parse_answer
from cache.errors import InputError
from cache.examples.files.json_file import read_json_values
from student.tasks.step_by_step.items import Explanation, Item, is_right, value_of

# Folders in which copies of the published files keep the outputs of PaLM.
PALM_FOLDERS = ("llm", "palm")
# Folder beside the data sets that has the outputs of GPT-NeoX, with a folder for each data set.
GPT_FOLDER = "gpt-neox"


@dataclass(frozen=True, slots=True)
class OutputForm:
    """How an output ends. stop: begins the next question. marker: between rationale and label.

    fallback: another marker, if the first is missing. has_letters: "(b) " stands before the label.
    stop_in_rationales: rationales have the word as well, so that it ends an output behind the marker alone.
    """

    stop: str
    marker: str
    fallback: str = ""
    has_letters: bool = False
    stop_in_rationales: bool = False


FORMS = {
    "svamp": OutputForm("Q:", "The answer is"),
    "asdiv": OutputForm("Q:", "The answer is"),
    "cqa": OutputForm("Q:", "So the answer is", has_letters=True),
    "esnli": OutputForm("Premise", "Answer:", stop_in_rationales=True),
    **{f"anli{number}": OutputForm("Premise:", "So the answer is", "The answer is") for number in (1, 2, 3)},
}


def parse_output(text: str, form: OutputForm) -> Explanation:
    """Rationale and label of an output. What is missing is empty."""
    before = ""
    if form.stop_in_rationales and form.marker in text:
        before, marker, text = text.partition(form.marker)
        before += marker
    text = (before + text.partition(form.stop)[0]).strip()
    parsed = parse_answer(text, form.marker)
    if parsed.status == "no_label" and form.fallback:
        parsed = parse_answer(text, form.fallback)
    if parsed.status == "no_label":
        return Explanation("", "")
    label = parsed.label
    if form.has_letters and label[:1] == "(" and label[2:3] == ")":
        label = label[3:].strip()
    return Explanation(parsed.rationale, label)


def bracketed(label: str) -> str:
    """The label as the published code reads it: what is between the first and the last bracket, both included.

    It loses the rest of an equation such as "(12 - 2) - 7". The published accuracy of SVAMP, 74.0%, is that of these.
    """
    start, end = label.find("("), label.rfind(")")
    return label[start : end + 1] if 0 <= start < end else ""


def add_outputs(items: list[Item], data: Path, name: str, split: str, llm: str) -> list[Item]:
    """The items with what the model wrote about each. Items beyond the last output get none.

    Raises InputError if there are no outputs for this split, or more of them than items.
    """
    outputs = _read_outputs(data, name, split, llm)
    if len(outputs) > len(items):
        raise InputError(
            f"outputs of {llm} for {name}, {split}: {len(outputs):,} texts for {len(items):,} items, so they belong to "
            "other files; give the files that were published together"
        )
    form = FORMS[name]
    texts = [*outputs, *[""] * (len(items) - len(outputs))]
    pairs = zip(items, texts, strict=True)
    return [replace(item, explanations=(parse_output(text, form),) if text else ()) for item, text in pairs]


def _read_outputs(data: Path, name: str, split: str, llm: str) -> list[str]:
    if llm == "gpt":
        files = [data / GPT_FOLDER / name / f"{split}.json"]
    else:
        folders = [data / name / folder for folder in PALM_FOLDERS]
        folder = next((each for each in folders if each.is_dir()), folders[0])
        present = set(folder.glob(f"{split}_CoT_*.json"))
        files = [folder / f"{split}_CoT_{number}.json" for number in range(max(len(present), 1))]
        # Texts belong to items by their order, so that a gap would give each later text to another item.
        if missing := [path for path in files if path not in present]:
            others = ", ".join(sorted(path.name for path in present - set(files)))
            raise InputError(
                f"outputs of palm for {name}: no file {missing[0]}"
                + (f", but there is {others}; the files are numbered from 0 without a gap" if others else "")
            )
    outputs = []
    for path in files:
        for each in read_json_values(path, "file of outputs"):
            if not isinstance(each.value, str):
                raise InputError(f"file of outputs {path}, line {each.line}: {str(each.value)[:60]!r} is not a text")
            outputs.append(each.value)
    return outputs


def describe_explanations(items: list[Item]) -> dict[str, float | int]:
    """How good the model's labels are: accuracies over all items, and how many outputs have which part."""
    pairs = [(item, each) for item in items for each in (item.explanations or (Explanation("", ""),))]
    count = max(len(pairs), 1)
    facts: dict[str, float | int] = {
        "items": len(items),
        "explanations": sum(len(item.explanations) for item in items),
        "rationale_parse_rate": sum(bool(each.rationale) for _, each in pairs) / count,
        "label_accuracy": sum(is_right(each.label, item.label, item.is_equation) for item, each in pairs) / count,
        "without_label": sum(not each.label for _, each in pairs),
    }
    if any(item.is_equation for item in items):
        right = (is_right(bracketed(each.label), item.label, True) for item, each in pairs)
        facts["label_accuracy_as_published"] = sum(right) / count
        facts["malformed_labels"] = sum(bool(each.label) and value_of(each.label) is None for _, each in pairs)
    return facts
