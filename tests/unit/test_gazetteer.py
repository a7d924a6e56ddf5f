"""The gazetteer: the same bytes everywhere, true to itself, and honest about what it costs."""

import hashlib
import math
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from gazetteer_checks import contradictions

from knnlm.text.gazetteer.articles import write_articles
from knnlm.text.gazetteer.corpus import compose, reader, told_share, write_gazetteer
from knnlm.text.gazetteer.document import Document, FactSpan
from knnlm.text.gazetteer.engine import Draws, Grammar, Line, Table, read_language
from knnlm.text.gazetteer.letters import FIRST_PERSON, LetterWriter, write_letters
from knnlm.text.gazetteer.world import Knowledge, Record
from knnlm.text.gazetteer.writer import Style, Writer

PEOPLE, HELD_OUT = 60, 0.2055
SCRIPTS = Path(__file__).parents[2] / "scripts"

# sha256 of train.txt, validation.txt and test.txt together, at seed 1 and 60 people. A change of
# grammar or lexicon changes them, and with them every number measured on the gazetteer.
HASHES = {
    "articles": "5a708ddc053861b1b11cd79be02d57c8b1d81a7daa95724f42433c45f22ada82",
    "letters": "42b6ee380312491fb34eb63b652ebf719e7cfa558d2bebd534821800dd1cc02f",
}


@pytest.fixture(scope="module")
def gazetteer():
    return compose(seed=1, people=PEOPLE, held_out=HELD_OUT)


@pytest.fixture(scope="module")
def articles(gazetteer):
    return [article for split in gazetteer.splits.values() for article in split]


@pytest.fixture(scope="module")
def records(gazetteer):
    return {record.id: record for kind in gazetteer.knowledge.records.values() for record in kind}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("gazetteer")
    write_gazetteer(path, seed=1, people=PEOPLE, held_out=HELD_OUT, register="articles")
    return path


def sentences(article):
    lines = [
        line for line in article.text.split("\n") if line.strip() and not line.startswith(" =")
    ]
    return [
        sentence
        for line in lines
        for sentence in re.split(r" [.?!] ", line.strip().removesuffix(" ."))
    ]


@pytest.mark.parametrize("register", HASHES)
def test_the_bytes_of_a_seed_never_change(register):
    splits = compose(seed=1, people=PEOPLE, held_out=HELD_OUT, register=register).splits

    text = "".join(article.text for split in splits.values() for article in split)

    assert hashlib.sha256(text.encode()).hexdigest() == HASHES[register]


def test_two_hash_seeds_write_the_same_files(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from knnlm.text.gazetteer.corpus import write_gazetteer\n"
        "sizes = dict(people=60, held_out=0.2055)\n"
        "write_gazetteer(Path(sys.argv[1]), seed=3, register='articles', **sizes)"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(SCRIPTS)}
        subprocess.run([sys.executable, "-c", code, tmp_path / seed], env=environment, check=True)

    first, second = (sorted((tmp_path / seed).iterdir()) for seed in ("1", "2"))
    assert [path.name for path in first] == [path.name for path in second]
    assert len(first) == 12
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_another_seed_is_another_town(gazetteer):
    other = compose(seed=2, people=PEOPLE, held_out=HELD_OUT)

    titles = [{article.title for article in each.splits["train"]} for each in (gazetteer, other)]
    assert len(titles[0] & titles[1]) < len(titles[0]) / 2  # the guilds are the same


# What is told


@pytest.mark.parametrize(("seed", "people"), [(1, PEOPLE), (2, 90), (3, 400)])
def test_no_two_facts_contradict_each_other(seed, people):
    knowledge = Knowledge(read_language(), seed=seed, people=people)

    assert contradictions(knowledge) == []


@pytest.mark.parametrize(
    ("kind", "field", "year"),
    [
        ("person", "death_year", 1500),
        ("marriage", "year", 1990),
        ("house", "built", 1999),
        ("service", "war", None),
    ],
)
def test_a_planted_contradiction_is_found(kind, field, year):
    knowledge = Knowledge(read_language(), seed=1, people=200)
    if kind == "service":
        victim = next(war for war in knowledge.records["war"] if war.links)
        field, year = "end", 2000
    else:
        everything = [*knowledge.records["event"], *knowledge.records.get(kind, [])]
        linked = [record for record in everything if record.kind == kind]
        victim = next(r for r in linked if kind == "marriage" or r.links)

    victim.values[field] = year

    assert contradictions(knowledge)


