"""Recipe dialogues: answer a cook's questions from retrieved passages of a cookbook.

In: CookDial, Wizard of Tasks, or dialogues from a grammar. Out: prompts with passages, reference answers; agreement,
the triad of context relevance, groundedness and answer relevance, and how good the retrieval was.

    readers/         data sets                    retrieval/       passages for a question
    dialogue.py      recipes and turns            splits.py        by recipe
    prompts.py       chats and queries            examples.py      turns as examples, with facts for the judge
    augmentation.py  what a teacher adds          scoring.py       agreement and retrieval measures
    triad.py         the triad                    page.py          what a report shows
    task.py          settings, and the interface of tasks
"""

from student.tasks.recipe_dialogue.task import RecipeDialogue
from student.tasks.task import TaskKind

TASK = TaskKind("recipe_dialogue", RecipeDialogue)
