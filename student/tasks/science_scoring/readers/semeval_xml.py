"""SemEval-2013 Task 7 (Beetle and SciEntsBank): one XML file a question, with reference answers and graded answers."""

import xml.sax
from collections.abc import Mapping
from pathlib import Path
from xml.sax.handler import ContentHandler, feature_external_ges
from xml.sax.xmlreader import AttributesImpl, Locator

from cache.errors import InputError, plain_reason
from student.tasks.science_scoring.readers.graded_answer import GradedAnswer

TEXTS = ("questionText", "referenceAnswer", "studentAnswer")
# Reference answers of Beetle have a category. The first of the best one is used; SciEntsBank has one without category.
BEST = ("BEST", "GOOD", "MINIMAL", "KEYWORD")


def read_semeval_xml(path: Path) -> list[GradedAnswer]:
    """Read one XML file, or all .xml files below a folder in the order of their names.

    The grade is the attribute `accuracy`; an answer without it is one that nobody graded.
    """
    files = sorted(path.rglob("*.xml")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: there is no .xml file below it; give the folder of a split, such as train/Core")
    return [answer for file in files for answer in _read_file(file)]


class _Question(ContentHandler):
    """Collects a question while its file is parsed. Answers are complete at the end of the file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.locator: Locator | None = None
        self.id = ""
        self.question = ""
        self.references: list[tuple[int, int, str]] = []
        self.answers: list[tuple[str, str, str, str]] = []
        self._text: list[str] | None = None
        self._attributes: Mapping[str, str] = {}
        self._place = ""

    @property
    def place(self) -> str:
        line = self.locator.getLineNumber() if self.locator else 0
        return f"{self.path}, line {line}"

    def setDocumentLocator(self, locator: Locator) -> None:  # noqa: N802  the name of xml.sax
        self.locator = locator

    def startElement(self, name: str, attrs: "AttributesImpl[str]") -> None:  # noqa: N802
        if name == "question":
            if self.id:
                raise InputError(f"{self.place}: a second <question>; a file has one question")
            self.id = _required(dict(attrs), "id", name, self.place)
        if name in TEXTS:
            if not self.id:
                raise InputError(f"{self.place}: <{name}> outside of <question>; the file is none of SemEval-2013")
            self._text, self._attributes, self._place = [], dict(attrs), self.place

    def characters(self, content: str) -> None:
        if self._text is not None:
            self._text.append(content)

    def endElement(self, name: str) -> None:  # noqa: N802
        if name not in TEXTS or self._text is None:
            return
        text = " ".join("".join(self._text).split())
        self._text = None
        if name == "questionText":
            self.question = text
        elif name == "referenceAnswer":
            category = self._attributes.get("category", BEST[0])
            rank = BEST.index(category) if category in BEST else len(BEST)
            self.references.append((rank, len(self.references), text))
        else:
            answer_id = _required(self._attributes, "id", name, self._place)
            grade = self._attributes.get("accuracy", "").strip()
            self.answers.append((answer_id, text, grade, self._place))


def _read_file(path: Path) -> list[GradedAnswer]:
    parser = xml.sax.make_parser()
    # Nothing outside of the file is read for it.
    parser.setFeature(feature_external_ges, False)
    handler = _Question(path)
    parser.setContentHandler(handler)
    try:
        with path.open("rb") as file:
            parser.parse(file)
    except OSError as error:
        raise InputError(f"{path}: {plain_reason(error)}; give the path of an XML file or its folder") from error
    except xml.sax.SAXParseException as error:
        raise InputError(f"{path}, line {error.getLineNumber()}: is not valid XML: {error.getMessage()}") from error
    if not handler.id:
        raise InputError(f"{path}: there is no <question>; the file is none of SemEval-2013")
    if not handler.question:
        raise InputError(f"{path}: question {handler.id!r} has no <questionText>, or an empty one")
    if not handler.answers:
        raise InputError(f"{path}: question {handler.id!r} has no <studentAnswer>")
    reference = min(handler.references)[2] if handler.references else ""
    return [
        GradedAnswer(answer_id, handler.id, handler.question, reference, text, grade, place)
        for answer_id, text, grade, place in handler.answers
    ]


def _required(attributes: Mapping[str, str], name: str, element: str, place: str) -> str:
    value = (attributes.get(name) or "").strip()
    if not value:
        raise InputError(f"{place}: <{element}> has no attribute {name!r}; give it one")
    return value
