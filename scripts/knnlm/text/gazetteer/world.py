"""Draw what the gazetteer knows: people, places, guilds, wars and events, fact by fact.

Each record belongs to a generation, an era of 12 years, or to none. Every year is drawn from a
window that its era allows, so dates agree without any being drawn from another: people are born
in the years 0 to 11 of their era, adult from 30 on, act in 30 to 48, and die in 49 to 89; their
children belong to the third era after theirs. Facts are independent given the links between
records; the cost of each is the exact negative log-probability of its draw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any

from knnlm.text.gazetteer.engine import Draws, Grammar, Line, Table

FIRST_YEAR = 1640  # year 0 of era 0; the last people die in 1982 at the latest
ERA_YEARS = 12
MAX_ERAS = 22
GENERATION = 3  # eras between parent and child: 36 years
EVENTS_PER_PERSON = 4
MARRIED = 0.6  # share of men who marry

Value = Any  # a Record, an int or a str


@dataclass(slots=True, eq=False, repr=False)
class Record:
    """One thing that the gazetteer knows of.

    values holds the facts by field, links the records (and their field) that name this one.
    """

    id: str
    kind: str
    era: int
    female: bool = False
    values: dict[str, Value] = field(default_factory=dict)
    links: list[tuple["Record", str]] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Record({self.id})"  # records link to each other

    @property
    def year(self) -> int:
        """The year by which records are put in order."""
        for name in ("year", "birth_year", "built", "start", "recorded", "laid", "founded"):
            if name in self.values:
                return self.values[name]
        return self.values["war"].values["start"] if "war" in self.values else FIRST_YEAR


class Knowledge:
    """All records of a gazetteer, with the cost of each fact in nats by its id."""

    def __init__(self, language: Mapping[str, Any], *, seed: int, people: int) -> None:
        self.kinds: Mapping[str, Any] = language["kinds"]
        self.num_eras = max(GENERATION + 1, min(MAX_ERAS, people // ERA_YEARS))
        self.records: dict[str, list[Record]] = {}
        self.nats: dict[str, float] = {}
        self._draws = Draws(seed)
        self._grammar = Grammar(language, "articles")
        self._tables: dict[tuple, Table[Record]] = {}
        self._shown: dict[str, tuple[str, ...]] = {}
        self._eras: dict[tuple[str, int], list[Record]] = {}
        for kind, form in self.kinds.items():
            size = form["plus"] + (people // form["per"] if form["per"] else 0)
            size = max(size, self.num_eras) if form.get("eras") else size
            self.records[kind] = [self._blank(kind, index) for index in range(size)]
        for kind, form in self.kinds.items():
            for name, rule in form["fields"].items():
                for record in self.records[kind]:
                    self._draw(record, name, rule)
        self.records["event"] = []
        self._hold_marriages(language)
        self._hold_events(language, EVENTS_PER_PERSON * people)
        self._price_kinds(language)

    def _blank(self, kind: str, index: int) -> Record:
        eras = self.num_eras if self.kinds[kind].get("eras") else 1
        female = kind == "person" and index // eras % 2 == 1
        return self._born(Record(f"{kind}-{index}", kind, index % eras, female))

    def _born(self, record: Record) -> Record:
        self.nats[f"{record.id}.era"] = log(self.num_eras)
        return record

    # Drawing one fact

    def _draw(self, record: Record, name: str, rule: str) -> None:
        """Draw a fact by its rule, or leave it out where nothing can stand in it."""
        before = self._draws.nats
        kind, *options = rule.split()
        value = self._value(record, kind, options)
        if value is None:
            return
        self._store(record, name, value, self._draws.nats - before)

    def _store(self, record: Record, name: str, value: Value, nats: float) -> None:
        record.values[name] = value
        self.nats[f"{record.id}.{name}"] = nats
        if isinstance(value, Record):
            value.links.append((record, name))

    def _value(self, record: Record, kind: str, options: list[str]) -> Value:
        draws = self._draws
        match kind:
            case "year":
                first, last = (int(option) for option in options)
                return self.base_year(record) + first + draws.below(last - first)
            case "number":
                first, last = (int(option) for option in options)
                return f"{first + draws.below(last - first):,}".replace(",", " @,@ ")
            case "words":
                words = self._grammar.words[options[0]]
                return words.options[draws.rank(words)]
            case "list":
                return self._grammar.words[options[0]].options[int(record.id.split("-")[-1])]
            case "phrase":
                return self._text(options[0])
            case "given":
                return self._text("female_name" if record.female else "male_name")
            case "father":
                return self._father(record)
            case _:
                return self._link(record, kind, options[0])

    def _text(self, phrase: str) -> str:
        line = Line(self._grammar, self._draws)
        self._grammar.symbol(phrase)(line)
        return line.text()

    def base_year(self, record: Record) -> int:
        """Return year 0 of the record's era; what has no era counts from FIRST_YEAR."""
        return FIRST_YEAR + ERA_YEARS * record.era

    def _father(self, record: Record) -> Record | None:
        men = [
            man
            for man in self.of_era("person", record.era - GENERATION)
            if not man.female and man.values["family"] is record.values["family"]
        ]
        return self._draws.pick(men) if men else None

    def _link(self, record: Record, kind: str, rule: str) -> Record | None:
        table = self._table(kind, rule, record.era)
        taken = [value for value in record.values.values() if isinstance(value, Record)]
        taken = [other for other in (record, *taken) if other.kind == kind]
        return self._draw_free(table, taken)

    def _draw_free(self, table: Table[Record], taken: Sequence[Record]) -> Record | None:
        """Draw a record that is not taken; its cost is that of a draw among the free ones."""
        ranks = [rank for rank, option in enumerate(table.options) if option in taken]
        if len(ranks) == len(table.options):
            return None
        while (rank := self._draws.silent_rank(table)) in ranks:
            pass
        free = table.cumulative[-1] - sum(table.weights[rank] for rank in ranks)
        self._draws.nats += log(free / table.weights[rank])
        return table.options[rank]

    def _table(self, kind: str, rule: str, era: int) -> Table[Record]:
        key = (kind, rule, era if rule != "any" else None)
        if key not in self._tables:
            match rule:
                case "any":
                    options = self.records[kind]
                case "same":
                    options = self.of_era(kind, era)
                case "standing":  # built in the years 0 to 11 of its era, so before year 30 of ours
                    options = [record for record in self.records[kind] if record.era <= era + 1]
                case _:
                    options = self.of_era(kind, era + int(rule))
            # A third of the list: the first are named some four times as often as the last.
            self._tables[key] = Table(options, offset=1 + len(options) / 3)
        return self._tables[key]

    def of_era(self, kind: str, era: int) -> list[Record]:
        """Return the records of a kind that belong to an era."""
        if (kind, era) not in self._eras:
            self._eras[kind, era] = [one for one in self.records[kind] if one.era == era]
        return self._eras[kind, era]

    # Drawing events

    def _hold_marriages(self, language: Mapping[str, Any]) -> None:
        for era in range(self.num_eras):
            single = {
                female: [person for person in self.of_era("person", era) if person.female == female]
                for female in (False, True)
            }
            for _ in range(int(MARRIED * min(map(len, single.values())))):
                event = self._event("marriage", era)
                for name, female in (("owner", False), ("other", True)):
                    before = self._draws.nats
                    person = self._draws.pick(single[female])
                    single[female].remove(person)
                    self._store(event, name, person, self._draws.nats - before)
                self._fill(event, language, "marriage")

    def _hold_events(self, language: Mapping[str, Any], size: int) -> None:
        names = [name for name in language["events"] if name != "marriage"]
        for _ in range(size):
            name = self._draws.pick(names)
            event = self._event(name, self._draws.below(self.num_eras))
            self._fill(event, language, name)

    def _price_kinds(self, language: Mapping[str, Any]) -> None:
        """Store the cost of each event's kind, given how many of all events are marriages."""
        events = self.records["event"]
        marriages = sum(event.kind == "marriage" for event in events)
        others = len(events) - marriages
        kinds = len(language["events"]) - 1
        for event in events:
            p = marriages if event.kind == "marriage" else others / kinds
            self.nats[f"{event.id}.kind"] = log(len(events) / p)

    def _event(self, name: str, era: int) -> Record:
        event = self._born(Record(f"event-{len(self.records['event'])}", name, era))
        self.records["event"].append(event)
        return event

    def _fill(self, event: Record, language: Mapping[str, Any], name: str) -> None:
        templates = self._grammar.templates(language["events"][name])
        used = frozenset().union(*(template.fields for template in templates))
        for fact, rule in language["event_fields"].items():
            if fact == "year":
                rule = language["event_windows"].get(name, rule)
            if fact in used and fact not in event.values:
                self._draw(event, fact, rule)

    # Reading facts

    def events_of(self, record: Record) -> list[Record]:
        """Return the events that name a record."""
        links = (other for other, _ in record.links if other.kind not in self.kinds)
        return list(dict.fromkeys(links))

    def name(self, record: Record) -> str:
        """Return the full name of a record."""
        values = record.values
        if record.kind == "person":
            return f"{values['name']} {values['family'].values['name']}"
        return values["name"]

    def shows(self, record: Record, name: str) -> tuple[str, ...]:
        """Return the ids of all facts that a reader of this fact is shown.

        A link shows the name of the record that it leads to, and a fact of an event the kind
        of the event.
        """
        key = f"{record.id}.{name}"
        if key not in self._shown:
            facts = [key]
            if record.kind not in self.kinds:
                facts.append(f"{record.id}.kind")
            value = record.values[name]
            if isinstance(value, Record):
                for naming in self.kinds[value.kind]["naming"].split():
                    facts.extend(self.shows(value, naming))
            self._shown[key] = tuple(facts)
        return self._shown[key]