def test_every_span_states_its_fact(gazetteer, articles, records):
    name = gazetteer.knowledge.name
    for article in articles:
        for span in article.facts:
            stated = article.text[span.start : span.end]
            record, field = span.fact.split(".")
            value = records[record].values[field]
            target = records[record] if span.kind == "name" else value
            expected = {str(value)}
            if isinstance(target, Record):
                expected = {name(target)}
                if target.kind == "person":
                    expected.add(target.values["family"].values["name"])
            expected |= {text[0].upper() + text[1:] for text in expected}
            assert stated in expected, (span, stated)


def test_every_article_states_facts_and_has_its_title(articles):
    for article in articles:
        assert article.text.startswith(f" \n = {article.title} = \n \n")
        assert len(article.facts) >= 5, article.title


@pytest.fixture(scope="module")
def correspondence():
    return compose(seed=1, people=PEOPLE, held_out=HELD_OUT, register="letters")


@pytest.fixture(scope="module")
def letters(correspondence):
    return [letter for split in correspondence.splits.values() for letter in split]


def test_the_registers_tell_the_same_knowledge_in_other_words(gazetteer, correspondence):
    assert correspondence.knowledge.nats == gazetteer.knowledge.nats
    told = [
        {fact for document in one.splits["train"] for fact in document.told}
        for one in (gazetteer, correspondence)
    ]
    assert len(told[0] & told[1]) > 0.7 * len(told[1])
    texts = [" ".join(d.text for d in one.splits["train"]) for one in (gazetteer, correspondence)]
    words = [Counter(text.split()) for text in texts]
    first_person = [sum(w[word] for word in ("me", "my", "your")) / w.total() for w in words]
    assert first_person[0] == 0
    assert first_person[1] > 0.01  # beside "I" itself


def test_no_one_writes_letters_of_two_splits(correspondence):
    writers = [
        {letter.text.rstrip().rsplit("\n", 1)[1] for letter in split}
        for split in correspondence.splits.values()
    ]

    assert not writers[0] & writers[1]
    assert not writers[0] & writers[2]
    assert not writers[1] & writers[2]


def test_a_letter_is_dated_addressed_and_signed(correspondence, letters):
    names = {correspondence.knowledge.name(p) for p in correspondence.knowledge.records["person"]}
    dated = [re.search(r"\b1[6-9]\d\d\b", letter.title) for letter in letters]
    for letter in letters:
        heading, empty, salutation, *body, farewell, signature, _ = letter.text.split("\n")[1:]
        assert heading.strip() == letter.title
        assert empty.strip() == ""
        assert re.match(r"[A-Z][^.?!]* , $", salutation[1:])
        assert body
        assert farewell.endswith(" , ")
        assert signature.strip() in names

    assert sum(map(bool, dated)) > 0.7 * len(dated)


def test_a_letter_tells_nothing_of_its_future(correspondence, records):
    for split in correspondence.splits.values():
        for letter in split:
            year = re.search(r"\b1[6-9]\d\d\b", letter.title)
            spans = [span for span in letter.facts if span.kind == "year"]
            told = [int(letter.text[span.start : span.end]) for span in spans]
            assert not year or all(int(year[0]) >= other for other in told), letter.text


def test_every_event_of_a_writer_is_told_once_in_the_writers_letters(correspondence):
    knowledge, style = correspondence.knowledge, Style(read_language(), "letters")
    for person in knowledge.records["person"]:
        letters = write_letters(knowledge, style, person, Draws(3))
        told = Counter()
        for letter in letters:
            told.update({fact for fact in letter.told if fact.endswith(".era")})
        for event in knowledge.events_of(person):
            assert told[f"{event.id}.era"] == 1


def test_whoever_writes_is_the_first_person(correspondence):
    knowledge, style = correspondence.knowledge, Style(read_language(), "letters")
    sale = next(e for e in knowledge.records["event"] if e.kind == "sale")
    subject, draws = sale.values["owner"], Draws(1)
    lines = {
        "{owner} sold {owner:p} cow , which was {owner:own} , for {owner:o}": (
            "I sold my cow , which was mine , for me ."
        ),
        "{other:n} has {owner:n} 's cow": (
            f"{knowledge.name(sale.values['other'])} has {knowledge.name(subject)} 's cow ."
        ),
    }
    for line, expected in lines.items():
        writer = LetterWriter(knowledge, style, subject, draws)
        writer.sentence(sale, *style.grammar.templates(line))
        assert writer.text().strip() == expected
        assert set(writer.free) >= {f"{sale.id}.owner"}
    assert FIRST_PERSON["own"] == "mine"


