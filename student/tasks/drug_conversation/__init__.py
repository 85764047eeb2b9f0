"""Conversation about drug editing: what instructions mean in other words, and what changes of properties mean.

A specialist that edits molecules learns this language from a generalist. In: nothing. Out: questions with true answers
and open questions, which a teacher scores and answers; scores of answers. Its words are those of drug_editing.
"""

from student.tasks.drug_conversation.task import DrugConversation
from student.tasks.task import TaskKind

TASK = TaskKind("drug_conversation", DrugConversation)
