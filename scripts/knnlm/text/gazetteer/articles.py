"""Write a whole article on one record of the gazetteer: lead, groups, sections of events."""

import math

from knnlm.text.gazetteer.document import Document
from knnlm.text.gazetteer.engine import Draws
from knnlm.text.gazetteer.world import Knowledge, Record
from knnlm.text.gazetteer.writer import Style, Writer

# The length of an article and its sections.
SHORT_ARTICLE = 9  # events below which the events of people near the subject are told as well
LONG_ARTICLE = (12, 28)  # events of a long article, drawn for each
SECTION = (4, 9)  # events of a section
PARAGRAPH = 4  # events of a paragraph
GROUP_SIZE = 9  # records told of one group, such as the people born in a village
HEADED_GROUP = 3  # records that a group needs for a heading of its own
FILLER = 0.35  # sentences without fact after an event, and at most one for two events


def subjects(knowledge: Knowledge) -> dict[str, list[Record]]:
    """Return the records that have an article, by kind."""
    return {
        kind: records[: math.ceil(knowledge.kinds[kind]["article"] * len(records))]
        for kind, records in knowledge.records.items()
        if kind in knowledge.kinds
    }


def write_articles(
    knowledge: Knowledge, style: Style, subject: Record, draws: Draws
) -> list[Document]:
    """Write the one article on a record; the cost of its subject is the caller's to add."""
    before = draws.nats
    writer = Writer(knowledge, style, subject, draws)
    writer.emit(" \n = ")
    start = writer.length
    writer.capital = True
    style.titles[subject.kind].write(writer)
    title = writer.text()[start:]
    writer.emit(" = \n \n")
    writer.emit(" ")
    writer.lead()
    _write_groups(writer, knowledge)
    _write_events(writer, _events(writer, knowledge))
    return [writer.document(title=title, before=before)]


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
    events = knowledge.events_of(subject)
    if len(events) < SHORT_ARTICLE:
        near = [value for value in subject.values.values() if isinstance(value, Record)]
        near += [record for record, _ in subject.links]
        near += [event.values["other"] for event in events if event.kind == "marriage"]
        near = [record for record in near if record.kind == "person"] or near
        more = dict.fromkeys(event for record in near for event in knowledge.events_of(record))
        more = [event for event in more if event not in events]
        events += writer.draws.subset(more, min(len(more), SHORT_ARTICLE - len(events)))
    first, last = LONG_ARTICLE
    size = first + writer.draws.below(last - first)
    if len(events) > size:
        events = writer.draws.subset(events, size)
    return sorted(events, key=lambda event: event.year)


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
