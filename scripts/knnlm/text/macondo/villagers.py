"""Villagers: their names, their children, and six details that have nothing to do with these.

Chiang et al. (2023), Appendix B.1, name the attributes birth year, friend and marriage year with
their clauses; the other three are not in the text that is public. Trade, house and keepsake, with
all their values, are ours, in the same spirit.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from knnlm.runtime.seeds import numpy_generator
from knnlm.text.macondo.names import NamePool

FIRST_BIRTH_YEAR, LAST_BIRTH_YEAR = 1800, 2005
LAST_MARRIAGE_YEAR = 2023
AGE_AT_MARRIAGE = 18  # years, at least
# What a sentence says of each attribute. Values other than friends are lower case or figures, so
# that none of them reads like a name.
CLAUSES = {
    "birth_year": "was born in {}",
    "friend": "was a friend of {}",
    "marriage_year": "married in {}",
    "trade": "worked as {}",
    "house": "lived in {}",
    "keepsake": "kept {}",
}
TRADES = """
    actor, baker, barber, basket weaver, bell ringer, blacksmith, boat builder, bookbinder,
    botanist, brewer, butcher, candle maker, carpenter, cartographer, chemist, clockmaker, cobbler,
    cooper, dentist, diver, engraver, falconer, farmer, ferry pilot, fisher, florist, gardener,
    glassblower, goldsmith, grocer, hatter, innkeeper, interpreter, jeweler, judge, librarian,
    locksmith, mechanic, midwife, miller, miner, notary, nurse, optician, organist, painter,
    pharmacist, photographer, plumber, potter, printer, roofer, sailor, sculptor, shepherd,
    stonecutter, surveyor, tailor, tanner, teacher, telegraphist, tinker, watchman, woodcarver
"""
HOUSE_LOOKS = """
    adobe, brick, crooked, gray, green, limestone, narrow, pink, stone, timber, white, yellow
"""
HOUSE_PLACES = """
    above the harbor, behind the theater, below the dam, beside the mill, by the river,
    near the orchard, near the quarry, opposite the school, outside the gate, over the bakery,
    past the graveyard, under the chestnut tree
"""
KEEPSAKE_LOOKS = """
    amber, broken, bronze, carved, copper, enameled, engraved, gilded, ivory, lacquered, painted,
    pewter, polished, rusty, silver, tarnished, tiny, varnished, wooden, worn
"""
KEEPSAKES = """
    anchor, barometer, bell, bracelet, brooch, chess set, comb, compass, fiddle, flute, hourglass,
    lantern, locket, mask, mirror, music box, pocket watch, sextant, snuff box, telescope
