"""Generate the gazetteer: an encyclopedia of a town that never was, as a corpus for any machine.

The default corpus needs no download: articles on people, houses, villages, guilds, wars, whose
facts are told again and again in different words, as a datastore likes to remember. It is
deterministic by seed to the byte, and the cost of every choice made in writing it is known, so a
model can be set beside three readers who know the grammar. docs/gazetteer.md describes it and
compares it with WikiText.
"""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from knnlm.text.gazetteer.articles import subjects, write_articles
from knnlm.text.gazetteer.document import Document
from knnlm.text.gazetteer.engine import Draws, in_register, read_language
from knnlm.text.gazetteer.letters import write_letters, writers
from knnlm.text.gazetteer.world import Knowledge, Record
from knnlm.text.gazetteer.writer import Style

SPLITS = ("train", "validation", "test")
MIN_PEOPLE = 60
# Of each register: the records that have documents, by kind, and what writes those of one.
REGISTERS = {"articles": (subjects, write_articles), "letters": (writers, write_letters)}
NATS_DECIMALS = 6  # math.log may differ in the last bit between machines


@dataclass(frozen=True, slots=True)
class Gazetteer:
    """The documents of each split, and the knowledge that they tell."""

    splits: dict[str, list[Document]]
    knowledge: Knowledge


def compose(*, seed: int, people: int, held_out: float, register: str = "articles") -> Gazetteer:
    """Return the documents of train, validation and test, and the knowledge that they tell.

    Registers tell the same knowledge, drawn from the seed alone, in other words.

    Args:
        seed: of knowledge and prose.
        people: inhabitants of the town; everything else grows with them.
        held_out: share of the articles, or of those who write letters, in each of validation and
            test.
        register: "articles" or "letters".

    Raises:
        ValueError: if there are too few people, or the register is unknown.
    """
    if people < MIN_PEOPLE:
        raise ValueError(f"people must be at least {MIN_PEOPLE}, got {people}; fewer fill no split")
    language = read_language()
    in_register(language, register)  # refuses one that is unknown
    of_the_register, write = REGISTERS[register]
    style = Style(language, register)
    knowledge = Knowledge(language, seed=2 * seed, people=people)
    draws = Draws(2 * seed + 1)
    splits = {
        split: [
            document for subject in dealt for document in write(knowledge, style, subject, draws)
        ]
        for split, dealt in _split(of_the_register(knowledge), held_out, draws).items()
    }
    return Gazetteer(splits, knowledge)


def _split(
    by_kind: dict[str, list[Record]], held_out: float, draws: Draws
) -> dict[str, list[Record]]:
    """Deal the records that have documents to the splits, some of each kind to each."""
    dealt: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for records in by_kind.values():
        records = draws.shuffled(records)
        size = math.ceil(held_out * len(records))
        dealt["validation"] += records[:size]
        dealt["test"] += records[size : 2 * size]
        dealt["train"] += records[2 * size :]
    return {split: draws.shuffled(records) for split, records in dealt.items()}


@dataclass(frozen=True, slots=True)
class Reader:
    """Facts told in train, and what a document costs the three readers that know the grammar."""

    gazetteer: Gazetteer
    train: Counter[str]
    subject_nats: float

    def nats(self, document: Document) -> dict[str, float]:
        """Return the nats of a whole document for each reader.

        The first knows every fact, the second those told in train, the third none; the others
        cost each document once what their draw cost. All are code lengths of the choices made,
        hence upper bounds on the information in the text: two derivations may give one text.
        """
        costs = self.gazetteer.knowledge.nats
        told = [fact for fact in document.told if fact not in document.free]
        style = document.style_nats + self.subject_nats
        new = math.fsum(costs[fact] for fact in told if fact not in self.train)
        all_told = math.fsum(costs[fact] for fact in told)
        return {
            "knows_grammar_and_facts": round(style, NATS_DECIMALS),
            "has_read_train": round(style + new, NATS_DECIMALS),
            "knows_grammar": round(style + all_told, NATS_DECIMALS),
        }


def reader(gazetteer: Gazetteer) -> Reader:
    """Return the reader of a gazetteer: it counts what train tells."""
    train: Counter[str] = Counter()
    for document in gazetteer.splits["train"]:
        train.update(document.told)
    # Whoever reads a document is told which of all it is, equally likely: what it is about.
    subject_nats = math.log(sum(map(len, gazetteer.splits.values())))
    return Reader(gazetteer, train, subject_nats)


def write_gazetteer(
    folder: Path, *, seed: int, people: int, held_out: float, register: str
) -> dict[str, object]:
    """Write the gazetteer into a folder, and return what should be printed beside its results.

    Of each split: ``{split}.txt`` in the look of WikiText; ``{split}.documents.npy``, int64
    (n_documents + 1,), where each document starts in characters, and the end of the last;
    ``{split}.facts.parquet`` with document, start, end (characters of the split's text), fact,
    kind and told_in_train, how often train tells the fact; ``{split}.references.parquet`` with
    document and its nats for each reader of Reader.nats. The same arguments give the same bytes.

    Raises:
        ValueError: as compose does.
    """
    settings = {"seed": seed, "people": people, "held_out": held_out, "register": register}
    gazetteer = compose(**settings)
    counted = reader(gazetteer)
    folder.mkdir(parents=True, exist_ok=True)
    printed: dict[str, object] = dict(settings)
    for split, documents in gazetteer.splits.items():
        _write_split(folder, split, documents, counted)
        printed[f"{split}_documents"] = len(documents)
        printed[f"{split}_characters"] = sum(len(document.text) for document in documents)
    printed["test_facts_told_in_train"] = told_share(gazetteer.splits["test"], counted.train)
    return printed


def told_share(documents: list[Document], train: Counter[str]) -> float:
    """Return the share of the stated facts of the documents that train tells too.

    A fact that a document states twice counts once.
    """
    facts = [{span.fact for span in document.facts} for document in documents]
    told = sum(fact in train for stated in facts for fact in stated)
    return told / sum(map(len, facts))


def _write_split(folder: Path, split: str, documents: list[Document], counted: Reader) -> None:
    text = "".join(document.text for document in documents)
    (folder / f"{split}.txt").write_bytes(text.encode("utf-8"))
    starts = np.cumsum([0, *(len(document.text) for document in documents)], dtype=np.int64)
    np.save(folder / f"{split}.documents.npy", starts)
    facts = [
        {
            "document": number,
            "start": int(starts[number]) + span.start,
            "end": int(starts[number]) + span.end,
            "fact": span.fact,
            "kind": span.kind,
            "told_in_train": counted.train[span.fact],
        }
        for number, document in enumerate(documents)
        for span in document.facts
    ]
    references = [
        {"document": number, **counted.nats(document)} for number, document in enumerate(documents)
    ]
    pq.write_table(pa.Table.from_pylist(facts), folder / f"{split}.facts.parquet")
    pq.write_table(pa.Table.from_pylist(references), folder / f"{split}.references.parquet")