def test_letters_use_only_facts_that_are_drawn():
    language = read_language()
    letters, articles = (Style(language, register) for register in ("letters", "articles"))

    assert letters.events.keys() == articles.events.keys()
    for kind, templates in letters.events.items():
        drawn = frozenset().union(*(template.fields for template in articles.events[kind]))
        for template in templates:
            assert template.fields <= drawn, (kind, template.source)
    for kind in {**letters.remarks, **letters.asides}:
        for template in letters.remarks.get(kind, []) + letters.asides[kind]:
            assert template.fields <= language["kinds"][kind]["fields"].keys(), template.source


def test_a_question_takes_neither_opener_nor_tail_nor_a_second_stop(letters):
    text = "".join(letter.text for letter in letters)

    assert " ? " in text
    assert " ! " in text
    assert not re.search(r"[?!] [.,;]", text)
    assert not re.search(r"[?!] [a-z]", text)


def test_no_more_than_one_sentence_without_fact_stands_for_two_events(monkeypatch, gazetteer):
    told = []
    for name in ("tell_event", "filler"):
        monkeypatch.setattr(Writer, name, lambda self, *_, name=name: told.append(name))
    style = Style(read_language(), "articles")
    fillers = 0
    for person in gazetteer.knowledge.records["person"]:
        told.clear()
        write_articles(gazetteer.knowledge, style, person, Draws(5))
        for end in range(1, len(told) + 1):
            assert 2 * told[:end].count("filler") <= told[:end].count("tell_event")
        fillers += told.count("filler")

    assert fillers > 0


# How it is told


@pytest.mark.parametrize("register", HASHES)
def test_sentences_begin_with_a_capital(register):
    for split in compose(
        seed=4, people=PEOPLE, held_out=HELD_OUT, register=register
    ).splits.values():
        for article in split:
            for sentence in sentences(article):
                assert re.match(r'("\s)?[A-Z0-9\u00a3]', sentence), sentence


@pytest.mark.parametrize("register", HASHES)
def test_articles_agree_with_the_sound_that_follows(register):
    for split in compose(
        seed=4, people=PEOPLE, held_out=HELD_OUT, register=register
    ).splits.values():
        for article in split:
            for article_word, following in re.findall(r"\b([Aa]n?) (\w+)", article.text):
                silent = re.match(r"hour|heir|honest|honou", following.lower())
                spoken = re.match(r"uni|use|usu|eu|one$|once$|ewe", following.lower())
                number = re.match(r"8|11$|18$", following)
                vowel = following[0].lower() in "aeiou" and not spoken
                expected = "an" if vowel or silent or number else "a"
                assert article_word.lower() == expected, (article_word, following)


def test_text_is_spaced_as_wikitext_is(articles, letters):
    for article in articles + letters:
        text = article.text
        assert "  " not in text
        assert not re.search(r"[\[\]{}<>|_]", text)
        assert not re.search(r"\w[,.;]|[,;] [,.;]|\. \.", text), text
        assert all(character.isascii() or character in "\u2013\u00a3" for character in text)
        assert all(line == "" or line[0] == " " for line in text.split("\n"))


def test_numbers_that_are_drawn_are_plural():
    language = read_language()
    rules = [rule for name, rule in language["event_fields"].items() if name != "day"]
    for form in language["kinds"].values():
        rules += form["fields"].values()

    assert all(int(rule.split()[1]) >= 2 for rule in rules if rule.startswith("number "))


def test_every_slot_of_the_language_has_a_field():
    language = read_language()
    grammar = Grammar(language, "articles")
    fields = {"event": {*language["event_fields"]}}
    lines = {"event": "".join(language["events"].values())}
    for kind, form in language["kinds"].items():
        fields[kind] = {*form["fields"]}
        lines[kind] = "".join([*form["leads"], form.get("appositions", "")])
        lines[kind] += "".join(form.get("tells", {}).values()) + form.get("title", "{name}")

    for kind, text in lines.items():
        for template in grammar.templates(text):
            assert template.fields <= fields[kind], (kind, template.source)


