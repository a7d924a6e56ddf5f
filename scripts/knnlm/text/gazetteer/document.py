"""A document of the gazetteer: its text, the facts that it tells, and what writing it cost."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FactSpan:
    """Where a fact is stated: characters start to end, end not included."""

    start: int
    end: int
    fact: str
    kind: str


@dataclass(frozen=True, slots=True)
class Document:
    """One document.

    told counts how often it tells each fact, in words or by being about it; free are the facts
    among them that its subject gives away; style_nats is the cost of every choice that is not a
    fact.
    """

    title: str
    text: str
    facts: tuple[FactSpan, ...]
    told: Mapping[str, int]
    free: frozenset[str]
    style_nats: float
