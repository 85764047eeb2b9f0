"""Aligner: records of a store in the tokens and the chat template of a student with another tokenizer."""

from dataclasses import replace
from typing import Any

import numpy as np

from cache.errors import SpecMismatchError, StoreError
from cache.examples.example import Segment, TokenizedExample
from cache.examples.tokenizers import tokenizer_digest
from cache.json_documents import digest
from cache.rendering.prompt_form import DEFAULT_FORM, PromptForm
from cache.rendering.render import render
from cache.rows.record import Record
from cache.rows.spec import StoreSpec
from student.tokenizers.alignment import Aligned, align
from student.tokenizers.target_rows import keep_largest
from student.tokenizers.vocabulary_map import END_OF_TEXT, map_vocabularies


class Aligner:
    """Renders each record anew, and aligns its targets by bytes. Safe to share between threads.

    spec: that of the store, with the student's tokenizer and vocabulary, targets for the assistant's tokens only, and
    without what an alignment loses. No row has more entries than those of the store.
    """

    def __init__(
        self, spec: StoreSpec, store: object, teacher: Any, student: Any, form: PromptForm = DEFAULT_FORM
    ) -> None:
        """spec, store: of the store, and its name for messages. teacher, student: fast tokenizers. form: how the
        student's renders texts.

        Raises SpecMismatchError if the store was captured with another tokenizer than `teacher`, StoreError if its
        targets are estimates, InputError for a tokenizer whose tokens have no bytes.
        """
        if tokenizer_digest(teacher) != spec.tokenizer:
            raise SpecMismatchError(
                f"store {store} was captured with another tokenizer than {teacher.name_or_path!r}; give the teacher's"
            )
        targets = spec.targets
        if targets.has_sampled:
            raise StoreError(
                f"{store} has unbiased estimates ({targets.mode} targets), which are biased in other tokens: a "
                "distribution within a teacher's token is a quotient of estimates, and skipping these positions "
                "selects by the text that follows; capture topk or nucleus targets"
            )
        self._student, self._form = student, form
        self._most = targets.max_entries
        self._vocabulary = map_vocabularies(teacher, spec.vocab_size, student)
        self.spec = replace(
            spec,
            tokenizer=tokenizer_digest(student),
            chat_template=digest(student.chat_template),
            vocab_size=len(self._vocabulary.student_bytes),
            tokenizer_size=len(student),
            targets=replace(targets, entropy=False, temperatures=()),
            asked="assistant",
            chat_template_kwargs=dict(form.chat_template_kwargs),
            template_date=form.template_date,
            aligned={"from": spec.fingerprint, "has_encoder": form.has_encoder},
        )

    def align(self, record: Record) -> Aligned:
        """The window of a record in the student's tokens. Raises InputError if its tokenizer cannot encode a text."""
        student = self._render(record.tokenized)
        aligned = align(record.window, student.tokens, student.segments, self._vocabulary)
        # A token that spans several of the teacher's is an entry beside those of the teacher's row.
        targets = keep_largest(aligned.window.targets, self._most)
        return replace(aligned, window=replace(aligned.window, targets=targets))

    def _render(self, teacher: TokenizedExample) -> TokenizedExample:
        """An example in the student's tokens, without an end token if the teacher's response has none."""
        rendered = render(teacher.example, self._student, "assistant", self._form)
        spoken = np.flatnonzero(teacher.segments != Segment.PROMPT)
        own = np.flatnonzero(rendered.segments != Segment.PROMPT)
        if teacher.example.is_trace or not len(own) or not len(spoken):
            return rendered
        last = self._vocabulary.teacher_bytes[int(teacher.tokens[spoken[-1]])]
        if last is None or last == END_OF_TEXT:
            return rendered
        if self._vocabulary.student_bytes[int(rendered.tokens[own[-1]])] != END_OF_TEXT:
            return rendered
        return replace(rendered, tokens=rendered.tokens[: own[-1]], segments=rendered.segments[: own[-1]])


def in_tokens_of_student(record: Record, aligned: Aligned) -> Record:
    """The record with the window that it was aligned to. Its key and its texts stay."""
    window = aligned.window
    tokenized = replace(record.tokenized, tokens=window.tokens, segments=window.segments)
    return Record(record.key, tokenized, window.targets, window.token_logprobs)