@pytest.mark.parametrize(("line", "fault"), [("a ] b", "unpaired"), ("a [ b | c", "unclosed")])
def test_a_faulty_bracket_is_named(line, fault):
    language = {"words": {}, "coined": {}, "registers": {}, "phrases": {"p": line}}

    with pytest.raises(ValueError, match=f"{fault} bracket in {re.escape(repr(line))}"):
        Grammar(language, "articles")


# What it costs

TINY = {
    "words": {"w": "x y z"},
    "coined": {"name": "<w>[o|]\n<w><w>q"},
    "phrases": {"p": "[a <w>|b]\nc <name> <w>"},
    "registers": {},
}


def tiny_draws(n):
    grammar = Grammar(TINY, "articles")
    draws = Draws(7)
    for _ in range(n):
        before = draws.nats
        line = Line(grammar, draws)
        line.phrase("p")
        yield line.text(), draws.nats - before


def test_the_costs_of_a_grammar_are_the_logarithms_of_a_distribution():
    texts = dict(tiny_draws(5000))

    # Every text of this grammar has one derivation: 3 + 1 of the first line, 15 * 3 of the second.
    assert len(texts) == 3 + 1 + 15 * 3
    assert math.fsum(math.exp(-nats) for nats in texts.values()) == pytest.approx(1.0, abs=1e-12)


def test_texts_are_as_frequent_as_their_cost_says():
    n = 20_000
    drawn = list(tiny_draws(n))
    frequencies = Counter(text for text, _ in drawn)

    for text, nats in dict(drawn).items():
        p = math.exp(-nats)
        assert abs(frequencies[text] / n - p) < 5 * math.sqrt(p / n), text


def test_a_repeated_word_costs_the_mixture_that_draws_it(gazetteer):
    words = Table(["x", "y", "z"])
    style = Style(read_language(), "articles")
    subject = gazetteer.knowledge.records["person"][0]
    n = 8000
    costs, frequencies = {}, Counter()
    draws = Draws(11)
    for _ in range(n):
        writer = Writer(gazetteer.knowledge, style, subject, draws)
        writer._recent[id(words)] = [2, 2, 1]  # z was used twice, y once
        before = draws.nats
        writer.word(words)
        costs[writer.text()] = math.exp(before - draws.nats)
        frequencies[writer.text()] += 1

    assert math.fsum(costs.values()) == pytest.approx(1.0)
    for word, p in costs.items():
        assert abs(frequencies[word] / n - p) < 5 * math.sqrt(p / n)


def test_a_chance_costs_what_happened():
    draws = Draws(5)
    costs = {}
    for _ in range(100):
        before = draws.nats
        hit = draws.chance(0.2)
        costs[hit] = draws.nats - before

    assert costs == pytest.approx({True: -math.log(0.2), False: -math.log(0.8)})


def test_every_subset_is_equally_likely_and_costs_that():
    draws = Draws(5)
    subsets = Counter()
    for _ in range(6000):
        before = draws.nats
        subsets[tuple(draws.subset("abcd", 2))] += 1
        assert draws.nats - before == pytest.approx(math.log(6))

    assert {"".join(subset) for subset in subsets} == {"ab", "ac", "ad", "bc", "bd", "cd"}
    assert all(abs(count - 1000) < 5 * math.sqrt(1000) for count in subsets.values())


def test_a_link_costs_its_probability_among_those_that_are_free():
    knowledge = Knowledge(read_language(), seed=1, people=PEOPLE)
    streets = knowledge.records["street"]
    table = Table(streets)
    draws = knowledge._draws
    costs = {}
    for _ in range(2000):
        before = draws.nats
        street = knowledge._draw_free(table, streets[:2])
        costs[street] = math.exp(before - draws.nats)

    assert set(costs) == set(streets[2:])
    assert math.fsum(costs.values()) == pytest.approx(1.0)


def test_a_fact_costs_what_its_draw_did(gazetteer):
    knowledge = gazetteer.knowledge
    person = knowledge.records["person"][0]

    assert knowledge.nats[f"{person.id}.birth_year"] == pytest.approx(math.log(12))
    assert knowledge.nats[f"{person.id}.death_year"] == pytest.approx(math.log(41))


