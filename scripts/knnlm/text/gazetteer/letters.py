"""Write the letters of one person of the gazetteer: dated, addressed, in the first person.

They tell the same knowledge as the articles: the writer's own events, a few to a letter, news of
those who took part in them, and what the letter remarks on people and places that it names.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from knnlm.text.gazetteer.document import Document
from knnlm.text.gazetteer.engine import Draws, Template
from knnlm.text.gazetteer.world import Knowledge, Record
from knnlm.text.gazetteer.writer import Style, Writer

# The length of a letter and its paragraphs.
OWN_EVENTS = 4  # of the writer's own in a letter, at most
NEWS = 3  # events of people near, at most
RECENT = 3  # years that news may be old
REMARK = 0.4  # after an event, on somebody or something that it names
FILLER = 0.6  # sentences without fact after an event
PARAGRAPH = 3  # events of a paragraph
SECOND_CLOSING = 0.5  # of letters

FIRST_PERSON = {"": "I", "he": "I", "o": "me", "him": "me", "p": "my", "his": "my", "own": "mine"}


class LetterWriter(Writer):
    """The page on which one letter is written: its subject is who writes it."""

    def __init__(self, knowledge: Knowledge, style: Style, subject: Record, draws: Draws) -> None:
        super().__init__(knowledge, style, subject, draws)
        self.named: list[Record] = []  # in the sentence at hand, asides left out

    def _mention(self, target: Record, fact: tuple[Record, str] | None, form: str) -> None:
        if target is self.subject and form in FIRST_PERSON:
            if fact is not None:
                self.tell(*fact)
            self.emit(FIRST_PERSON[form])
            return
        if fact is not None and not self._aside:
            self.named.append(target)
        super()._mention(target, fact, "p" if form == "own" else form)

    def sentence(self, record: Record, *templates: Template) -> None:
        """Write one sentence on a record, and keep whom and what it names."""
        self.named = []
        super().sentence(record, *templates)

    def line(self, phrase: str, record: Record) -> None:
        """Append a phrase on a record, one whose facts the record has."""
        self.record = record
        able = [t for t in self.grammar.phrases[phrase] if t.fields <= record.values.keys()]
        self._choose(able).write(self)

    def plain(self, phrase: str) -> None:
        """Append a sentence that tells no fact."""
        self.sentence(self.subject, self._choose(self.grammar.phrases[phrase]))

    def remark(self) -> None:
        """Append a sentence on somebody or something that the last one named, if it can be."""
        able = {
            named: [
                template
                for template in self.style.remarks[named.kind]
                if template.fields <= named.values.keys() and self._is_news(named, template)
            ]
            for named in self.named
            if named.kind in self.style.remarks
        }
        able = {named: templates for named, templates in able.items() if templates}
        if able and self.draws.chance(REMARK):
            record = self.draws.pick([*able])
            self.sentence(record, self._choose(able[record]))


def writers(knowledge: Knowledge) -> dict[str, list[Record]]:
    """Return who writes letters: everyone who has something to tell."""
    people = knowledge.records["person"]
    return {"person": [person for person in people if knowledge.events_of(person)]}


def write_letters(
    knowledge: Knowledge, style: Style, subject: Record, draws: Draws
) -> list[Document]:
    """Write all letters of a person, each on the next few events of the person's life."""
    events = sorted(knowledge.events_of(subject), key=lambda event: event.year)
    count = math.ceil(len(events) / OWN_EVENTS)
    cuts = [len(events) * number // count for number in range(count + 1)]
    return [
        _write_letter(knowledge, style, subject, events[first:last], draws)
        for first, last in pairwise(cuts)
    ]


def _write_letter(
    knowledge: Knowledge, style: Style, subject: Record, own: Sequence[Record], draws: Draws
) -> Document:
    before = draws.nats
    writer = LetterWriter(knowledge, style, subject, draws)
    news = _news(knowledge, subject, own, draws)
    writer.emit(" \n ")
    writer.capital = True
    writer.line("from", subject)
    writer.emit(" , ")
    writer.line("date", own[-1])
    heading = writer.text().strip()
    writer.emit(" \n \n ")
    addressee = _addressee(knowledge, subject, [*own, *news], draws)
    writer.capital = True
    writer.line("to_her" if addressee.female else "to_him", addressee)
    writer.emit(" , \n ")
    _write_body(writer, [*own, *news])
    writer.emit("\n ")
    writer.capital = True
    writer.phrase("farewell")
    writer.emit(" , \n ")
    writer.record = subject
    writer.slot("self", "n")
    writer.emit(" \n")
    return writer.document(title=heading, before=before)


def _write_body(writer: LetterWriter, events: Sequence[Record]) -> None:
    writer.plain("opening")
    for number, event in enumerate(events):
        if number and number % PARAGRAPH == 0:
            writer.emit("\n ")
        writer.tell_event(event)
        writer.remark()
        if writer.draws.chance(FILLER):
            writer.filler()
    writer.emit("\n ")
    writer.plain("closing")
    if writer.draws.chance(SECOND_CLOSING):
        writer.plain("closing")


def _news(
    knowledge: Knowledge, subject: Record, own: Sequence[Record], draws: Draws
) -> list[Record]:
    """Draw events of those who took part in the writer's own: recent ones, without the writer."""
    today = own[-1].year
    near = (value for event in own for value in event.values.values())
    near = dict.fromkeys(p for p in near if isinstance(p, Record) and p.kind == "person")
    mine = knowledge.events_of(subject)
    found = dict.fromkeys(event for person in near for event in knowledge.events_of(person))
    recent = [e for e in found if e not in mine and today - RECENT <= e.year <= today]
    news = draws.subset(recent, min(len(recent), draws.below(NEWS + 1)))
    return sorted(news, key=lambda event: event.year)


def _addressee(
    knowledge: Knowledge, subject: Record, events: Sequence[Record], draws: Draws
) -> Record:
    """Draw to whom the letter goes: of the writer's time, and in none of its events if possible."""
    of_the_time = knowledge.of_era("person", subject.era)
    others = [person for person in of_the_time if person is not subject]
    told = [value for event in events for value in event.values.values()]
    return draws.pick([person for person in others if person not in told] or others)
