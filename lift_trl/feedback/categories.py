"""Word lists from which prompts are drawn, by the categories of the paper; the lists are this project's own.

Source of the categories: arXiv 2412.04814, section 3.2 and table 6.
"""

import re
from enum import StrEnum


class Category(StrEnum):
    """What a word stands for in a prompt."""

    HUMAN = "human"
    LAND_ANIMAL = "land animal"
    OTHER_ANIMAL = "other animal"
    PLACE = "place"
    IMAGINED_PLACE = "imagined place"
    EASY_ACTION = "easy action"
    DIFFICULT_ACTION = "difficult action"


_WORDS = {
    Category.HUMAN: """
        waiter, teacher, farmer, doctor, nurse, chef, painter, carpenter, dancer, firefighter, fisherman, gardener, pilot,
        musician, photographer, student, tailor, scientist, baker, barber, mechanic, police officer, construction worker,
        mail carrier, librarian, athlete, astronaut, violinist, potter, blacksmith, street vendor, young woman, young man,
        old woman, old man, little girl, little boy, mother, father, grandmother, grandfather, teenager, tourist, cyclist
    """,
    Category.LAND_ANIMAL: """
        dog, cat, horse, elephant, lion, tiger, panda, brown bear, polar bear, fox, wolf, rabbit, squirrel, deer, giraffe,
        zebra, kangaroo, koala, monkey, gorilla, camel, cow, sheep, goat, pig, hedgehog, raccoon, leopard, cheetah, hippo,
        rhino, llama, otter, badger, mouse, hamster
    """,
    Category.OTHER_ANIMAL: """
        eagle, owl, parrot, penguin, swan, duck, flamingo, peacock, crane, seagull, hummingbird, rooster, dolphin, whale,
        shark, goldfish, seahorse, octopus, jellyfish, sea turtle, crab, lobster, frog, crocodile, lizard, chameleon,
        snake, butterfly, bee, dragonfly, ladybug, spider, snail, ant
    """,
    Category.PLACE: """
        kitchen, classroom, library, park, beach, forest, desert, mountain trail, snowy field, city street, train station,
        airport hall, supermarket, hospital corridor, office, living room, bedroom, garage, workshop, farm, garden,
        harbour, riverbank, lake shore, bridge, rooftop, playground, football field, swimming pool, gym, museum, theatre
        stage, cafe, restaurant, bakery, market square, subway car, wheat field, vineyard, orchard, greenhouse, waterfall
    """,
    Category.IMAGINED_PLACE: """
        giant spoon, floating island, cloud, crescent moon, ring of Saturn, giant mushroom, piano key, chocolate river,
        city under the sea, castle of glass, planet of crystals, page of a book, teacup, bubble, rainbow, soup bowl,
        chessboard, paper boat, candle flame, clock face, city of candy, spaceship cockpit, forest of umbrellas, desert of
        mirrors, giant leaf, violin, light bulb, snow globe, hot air balloon made of flowers, staircase into the sky
    """,
    Category.EASY_ACTION: """
        running, walking, jumping, smiling, waving, nodding, sleeping, eating an apple, drinking water, sitting down,
        standing up, clapping, stretching, yawning, looking around, turning around, dancing, swimming, typing, reading,
        singing, laughing, crawling, spinning slowly, shaking its head, blinking, scratching its ear, chewing, breathing
        deeply, bowing
    """,
    Category.DIFFICULT_ACTION: """
        washing dishes, fixing a leaky faucet, tying shoelaces, peeling an orange, playing the violin, knitting a scarf,
        juggling three balls, building a house of cards, painting a portrait, threading a needle, cracking an egg into a
        pan, folding a paper crane, changing a light bulb, riding a unicycle, pouring tea from a pot, shuffling cards,
        opening an umbrella in the wind, cutting vegetables, ironing a shirt, assembling a chair, writing a letter,
        blowing out candles, catching a frisbee, climbing a ladder with a bucket, buttoning a coat, wiping a window,
        hammering a nail, kneading dough, braiding hair, sawing a plank
    """,
}

#: The words of each category, in a fixed order.
WORDS: dict[Category, tuple[str, ...]] = {
    category: tuple(" ".join(word.split()) for word in text.split(",")) for category, text in _WORDS.items()
}

#: The categories of subjects.
SUBJECTS = (Category.HUMAN, Category.LAND_ANIMAL, Category.OTHER_ANIMAL)

_SUBJECT_OF = {word: category for category in SUBJECTS for word in WORDS[category]}
# Longer words first: "young woman" before "woman". Plurals in "s" or "es" count.
_SUBJECT = re.compile(
    rf"\b({'|'.join(sorted(_SUBJECT_OF, key=len, reverse=True))})(?:s|es)?\b"
    r"|\b(man|men|woman|women|person|people|boy|girl|child|children|animal|bird|fish)\b",
    re.IGNORECASE,
)
_GENERAL = {"animal": Category.LAND_ANIMAL, "bird": Category.OTHER_ANIMAL, "fish": Category.OTHER_ANIMAL}


def subject_category(caption: str) -> Category | None:
    """
    The category of the first subject that a caption names, `None` where it names none that is known here.

    >>> subject_category("A fluffy panda waves at two waiters.")
    <Category.LAND_ANIMAL: 'land animal'>
    """
    found = _SUBJECT.search(caption)
    if found is None:
        return None
    if found[1]:
        return _SUBJECT_OF[found[1].lower()]
    return _GENERAL.get(found[2].lower(), Category.HUMAN)
