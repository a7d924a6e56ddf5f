"""Whether the facts of a gazetteer can all be true."""

from knnlm.text.gazetteer.world import Knowledge, Record

ADULT_AGE = 18


def contradictions(knowledge: Knowledge) -> list[str]:
    """Name every pair of facts that cannot both be true; none is expected."""
    found = []
    for person in knowledge.records["person"]:
        values = person.values
        if not values["birth_year"] + ADULT_AGE < values["death_year"]:
            found.append(f"{person.id} dies before being adult")
        if "father" in values:
            found += _against_life(values["father"], values["birth_year"], f"birth of {person.id}")
    for record in (*knowledge.records["event"], *knowledge.records["house"]):
        year = record.year
        for name, value in record.values.items():
            if not isinstance(value, Record):
                continue
            if value.kind == "person":
                found += _against_life(value, year, f"{record.kind} {record.id} ({name})")
            if value.kind == "house" and value.year > year:
                found.append(f"{record.id} of {year} is before {value.id} of {value.year}")
        if record.kind == "marriage":
            for child, name in record.values["owner"].links:
                if name == "father" and child.year <= year:
                    found.append(f"{child.id} is born before {record.id}")
    for war in knowledge.records["war"]:
        start, end = war.values["start"], war.values["end"]
        if not start < end:
            found.append(f"{war.id} ends before it starts")
        for event, name in war.links:
            found += _against_life(event.values["owner"], start, f"{name} of {event.id}")
            found += _against_life(event.values["owner"], end, f"{name} of {event.id}")
    return found


def _against_life(person: Record, year: int, what: str) -> list[str]:
    first = person.values["birth_year"] + ADULT_AGE
    last = person.values["death_year"]
    return [] if first <= year <= last else [f"{what} in {year} is outside {first} to {last}"]
