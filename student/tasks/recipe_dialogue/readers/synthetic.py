"""Recipes and dialogues from a grammar: for machines without a data set. Synthetic, and never mixed with real data.

A recipe has a title, ingredients with amounts, and steps that use them with times, temperatures and tools. A dialogue
asks for ingredients and steps in order, with questions about amounts, times, temperatures and tools between them. Each
answer is taken from one line of the recipe.
"""

from collections.abc import Iterator
from random import Random

from student.tasks.recipe_dialogue.dialogue import Conversations, Passage, Recipe, Turn, Utterance

STYLES = ("Rustic", "Creamy", "Spicy", "Quick", "Golden", "Smoky", "Lemony", "Sunday", "Village", "Winter", "Green")
DISHES = (
    ("Soup", "pot"), ("Stew", "large pot"), ("Casserole", "baking dish"), ("Salad", "large bowl"), ("Pie", "pie dish"),
    ("Curry", "deep pan"), ("Omelette", "frying pan"), ("Gratin", "baking dish"), ("Risotto", "wide pan"),
)  # fmt: skip
MAINS = (
    ("potatoes", "pieces", (3, 8)), ("carrots", "pieces", (2, 6)), ("chicken", "pounds", (1, 3)),
    ("mushrooms", "ounces", (6, 16)), ("lentils", "cups", (1, 3)), ("tomatoes", "pieces", (2, 7)),
    ("spinach", "ounces", (5, 12)), ("rice", "cups", (1, 3)), ("salmon", "pounds", (1, 2)), ("leeks", "pieces", (2, 4)),
    ("beans", "cups", (1, 4)), ("pumpkin", "pounds", (1, 3)),
)  # fmt: skip
EXTRAS = (
    ("olive oil", "tablespoons", (1, 4)), ("butter", "tablespoons", (1, 5)), ("cream", "cups", (1, 2)),
    ("onions", "pieces", (1, 3)), ("garlic", "cloves", (2, 6)), ("salt", "teaspoons", (1, 2)),
    ("paprika", "teaspoons", (1, 3)), ("vegetable stock", "cups", (2, 6)), ("parsley", "tablespoons", (1, 4)),
    ("cheese", "ounces", (2, 8)), ("lemon juice", "tablespoons", (1, 3)), ("flour", "tablespoons", (2, 5)),
)  # fmt: skip
CUTS = ("Chop", "Slice", "Dice", "Rinse", "Season", "Grate")
NEXT = (
    "What's next?",
    "What do I do now?",
    "OK, done. What is the next step?",
    "I did that. And then?",
    "Go on, please.",
)
FIRST = ("What is the first step?", "How do I start?", "I have everything. What should I do first?")


def synthetic_conversations(count: int, seed: int) -> Conversations:
    """`count` recipes with one dialogue each. Deterministic; the first ones do not depend on `count`."""
    data = Conversations({}, [])
    for number in range(count):
        random = Random(f"{seed}/{number}")
        recipe, amounts = _recipe(number, random)
        data.recipes[recipe.id] = recipe
        data.turns += _dialogue(recipe, amounts, random)
    return data


def _recipe(number: int, random: Random) -> tuple[Recipe, dict[str, str]]:
    """A recipe, and the amount of each ingredient by its name."""
    (main, second), (dish, vessel) = random.sample(MAINS, 2), random.choice(DISHES)
    extras = random.sample(EXTRAS, 4)
    title = f"{random.choice(STYLES)} {main[0].capitalize()} and {second[0].capitalize()} {dish} No. {number + 1}"
    amounts = {name: f"{random.randint(*limits)} {unit}" for name, unit, limits in (main, second, *extras)}
    minutes = [random.choice((4, 5, 8, 10, 12, 15)) for _ in range(3)]
    oven = random.choice((325, 350, 375, 400, 425))
    steps = [
        f"Preheat the oven to {oven} degrees F." if "dish" in vessel else f"Warm a {vessel} over medium heat.",
        f"{random.choice(CUTS)} the {main[0]} and put them in the {vessel}.",
        f"Add the {extras[0][0]} and the {extras[1][0]} and stir for {minutes[0]} minutes.",
        f"{random.choice(CUTS)} the {second[0]} and add it with the {extras[2][0]}.",
        f"Cover and cook for {minutes[1] + 10} minutes.",
        f"Sprinkle with the {extras[3][0]} and let it rest for {minutes[2]} minutes before you serve it.",
    ]
    lines = [title, *(f"{amount} {name}" for name, amount in amounts.items())]
    passages = [Passage(f"s{number:04}/{i}", text) for i, text in enumerate(lines)]
    passages += [Passage(f"s{number:04}/step-{i}", f"{i}) {text}") for i, text in enumerate(steps, start=1)]
    return Recipe(f"s{number:04}", title, tuple(passages)), amounts


def _dialogue(recipe: Recipe, amounts: dict[str, str], random: Random) -> Iterator[Turn]:
    """The turns of one dialogue: ingredients, then steps, with questions between them."""
    history: list[Utterance] = []
    for number, (question, answer, line) in enumerate(_questions(recipe, amounts, random)):
        yield Turn(f"{recipe.id}/{number}", recipe.id, tuple(history), question, answer, (f"{recipe.id}/{line}",))
        history += [("user", question), ("assistant", answer)]


def _questions(recipe: Recipe, amounts: dict[str, str], random: Random) -> Iterator[tuple[str, str, str]]:
    """(question, answer, line of the recipe that the answer is taken from)."""
    yield "What are we going to cook?", f"We are making {recipe.title}.", "0"
    for i, (name, amount) in enumerate(amounts.items(), start=1):
        if i == 1 or random.random() < 0.4:
            form = random.choice(("How much {} do I need?", "What amount of {} should I get?", "And how much {}?"))
            yield form.format(name), f"You need {amount} of {name}.", str(i)
    steps = [passage for passage in recipe.passages if "/step-" in passage.id]
    for i, step in enumerate(steps):
        text, line = step.text.partition(") ")[2], step.id.partition("/")[2]
        ask = random.choice(FIRST if i == 0 else NEXT)
        yield (
            ask,
            random.choice((text, f"Now {text[0].lower()}{text[1:]}", f"Please {text[0].lower()}{text[1:]}")),
            line,
        )
        words = text.rstrip(".").split()
        if "minutes" in words and random.random() < 0.7:
            yield "For how long?", f"For {words[words.index('minutes') - 1]} minutes.", line
        if "degrees" in words and random.random() < 0.7:
            yield "How hot should it be?", f"It should be {words[words.index('degrees') - 1]} degrees F.", line
