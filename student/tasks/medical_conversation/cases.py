"""What grammar-made conversations speak of: conditions with their medications, names, histories. Plain data.

The values are written for this grammar. They are no medical advice.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Medication:
    """dosages, instructions: the values that a doctor may name. purpose: what it is for, in the doctor's words."""

    name: str
    dosages: tuple[str, ...]
    purpose: str
    instructions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """A topic. complaints: what the patient says at first. diagnoses: names that the doctor may give it."""

    complaints: tuple[str, ...]
    diagnoses: tuple[str, ...]
    medications: tuple[Medication, ...]


ONCE = ("once a day", "every morning", "every evening with food")
TWICE = ("twice a day", "twice a day with meals", "every 12 hours")
NEEDED = ("every 6 hours as needed", "only when needed", "at the first sign of symptoms")

CONDITIONS: dict[str, Condition] = {
    "hypertension": Condition(
        ("My blood pressure was high at the pharmacy", "I get headaches and feel dizzy"),
        ("hypertension", "stage 2 hypertension"),
        (
            Medication("lisinopril", ("10 mg", "20 mg"), "lowering blood pressure", ONCE),
            Medication("amlodipine", ("5 mg", "10 mg"), "relaxing the blood vessels", ONCE),
        ),
    ),
    "diabetes": Condition(
        ("I am thirsty all the time", "I feel tired and go to the bathroom a lot"),
        ("type 2 diabetes", "prediabetes"),
        (
            Medication("metformin", ("500 mg", "850 mg"), "controlling blood sugar", TWICE),
            Medication("glipizide", ("5 mg",), "raising insulin", ONCE),
        ),
    ),
    "asthma": Condition(
        ("I wheeze when I climb the stairs", "I cough at night and my chest feels tight"),
        ("asthma", "exercise-induced asthma"),
        (
            Medication("albuterol", ("90 mcg", "two puffs"), "opening the airways", NEEDED),
            Medication("fluticasone", ("110 mcg", "220 mcg"), "calming the airways", TWICE),
        ),
    ),
    "migraine": Condition(
        ("One side of my head is pounding", "Bright light makes my headache worse"),
        ("migraine", "migraine with aura"),
        (
            Medication("sumatriptan", ("50 mg", "100 mg"), "stopping an attack", NEEDED),
            Medication("propranolol", ("40 mg", "80 mg"), "preventing attacks", TWICE),
        ),
    ),
    "depression": Condition(
        ("I have no energy and no joy in anything", "I cannot sleep and I feel low"),
        ("depression", "mild depression"),
        (
            Medication("sertraline", ("25 mg", "50 mg"), "lifting the mood", ONCE),
            Medication("fluoxetine", ("20 mg",), "easing depression", ONCE),
        ),
    ),
    "back pain": Condition(
        ("My lower back hurts when I bend", "I lifted a box and now my back hurts"),
        ("lumbar strain", "sciatica"),
        (
            Medication("ibuprofen", ("400 mg", "600 mg"), "easing the pain", NEEDED),
            Medication("cyclobenzaprine", ("5 mg", "10 mg"), "relaxing the muscles", ("at bedtime",)),
        ),
    ),
    "allergy": Condition(
        ("My eyes itch and my nose runs", "I sneeze whenever I am outside"),
        ("hay fever", "allergic rhinitis"),
        (
            Medication("cetirizine", ("10 mg",), "easing the sneezing", ONCE),
            Medication("loratadine", ("10 mg",), "calming the allergy", ONCE),
        ),
    ),
    "infection": Condition(
        ("My throat is sore and I have a fever", "It burns when I urinate"),
        ("strep throat", "urinary tract infection"),
        (
            Medication("amoxicillin", ("250 mg", "500 mg"), "treating the infection", TWICE),
            Medication("nitrofurantoin", ("100 mg",), "killing the bacteria", TWICE),
        ),
    ),
    "arthritis": Condition(
        ("My knees are stiff in the morning", "My fingers are swollen and sore"),
        ("osteoarthritis", "rheumatoid arthritis"),
        (
            Medication("naproxen", ("250 mg", "500 mg"), "reducing the swelling", TWICE),
            Medication("celecoxib", ("100 mg", "200 mg"), "easing the joint pain", ONCE),
        ),
    ),
    "reflux": Condition(
        ("I have a burning feeling after meals", "Food comes back up when I lie down"),
        ("acid reflux", "gastritis"),
        (
            Medication("omeprazole", ("20 mg", "40 mg"), "reducing the acid", ONCE),
            Medication("famotidine", ("20 mg",), "protecting the stomach", TWICE),
        ),
    ),
}

HISTORY = (
    "high cholesterol",
    "a heart murmur",
    "kidney stones",
    "gout",
    "anemia",
    "an appendectomy",
    "a knee replacement",
    "pneumonia",
    "a hip fracture",
    "hypothyroidism",
    "psoriasis",
    "sleep apnea",
)
RELATIVES = ("mother", "father", "sister", "brother")
FIRST_NAMES: dict[str, tuple[str, ...]] = {
    "Female": (
        *("Maria", "Anna", "Emily", "Grace", "Laura", "Olivia", "Sofia", "Julia"),
        *("Nina", "Hannah", "Ruth", "Alice", "Clara", "Diane", "Ingrid", "Fatima"),
    ),
    "Male": (
        *("James", "Peter", "David", "Omar", "Lucas", "Henry", "Victor", "Samuel"),
        *("Daniel", "Martin", "Carlos", "Brian", "Edward", "Felix", "George", "Ivan"),
    ),
}
LAST_NAMES = (
    *("Lopez", "Smith", "Chen", "Brown", "Novak", "Garcia", "Miller", "Khan", "Rossi", "Jensen", "Walker", "Patel"),
    *("Kim", "Adams", "Fischer", "Silva", "Turner", "Moore", "Hughes", "Cooper", "Reed", "Bailey", "Ward", "Price"),
)
# What a patient of a mood adds to an answer; "" often, so that moods are no keys to records.
REMARKS: dict[str, tuple[str, ...]] = {
    "calm": ("", "Take your time.", "That is all I noticed."),
    "anxious": ("", "I am really worried about it.", "Is it something serious?"),
    "frustrated": ("", "Nobody has helped me so far.", "I am fed up with it."),
    "cheerful": ("", "But I cannot complain otherwise!", "Apart from that, life is good!"),
    "confused": ("", "I am not sure I understand.", "Sorry, I lost track for a moment."),
}
