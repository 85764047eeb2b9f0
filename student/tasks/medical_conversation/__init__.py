"""Medical conversation: write conversations of doctor and patient, and extract the patient's record from one.

    prompts         what teachers are asked: a conversation by topic, mood and exchanges; a record from a conversation
    conversation    turns, validation, statistics         validation    conversations from a store or a file
    record          the schema and the parser             record_scores    its metrics
    synthetic, cases    a grammar of conversations with true records, for machines without data
    sections        MTS-Dialog                            visits    ACI-bench
    page            what a report shows

In: topics, or written conversations, or published files. Out: prompts with the record as the answer; scores of answers.
"""

from student.tasks.medical_conversation.task import MedicalConversation
from student.tasks.task import TaskKind

TASK = TaskKind("medical_conversation", MedicalConversation)
