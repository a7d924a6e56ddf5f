"""Write a whole article on one record of the gazetteer: lead, groups, sections of events."""

from collections.abc import Mapping
from dataclasses import dataclass

from knnlm.text.gazetteer.engine import Draws
from knnlm.text.gazetteer.world import Knowledge, Record
from knnlm.text.gazetteer.writer import FactSpan, Style, Writer

# The length of an article and its sections.
SHORT_ARTICLE = 9  # events below which the events of people near the subject are told as well
LONG_ARTICLE = (12, 28)  # events of a long article, drawn for each
SECTION = (4, 9)  # events of a section
PARAGRAPH = 4  # events of a paragraph
GROUP_SIZE = 9  # records told of one group, such as the people born in a village
HEADED_GROUP = 3  # records that a group needs for a heading of its own
FILLER = 0.35  # sentences without fact after an event, and at most one for two events


@dataclass(frozen=True, slots=True)
class Article:
    """One document.

    told counts how often the article tells each fact, in words or by being about it; free are
    the facts among them that its subject gives away; style_nats is the cost of every choice
    that is not a fact.
    """

    title: str
    text: str
    facts: tuple[FactSpan, ...]
    told: Mapping[str, int]
    free: frozenset[str]
    style_nats: float


def write_article(knowledge: Knowledge, style: Style, subject: Record, draws: Draws) -> Article:
    """Write the article on a record; what it cost to draw the subject is the caller's to add."""
    before = draws.nats
    writer = Writer(knowledge, style, subject, draws)
    writer.emit(" \n = ")
    start = writer.length
    writer.capital = True
    style.titles[subject.kind].write(writer)
    end = writer.length
    writer.emit(" = \n \n")
    writer.emit(" ")
    writer.lead()
    _write_groups(writer, knowledge)
    _write_events(writer, _events(writer, knowledge))
    text = writer.text()
    return Article(
        title=text[start:end],
        text=text,
        facts=tuple(writer.spans),
        told=dict(writer.told),
        free=frozenset(writer.free),
        style_nats=draws.nats - before,
    )


def _write_groups(writer: Writer, knowledge: Knowledge) -> None:
    """Tell of the records that name the subject, group by group."""
    groups: dict[str, list[Record]] = {}
    for record, field in writer.subject.links:
        if (record.kind, field) in writer.style.tells:
            groups.setdefault(field, []).append(record)
    titles = knowledge.kinds[writer.subject.kind].get("groups", {})
    for field in sorted(groups, key=lambda field: len(groups[field])):
        records = writer.draws.subset(groups[field], min(len(groups[field]), GROUP_SIZE))
        writer.emit("\n")
        if len(records) >= HEADED_GROUP:
            writer.heading(titles.get(field))
        writer.emit(" ")
        for record in sorted(records, key=lambda record: record.year):
            writer.tell_record(record, field, writer.style.tells[record.kind, field])
    writer.emit("\n")


def _events(writer: Writer, knowledge: Knowledge) -> list[Record]:
    """Choose the events of the article: the subject's own, then those of people near it."""
    subject = writer.subject
    events = _own_events(subject, knowledge)
    if len(events) < SHORT_ARTICLE:
        near = [value for value in subject.values.values() if isinstance(value, Record)]
        near += [record for record, _ in subject.links]
        near += [event.values["other"] for event in events if event.kind == "marriage"]
        near = [record for record in near if record.kind == "person"] or near
        more = dict.fromkeys(event for record in near for event in _own_events(record, knowledge))
        more = [event for event in more if event not in events]
        events += writer.draws.subset(more, min(len(more), SHORT_ARTICLE - len(events)))
    first, last = LONG_ARTICLE
    size = first + writer.draws.below(last - first)
    if len(events) > size:
        events = writer.draws.subset(events, size)
    return sorted(events, key=lambda event: event.year)


def _own_events(subject: Record, knowledge: Knowledge) -> list[Record]:
    links = (record for record, _ in subject.links if record.kind not in knowledge.kinds)
    return list(dict.fromkeys(links))


def _write_events(writer: Writer, events: list[Record]) -> None:
    """Tell the events in sections and paragraphs, with some sentences of no fact between."""
    left_in_section = fillers = 0
    for told, event in enumerate(events, start=1):
        if not left_in_section:
            first, last = SECTION
            left_in_section = section = first + writer.draws.below(last - first)
            writer.emit("\n" if told > 1 else "")
            writer.heading(None)
            writer.emit(" ")
        elif (section - left_in_section) % PARAGRAPH == 0:
            writer.emit("\n")
            writer.emit(" ")
        writer.tell_event(event)
        left_in_section -= 1
        if 2 * fillers + 2 <= told and writer.draws.chance(FILLER):
            writer.filler()
            fillers += 1
    writer.emit("\n" if events else "")