"""
# Draws of a full name before giving up, for each villager: a sign of a tiny pool.
DRAWS_PER_VILLAGER = 1000


def draw_villagers(
    *, seed: int, family_sizes: Sequence[int], names: NamePool, child_names: Sequence[str]
) -> pd.DataFrame:
    """Return one villager for each family size, in this order.

    Columns: villager_id, villager (the full name, unique), given_name, surname, n_children,
    children (a list) and the attributes of `CLAUSES`. Same seed and names, same villagers.

    Args:
        seed: of all draws.
        family_sizes: 1 to 5 children for each villager.
        names: of the villagers.
        child_names: candidates for the children.

    Raises:
        ValueError: if there are too few villagers or names, or a family has too many children.
    """
    sizes = sorted(set(family_sizes))
    if len(family_sizes) < 2 or sizes[0] < 1 or sizes[-1] >= len(CLAUSES):
        raise ValueError(
            "expected at least 2 villagers (each has a friend) with 1 to "
            f"{len(CLAUSES) - 1} children each (one attribute is held out), got "
            f"{len(family_sizes)} villagers with {sizes} children"
        )
    children = _draw_children(seed, sum(family_sizes), names, child_names)
    parts = _draw_name_parts(seed, len(family_sizes), names, taken=set(children))
    full_names = [f"{given_name} {surname}" for given_name, surname in parts]
    rng = numpy_generator(seed, "macondo", "attributes")
    ends = np.cumsum(family_sizes).tolist()
    rows = [
        {
            "villager_id": number,
            "villager": full_names[number],
            "given_name": given_name,
            "surname": surname,
            "n_children": family_sizes[number],
            "children": children[ends[number] - family_sizes[number] : ends[number]],
            **_draw_attributes(rng, villager=number, full_names=full_names),
        }
        for number, (given_name, surname) in enumerate(parts)
    ]
    return pd.DataFrame(rows)


def _draw_children(
    seed: int, n_children: int, names: NamePool, child_names: Sequence[str]
) -> list[str]:
    candidates = sorted(set(child_names))
    if len(candidates) < n_children:
        raise ValueError(
            f"{n_children} children need as many distinct names, got {len(candidates)}; "
            "give more child names or take fewer villagers"
        )
    shuffled = numpy_generator(seed, "macondo", "children").permutation(candidates).tolist()
    # Children's names are taken from the villagers: spare the surnames, of which there are few.
    surnames = set(names.surnames)
    return sorted(shuffled, key=lambda name: name in surnames)[:n_children]


def _draw_name_parts(
    seed: int, n_villagers: int, names: NamePool, *, taken: set[str]
) -> list[tuple[str, str]]:
    """Return distinct pairs of a given name and a surname, neither of them taken by a child."""
    rng = numpy_generator(seed, "macondo", "names")
    given = [name for name in names.given if name not in taken]
    pairs = zip(names.surnames, names.surname_weights, strict=True)
    weights = {name: weight for name, weight in pairs if name not in taken}
    surnames = list(weights)
    shares = np.array(list(weights.values())) / sum(weights.values())
    drawn: dict[tuple[str, str], None] = {}
    for _ in range(DRAWS_PER_VILLAGER * n_villagers if given and surnames else 0):
        name = given[rng.integers(len(given))]
        surname = surnames[rng.choice(len(surnames), p=shares)]
        if name != surname:
            drawn[name, surname] = None
        if len(drawn) == n_villagers:
            return list(drawn)
    raise ValueError(
        f"{n_villagers} villagers need as many distinct full names, found {len(drawn)} among "
        f"{len(given)} given names and {len(surnames)} surnames that no child has; take a larger "
        "source of names or fewer villagers"
    )


def _draw_attributes(
    rng: np.random.Generator, *, villager: int, full_names: list[str]
) -> dict[str, int | str]:
    """Return a value for each attribute, in the order of `CLAUSES`.

    Years are drawn evenly: birth from 1800 to 2005, marriage from the 18th year after birth to
    2023; so is the friend, from all other villagers.

    Args:
        rng: advanced by the draws.
        villager: the villager's position in `full_names`.
        full_names: of all villagers, at least two.
    """
    other = int(rng.integers(len(full_names) - 1))
    birth_year = int(rng.integers(FIRST_BIRTH_YEAR, LAST_BIRTH_YEAR + 1))
    earliest_marriage = birth_year + AGE_AT_MARRIAGE
    return {
        "birth_year": birth_year,
        "friend": full_names[other + (other >= villager)],
        "marriage_year": int(rng.integers(earliest_marriage, LAST_MARRIAGE_YEAR + 1)),
        "trade": _with_article(_pick(rng, TRADES)),
        "house": f"the {_pick(rng, HOUSE_LOOKS)} house {_pick(rng, HOUSE_PLACES)}",
        "keepsake": _with_article(f"{_pick(rng, KEEPSAKE_LOOKS)} {_pick(rng, KEEPSAKES)}"),
    }


def _pick(rng: np.random.Generator, choices: str) -> str:
    values = choices.split(",")
    return " ".join(values[rng.integers(len(values))].split())


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
