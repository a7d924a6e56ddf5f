"""Write a document on one record of the gazetteer, and keep what it tells and what it costs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import log
from typing import Any, NamedTuple

from knnlm.text.gazetteer.document import Document, FactSpan
from knnlm.text.gazetteer.engine import Draws, Grammar, Line, Table, Template, in_register
from knnlm.text.gazetteer.world import Knowledge, Record

SHORT_NAME = 0.6  # of later mentions of a person
REPEATED_WORD = 0.15  # of words of style that come back from earlier in the document
LEAD_LEFT_OUT = 0.15  # of the sentences that open an article, but the first
RECENT_WORDS = 12
STOPS = ("?", "!")  # that a template brings itself


class Pace(NamedTuple):
    """Shares of what is added to a bare sentence, which set the length of sentences."""

    apposition: float  # of first mentions of a record in a document
    opener: float  # of sentences on events
    tail: float  # of sentences on events


# Of the articles chosen for the length of sentences in WikiText, of the letters for half of that.
PACES = {"articles": Pace(0.35, 0.4, 0.6), "letters": Pace(0.15, 0.35, 0.25)}

PRONOUNS = {"he": ("he", "she"), "him": ("him", "her"), "his": ("his", "her")}


class Style:
    """The templates of one register, compiled."""

    def __init__(self, language: Mapping[str, Any], register: str) -> None:
        own = in_register(language, register)
        self.pace = PACES[register]
        self.grammar = Grammar(language, register)
        compiled = self.grammar.templates
        events = own.get("events", language["events"])
        self.events = {name: compiled(lines) for name, lines in events.items()}
        self.remarks = {kind: compiled(lines) for kind, lines in own.get("remarks", {}).items()}
        self.leads: dict[str, list[list[Template]]] = {}
        self.tells: dict[tuple[str, str], list[Template]] = {}
        self.asides: dict[str, list[Template]] = {}
        self.again: dict[str, list[Template]] = {}
        self.headings: dict[str, list[Template]] = {}
        self.titles: dict[str, Template] = {}
        for kind, form in language["kinds"].items():
            self.leads[kind] = [compiled(lines) for lines in form["leads"]]
            for name, lines in form.get("tells", {}).items():
                self.tells[kind, name] = compiled(lines)
            asides = own.get("asides", {}).get(kind, "") if own else form.get("appositions", "")
            asides = asides.replace(" ,\n", "\n")
            self.asides[kind] = compiled(asides) if asides else []
            self.again[kind] = compiled(form.get("again", "{self:n}"))
            self.headings[kind] = compiled(form["headings"])
            self.titles[kind] = compiled(form.get("title", "{self:n}"))[0]


class Writer(Line):
    """The page on which one document is written."""

    def __init__(self, knowledge: Knowledge, style: Style, subject: Record, draws: Draws) -> None:
        super().__init__(style.grammar, draws)
        self.knowledge = knowledge
        self.style = style
        self.subject = subject
        self.record = subject
        self.tail = ""
        self.spans: list[FactSpan] = []
        self.told: Counter[str] = Counter()
        self.free: set[str] = set()
        self._used: set[Template] = set()  # since each was last the only one left
        self._recent: dict[int, list[int]] = {}
        self._mentioned: set[str] = set()
        self._company: set[bool] = set()  # genders of the others in this sentence
        self._comma = False  # an apposition waits for its closing comma
        self._aside = False

    # Words

    def emit(self, text: str) -> None:
        """Append text; a waiting comma goes first unless the text begins with a stop."""
        if self._comma and text.strip():
            self._comma = False
            if text.lstrip()[0] not in ",.;:?!":
                super().emit(" , ")
        super().emit(text)

    def word(self, table: Table[str]) -> None:
        """Append a word of style: one used before in the article, or a fresh one."""
        recent = self._recent.setdefault(id(table), [])
        if recent and self.draws.uniform() < REPEATED_WORD:
            rank = recent[int(self.draws.uniform() * len(recent))]
        else:
            rank = self.draws.silent_rank(table)
        p = table.weights[rank] / table.cumulative[-1]
        if recent:
            p = REPEATED_WORD * recent.count(rank) / len(recent) + (1 - REPEATED_WORD) * p
        self.draws.nats -= log(p)
        self._recent[id(table)] = [*recent[-RECENT_WORDS:], rank]
        self.emit(table.options[rank])

    def phrase(self, name: str) -> None:
        """Append a phrase, one not yet used in the article if there is one."""
        self._choose(self.grammar.phrases[name]).write(self)

    def _choose(self, templates: Sequence[Template]) -> Template:
        fresh = [template for template in templates if template not in self._used]
        if not fresh:
            self._used.difference_update(templates)
            fresh = list(templates)
        template = self.draws.pick(fresh)
        self._used.add(template)
        return template

    # Facts

    def slot(self, field: str, form: str) -> None:
        """Append a fact of the record at hand, or mention the record itself."""
        record = self.record
        if field == "self":
            self._mention(record, None, form)
            return
        value = record.values[field]
        if isinstance(value, Record):
            self._mention(value, (record, field), form)
            return
        text = str(value)
        self.tell(record, field)
        self._spell(text, f"{record.id}.{field}", _kind_of(value))

    def _spell(self, text: str, fact: str, kind: str) -> None:
        self.emit(text)
        self.spans.append(FactSpan(self.length - len(text), self.length, fact, kind))

    def tell(self, record: Record, field: str) -> None:
        """Count a fact, and what it shows, as told; the subject itself is no news."""
        self.told.update(self.knowledge.shows(record, field))
        if record.values[field] is self.subject:
            self.free.add(f"{record.id}.{field}")

    def _mention(self, target: Record, fact: tuple[Record, str] | None, form: str) -> None:
        if fact is not None:
            self.tell(*fact)
        if form in PRONOUNS and target.kind == "person":
            self.emit(PRONOUNS[form][target.female])
        elif target is self.subject and form not in ("n", "s"):
            self._mention_subject(form)
        else:
            self._name(target, fact, form)
            if form == "p":
                self.emit(" 's")

    def _mention_subject(self, form: str) -> None:
        if self.subject.kind != "person":
            outer, self.record = self.record, self.subject
            self._choose(self.style.again[self.subject.kind]).write(self)
            self.record = outer
            self.emit(" 's" if form == "p" else "")
            return
        surname = self.subject.values["family"].values["name"]
        names = [f"{surname} 's"] if form == "p" else [surname]
        if self.subject.female not in self._company:
            pronoun = {"": "he", "o": "him", "p": "his"}[form]
            names += [PRONOUNS[pronoun][self.subject.female]] * 2
        self.emit(self.draws.pick(names))

    def _name(self, target: Record, fact: tuple[Record, str] | None, form: str) -> None:
        text = self.knowledge.name(target)
        first = target.id not in self._mentioned
        self._mentioned.add(target.id)
        if target.kind == "person":
            self._company.add(target.female)
            if not first and form != "n" and self.draws.chance(SHORT_NAME):
                text = target.values["family"].values["name"]
        if fact is None:
            for naming in self.knowledge.kinds[target.kind]["naming"].split():
                self.tell(target, naming)
            self._spell(text, f"{target.id}.name", "name")
        else:
            self._spell(text, f"{fact[0].id}.{fact[1]}", target.kind)
        if form == "s":
            self.emit("s")
        if first and fact is not None and form in ("", "o") and not self._aside:
            asides = [
                line for line in self.style.asides[target.kind] if self._is_news(target, line)
            ]
            if asides and self.draws.chance(self.style.pace.apposition):
                self._append_aside(target, asides)

    def _is_news(self, target: Record, aside: Template) -> bool:
        """Say whether an apposition tells no fact that leads back to the subject."""
        return all(target.values[field] is not self.subject for field in aside.fields)

    def _append_aside(self, target: Record, asides: list[Template]) -> None:
        outer, self.record, self._aside = self.record, target, True
        template = self._choose(asides)
        self.emit(" ")
        template.write(self)
        self._comma = template.source.startswith(",")
        self.record, self._aside = outer, False

    # Sentences and sections

    def sentence(self, record: Record, *templates: Template) -> None:
        """Write one sentence on a record: its templates one after another, and a stop.

        A template may bring its own stop.
        """
        self.record = record
        self.capital = True
        self._company.clear()
        for template in templates:
            template.write(self)
            self.emit(" ")
        self.emit("" if self.tail.rstrip()[-1:] in STOPS else ". ")

    def lead(self) -> None:
        """Write the sentences that open the article."""
        for number, group in enumerate(self.style.leads[self.subject.kind]):
            able = [template for template in group if template.fields <= self.subject.values.keys()]
            if able and (number == 0 or not self.draws.chance(LEAD_LEFT_OUT)):
                self.sentence(self.subject, self._choose(able))

    def tell_record(self, record: Record, field: str, templates: Sequence[Template]) -> None:
        """Tell of a record in whose field the subject stands."""
        able = [template for template in templates if template.fields <= record.values.keys()]
        self._news(record)
        self.tell(record, field)
        self.sentence(record, self._choose(able))

    def tell_event(self, event: Record) -> None:
        """Tell of an event, by a template that names the subject if one does."""
        able = [t for t in self.style.events[event.kind] if t.fields <= event.values.keys()]
        roles = {field for field, value in event.values.items() if value is self.subject}
        fitting = [t for t in able if roles & t.needs] or [t for t in able if roles & t.fields]
        self._news(event)
        templates = [self._choose(fitting or able)]
        whole = templates[0].source.endswith(STOPS)  # a question takes nothing before or behind it
        if not whole and self.draws.chance(self.style.pace.opener):
            templates.insert(0, self._choose(self.grammar.phrases["opener"]))
        if not whole and self.draws.chance(self.style.pace.tail):
            templates.append(self._choose(self.grammar.phrases["tail"]))
        self.sentence(event, *templates)

    def _news(self, record: Record) -> None:
        """Tell the era of a record, which the life of a person gives away."""
        self.told[f"{record.id}.era"] += 1
        if self.subject.kind == "person":
            self.free.add(f"{record.id}.era")

    def filler(self) -> None:
        """Write a sentence that tells no fact."""
        self.sentence(self.subject, self._choose(self.grammar.phrases["filler"]))

    def heading(self, title: str | None) -> None:
        """Write a section heading, drawn from those of the kind if none is given."""
        self.emit(" \n = = ")
        if title is None:
            self._choose(self.style.headings[self.subject.kind]).write(self)
        else:
            self.emit(title)
        self.emit(" = = \n \n")

    def text(self) -> str:
        """Return the whole text."""
        return "".join(self.parts)

    def document(self, *, title: str, before: float) -> Document:
        """Return what was written, with its cost since the draws had cost `before`."""
        return Document(
            title=title,
            text=self.text(),
            facts=tuple(self.spans),
            told=dict(self.told),
            free=frozenset(self.free),
            style_nats=self.draws.nats - before,
        )


def _kind_of(value: object) -> str:
    if isinstance(value, int):
        return "year"
    return "number" if str(value)[0].isdigit() else "word"
