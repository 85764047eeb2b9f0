"""What the settings of a teacher say about its prompts."""

from cache.errors import InputError
from cache.examples.tokenizers import Tokenizer
from cache.rendering.prompt_form import today, writes_date
from teacher_serving.engines.settings import TeacherSettings


def choose_template_date(teacher: TeacherSettings, tokenizer: Tokenizer) -> str:
    """The day that the chat template writes as today, YYYY-MM-DD; "" if it writes none.

    Raises InputError if the settings name a day and the template writes none.
    """
    if writes_date(tokenizer):
        return teacher.template_date or today()
    if teacher.template_date:
        raise InputError(
            f'teacher.template_date = "{teacher.template_date}": the chat template writes no date; leave it out'
        )
    return ""