def test_readers_pay_once_for_each_fact_they_do_not_know(gazetteer):
    counted = reader(gazetteer)
    costs = gazetteer.knowledge.nats
    known = next(fact for fact in costs if fact in counted.train)
    new = next(fact for fact in costs if fact not in counted.train)
    given = next(fact for fact in costs if fact not in counted.train and fact != new)
    told = {known: 1, new: 2, given: 1}
    article = Document("t", "t", (), told, frozenset({given}), style_nats=10.0)

    actual = counted.nats(article)

    documents = sum(map(len, gazetteer.splits.values()))
    style = 10.0 + math.log(documents)
    assert actual["knows_grammar_and_facts"] == pytest.approx(style, abs=1e-6)
    assert actual["has_read_train"] == pytest.approx(style + costs[new], abs=1e-6)
    assert actual["knows_grammar"] == pytest.approx(style + costs[new] + costs[known], abs=1e-6)


def test_the_told_share_counts_a_fact_of_a_document_once():
    spans = tuple(FactSpan(0, 1, fact, "word") for fact in ("a", "a", "b"))
    article = Document("t", "t", spans, {}, frozenset(), 0.0)

    assert told_share([article], Counter({"a": 3})) == 0.5


# What is written


def test_documents_cover_the_text_without_gaps(folder):
    for split, articles in compose(seed=1, people=PEOPLE, held_out=HELD_OUT).splits.items():
        text = (folder / f"{split}.txt").read_bytes().decode("utf-8")
        starts = np.load(folder / f"{split}.documents.npy")
        assert starts.dtype == np.int64
        assert starts[0] == 0
        assert starts[-1] == len(text)
        parts = [text[a:b] for a, b in pairwise(starts)]
        assert parts == [article.text for article in articles]


def test_facts_are_found_at_their_place_and_counted_in_train(folder, records, gazetteer):
    train = pd.read_parquet(folder / "train.facts.parquet")
    test = pd.read_parquet(folder / "test.facts.parquet")
    text = (folder / "test.txt").read_text(encoding="utf-8")

    assert list(test.columns) == ["document", "start", "end", "fact", "kind", "told_in_train"]
    years = test[test["kind"] == "year"]
    assert len(years) > 100
    for row in years.itertuples():
        record, field = row.fact.split(".")
        assert text[row.start : row.end] == str(records[record].values[field])
    spans = train["fact"].value_counts()
    assert (train["told_in_train"] >= train["fact"].map(spans)).all()
    untold = test[test["told_in_train"] == 0]
    assert 0 < len(untold) < len(test)
    assert not set(untold["fact"]) & set(train["fact"])


def test_readers_who_know_more_pay_less(folder):
    for split in ("train", "validation", "test"):
        table = pd.read_parquet(folder / f"{split}.references.parquet")
        assert (table["knows_grammar_and_facts"] > 0).all()
        assert (table["knows_grammar_and_facts"] <= table["has_read_train"]).all()
        assert (table["has_read_train"] < table["knows_grammar"]).all()
        if split == "train":
            assert (table["knows_grammar_and_facts"] == table["has_read_train"]).all()


def test_even_a_small_town_has_every_kind_of_article_in_every_split(gazetteer):
    kinds = {}
    for split, articles in gazetteer.splits.items():
        kinds[split] = {article.facts[0].fact.split("-")[0] for article in articles}
        assert len(articles) >= 30

    assert kinds["train"] == kinds["validation"] == kinds["test"]
    assert len(kinds["train"]) == len(gazetteer.knowledge.kinds)


def test_no_article_stands_in_two_splits(gazetteer):
    texts = Counter(article.text for split in gazetteer.splits.values() for article in split)

    assert max(texts.values()) == 1


def test_the_settings_are_returned_for_print(tmp_path):
    printed = write_gazetteer(
        tmp_path, seed=1, people=PEOPLE, held_out=HELD_OUT, register="letters"
    )

    assert printed["register"] == "letters"
    assert printed["test_documents"] >= 30
    assert 0 < printed["test_facts_told_in_train"] < 1


def test_an_unknown_register_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown register 'verse'; known are articles, letters"):
        compose(seed=1, people=PEOPLE, held_out=HELD_OUT, register="verse")


def test_too_few_people_are_refused():
    with pytest.raises(ValueError, match="people must be at least 60, got 10"):
        compose(seed=1, people=10, held_out=HELD_OUT)
