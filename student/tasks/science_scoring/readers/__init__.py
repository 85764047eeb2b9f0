"""Readers of graded answers, one module a format.

In: the path of a file or folder. Out: GradedAnswer, in the order of the data. A line that is wrong ends in an
InputError that names the file and the line. To add a format, write a function `Path -> list[GradedAnswer]` and list it
in READERS.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from student.tasks.science_scoring.readers.asap_sas import read_asap_sas
from student.tasks.science_scoring.readers.beetle import read_beetle
from student.tasks.science_scoring.readers.graded_answer import GradedAnswer
from student.tasks.science_scoring.readers.mohler import read_mohler
from student.tasks.science_scoring.readers.semeval_xml import read_semeval_xml

Reader = Callable[[Path], list[GradedAnswer]]
READERS: Mapping[str, Reader] = {
    "beetle_tsv": read_beetle,
    "semeval_xml": read_semeval_xml,
    "mohler": read_mohler,
    "asap_sas": read_asap_sas,
}
__all__ = ["READERS", "GradedAnswer"]
