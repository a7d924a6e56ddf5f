"""The engine of the gazetteer: draw words from templates, and sum what every draw costs.

The words and templates stand in language.yaml, whose head explains their notation, and those of
another register in a file of its own. Every draw is built on ``random.Random.random()``, the one
method whose stream Python promises to keep, so a seed gives the same text on every machine; its
cost is its exact negative log-probability.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import accumulate
from math import log
from operator import methodcaller
from pathlib import Path
from random import Random
from typing import Any, Generic, TypeVar

import yaml

T = TypeVar("T")

LANGUAGE = Path(__file__).with_name("language.yaml")
REGISTERS = ("letters",)  # beside that of the articles, each in {register}.yaml

# Rank r of a word list weighs 1 / (r + RANK_OFFSET): a Mandelbrot law, so that the lists
# together have the Zipf slope of WikiText (docs/gazetteer.md).
RANK_OFFSET = 25.0

_TOKEN = re.compile(r"[\[\]|]|<\w+>|\{\w+(?::\w+)?\}|[^\[\]|<{]+")
_LETTER = re.compile(r"\w")
# What takes "an": vowels but those that sound like "you" or "won", the silent h, 8, 11, 18, 80.
_VOWEL_SOUND = re.compile(
    r"(?!uni|use|usu|eu|one\b|once\b|ewe)[aeiou]|hour|heir|honest|honou|(8|11|18)(?!\d)|8\d",
    re.IGNORECASE,
)


class Draws:
    """A seeded source of draws that sums what they cost, in nats."""

    def __init__(self, seed: int) -> None:
        self.uniform = Random(seed).random
        self.nats = 0.0

    def below(self, n: int) -> int:
        """Draw a whole number from 0 to n - 1, all equally likely."""
        self.nats += _log(n)
        return int(self.uniform() * n)

    def pick(self, options: Sequence[T]) -> T:
        """Draw one of the options, all equally likely."""
        return options[self.below(len(options))]

    def chance(self, p: float) -> bool:
        """Draw True with probability p."""
        hit = self.uniform() < p
        self.nats -= log(p if hit else 1.0 - p)
        return hit

    def rank(self, table: "Table") -> int:
        """Draw a position of the table by its weights."""
        position = self.silent_rank(table)
        self.nats += table.nats[position]
        return position

    def silent_rank(self, table: "Table") -> int:
        """Draw as rank does, and leave the cost to the caller."""
        position = bisect_right(table.cumulative, self.uniform() * table.cumulative[-1])
        return min(position, len(table.options) - 1)  # u * total may round up to the total

    def subset(self, options: Sequence[T], size: int) -> list[T]:
        """Draw size of the options, every subset equally likely, and keep their order."""
        chosen: list[int] = []
        left = list(range(len(options)))
        for taken in range(size):
            chosen.append(left.pop(self.below(len(left))))
            self.nats -= _log(taken + 1)  # the order of the draws is not told
        return [options[i] for i in sorted(chosen)]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """Return the options in random order, every order equally likely."""
        left = list(options)
        return [left.pop(self.below(len(left))) for _ in options]


@cache
def _log(n: int) -> float:
    return log(n)


class Table(Generic[T]):
    """Options with weights: rank r weighs 1 / (r + offset)."""

    def __init__(self, options: Sequence[T], *, offset: float = RANK_OFFSET) -> None:
        self.options = options
        self.weights = [1.0 / (rank + offset) for rank in range(len(options))]
        self.cumulative = list(accumulate(self.weights))
        self.nats = [log(self.cumulative[-1] / weight) for weight in self.weights]


class Template:
    """One line of the grammar: texts, choices, words, phrases and slots, one after another.

    fields holds every slot that may be written, needs those that are written in any case. Each
    part is a call of the method of `Line` that writes it.
    """

    def __init__(self, source: str, grammar: "Grammar") -> None:
        self.source = source
        self.fields = grammar.fields(source)
        self.needs: set[str] = set()
        tokens = _TOKEN.findall(source)
        self._parts = self._sequence(tokens, grammar, depth=0)
        if tokens:
            raise ValueError(f"unpaired bracket in {source!r}; see the top of {LANGUAGE.name}")

    def _sequence(self, tokens: list[str], grammar: "Grammar", *, depth: int) -> list[Callable]:
        parts: list[Callable] = []
        while tokens and tokens[0] not in "]|":
            token = tokens.pop(0)
            if token == "[":
                parts.append(methodcaller("choice", self._choice(tokens, grammar, depth=depth + 1)))
            elif token[0] == "<":
                parts.append(grammar.symbol(token[1:-1]))
            elif token[0] == "{":
                field, _, form = token[1:-1].partition(":")
                parts.append(methodcaller("slot", field, form))
                if depth == 0:
                    self.needs.add(field)
            else:
                parts.append(methodcaller("emit", token))
        return parts

    def _choice(self, tokens: list[str], grammar: "Grammar", *, depth: int) -> list[list[Callable]]:
        options = [self._sequence(tokens, grammar, depth=depth)]
        while tokens[:1] == ["|"]:
            tokens.pop(0)
            options.append(self._sequence(tokens, grammar, depth=depth))
        if not tokens:
            raise ValueError(f"unclosed bracket in {self.source!r}; see the top of {LANGUAGE.name}")
        tokens.pop(0)
        return options

    def write(self, line: "Line") -> None:
        """Write the template on a line, drawing what is open."""
        for part in self._parts:
            part(line)


class Grammar:
    """The language file, compiled for one register."""

    def __init__(self, language: Mapping[str, Any], register: str) -> None:
        own = in_register(language, register)
        words = {**language["words"], **own.get("words", {})}
        self.words = {name: Table(_words(text)) for name, text in words.items()}
        self._lines = {**language["phrases"], **own.get("phrases", {})}
        self._coined: dict[str, list[Template]] = {name: [] for name in language["coined"]}
        for name, lines in language["coined"].items():
            self._coined[name].extend(self.templates(lines))
        self.phrases = {name: self.templates(lines) for name, lines in self._lines.items()}

    def symbol(self, name: str) -> Callable[["Line"], None]:
        """Return what writes <name> on a line."""
        if name in self.words:
            return methodcaller("word", self.words[name])
        if name in self._coined:
            return methodcaller("coin", self._coined[name])
        return methodcaller("phrase", name)

    def fields(self, source: str) -> frozenset[str]:
        """Return the fields of the record that a template uses, its phrases included."""
        fields = set(re.findall(r"\{(\w+)", source))
        for name in re.findall(r"<(\w+)>", source):
            fields |= self.fields(self._lines.get(name, ""))
        return frozenset(fields - {"self"})

    def templates(self, lines: str) -> list[Template]:
        """Compile one template a line."""
        return [Template(line, self) for line in lines.strip().split("\n")]


class Line:
    """What templates are written on: here a piece without facts, such as a book's title."""

    def __init__(self, grammar: Grammar, draws: Draws) -> None:
        self.grammar = grammar
        self.draws = draws
        self.parts: list[str] = []
        self.length = 0
        self.tail = " "
        self.capital = False

    def emit(self, text: str) -> None:
        """Append text with single spaces, the right article and a due capital."""
        if text[:1] == " " and self.tail[-1:] == " ":
            text = text[1:]
        if not text:
            return
        if self.tail[-2:] in ("a ", "A ") and self.tail[-3:-2] in ("", " ") and takes_an(text):
            self.parts[-1] = self.parts[-1][:-1] + "n "
            self.length += 1
        if self.capital and (letter := _LETTER.search(text)):
            at = letter.start()
            text = text[:at] + text[at].upper() + text[at + 1 :]
            self.capital = False
        self.parts.append(text)
        self.length += len(text)
        self.tail = (self.tail + text)[-3:]

    def choice(self, options: Sequence[Sequence[Callable[["Line"], None]]]) -> None:
        """Append one of the alternatives."""
        for part in self.draws.pick(options):
            part(self)

    def word(self, table: Table[str]) -> None:
        """Append a word drawn from the table."""
        self.emit(table.options[self.draws.rank(table)])

    def coin(self, model: Sequence[Template]) -> None:
        """Append a new name: a template of the model without spaces, with a capital."""
        line = Line(self.grammar, self.draws)
        self.draws.pick(model).write(line)
        name = line.text()
        self.emit(name[0].upper() + name[1:])

    def phrase(self, name: str) -> None:
        """Append a phrase of the given name."""
        self.draws.pick(self.grammar.phrases[name]).write(self)

    def slot(self, field: str, form: str) -> None:
        """Refuse: there is no record at hand."""
        raise ValueError(f"{{{field}}} in a phrase that has no record; use words only")

    def text(self) -> str:
        """Return what was written."""
        return "".join(self.parts).strip()


def takes_an(text: str) -> bool:
    """Say whether the article before this text is "an"."""
    return _VOWEL_SOUND.match(text) is not None


def _words(text: str) -> list[str]:
    """Split a word list; hyphens become the " @-@ " of WikiText."""
    return [word.replace("_", " ").replace("-", " @-@ ") for word in text.split()]


def in_register(language: Mapping[str, Any], register: str) -> Mapping[str, Any]:
    """Return what a register says in its own words; the articles have none beside the language.

    Raises:
        ValueError: if there is no such register.
    """
    registers = {"articles": {}, **language["registers"]}
    if register not in registers:
        raise ValueError(f"unknown register {register!r}; known are {', '.join(registers)}")
    return registers[register]


@cache
def read_language() -> dict[str, Any]:
    """Read the language file, with the file of each register below `registers`."""
    files = {name: LANGUAGE.with_name(f"{name}.yaml") for name in REGISTERS}
    registers = {name: _read(file) for name, file in files.items()}
    return {**_read(LANGUAGE), "registers": registers}


def _read(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8"))
