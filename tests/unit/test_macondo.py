import hashlib
import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from knnlm.text.macondo.names import NamePool, eligible_child_names
from knnlm.text.macondo.town import SPLITS, count_children, generate_macondo, write_macondo
from knnlm.text.macondo.villagers import CLAUSES, draw_villagers

ONSETS, VOWELS = "BDFGKLMNPRSTV", "aeiou"
GIVEN = tuple(f"{a}{b}{c}{d}" for a in ONSETS for b in VOWELS for c in "lmnr" for d in VOWELS)
SURNAMES = tuple(f"{a}{b}sson" for a in ONSETS for b in VOWELS)
# Some surnames are given names as well, as in the real lists.
POOL = NamePool("made up", GIVEN, SURNAMES + GIVEN[:20], (1.0,) * (len(SURNAMES) + 20))

LARGE_GIVEN = tuple(f"{name}{end}" for name in GIVEN for end in ("", "s", "t", "k"))
LARGE_POOL = NamePool("made up", LARGE_GIVEN, SURNAMES, (1.0,) * len(SURNAMES))
# Start of the SHA-256 of the training sentences of `small_town`; another value is another dataset.
PINNED = "988368fb4ef4"

towns = st.builds(
    lambda seed, villagers_per_count, max_children: generate_macondo(
        seed=seed,
        villagers_per_count=villagers_per_count,
        max_children=max_children,
        names=POOL,
        child_names=GIVEN,
    ),
    seed=st.integers(0, 2**32),
    villagers_per_count=st.integers(2, 6),
    max_children=st.integers(1, 5),
)


def small_town(**changes):
    arguments = {
        "seed": 0,
        "villagers_per_count": 4,
        "max_children": 3,
        "names": POOL,
        "child_names": GIVEN,
    }
    return generate_macondo(**{**arguments, **changes})


def large_town():
    return small_town(
        villagers_per_count=100, max_children=5, names=LARGE_POOL, child_names=LARGE_GIVEN
    )


def single_children(n_villagers, *, seed=0, names=LARGE_POOL):
    return draw_villagers(
        seed=seed, family_sizes=[1] * n_villagers, names=names, child_names=LARGE_GIVEN
    )


@given(seed=st.integers(0, 2**32), villagers_per_count=st.integers(1, 6), n=st.integers(2, 5))
@settings(max_examples=20, deadline=None)
def test_each_family_size_has_as_many_villagers(seed, villagers_per_count, n):
    town = small_town(seed=seed, villagers_per_count=villagers_per_count, max_children=n)

    sizes = town.villagers["children"].map(len)
    assert sizes.tolist() == town.villagers["n_children"].tolist()
    assert sizes.value_counts().to_dict() == dict.fromkeys(range(1, n + 1), villagers_per_count)
    assert len(town.examples) == sizes.sum()
    assert len(town.examples) == count_children(
        villagers_per_count=villagers_per_count, max_children=n
    )


def test_the_paper_has_500_villagers_and_1500_examples():
    town = large_town()

    assert (len(town.villagers), len(town.examples)) == (500, 1500)


@given(town=towns)
@settings(max_examples=20, deadline=None)
def test_villagers_and_children_have_names_of_their_own(town):
    villagers, children = town.villagers, town.examples["child"].tolist()

    assert villagers["villager"].is_unique
    assert len(set(children)) == len(children)
    parts = {part for name in villagers["villager"] for part in name.split()}
    assert not parts & set(children)
    assert (villagers["given_name"] != villagers["surname"]).all()
    assert (villagers["villager"] == villagers["given_name"] + " " + villagers["surname"]).all()


@given(town=towns)
@settings(max_examples=20, deadline=None)
def test_years_follow_the_paper(town):
    birth, marriage = town.villagers["birth_year"], town.villagers["marriage_year"]

    assert birth.between(1800, 2005).all()
    assert marriage.between(1800, 2023).all()
    assert (marriage - birth >= 18).all()


def test_the_last_possible_years_are_reached():
    villagers = single_children(2000)

    assert (villagers["birth_year"].min(), villagers["birth_year"].max()) == (1800, 2005)
    assert (villagers["marriage_year"] - villagers["birth_year"]).min() == 18
    assert villagers["marriage_year"].max() == 2023


@given(town=towns)
@settings(max_examples=20, deadline=None)
def test_a_friend_is_another_villager(town):
    assert set(town.villagers["friend"]) <= set(town.villagers["villager"])
    assert (town.villagers["friend"] != town.villagers["villager"]).all()


def test_anyone_else_can_be_a_friend():
    friends = set()
    for seed in range(100):
        villagers = single_children(3, seed=seed)
        places = dict(zip(villagers["villager"], range(3), strict=True))
        friends |= set(enumerate(villagers["friend"].map(places)))

    assert friends == {(a, b) for a in range(3) for b in range(3) if a != b}


@given(town=towns)
@settings(max_examples=20, deadline=None)
def test_sentences_are_the_templates_filled_with_the_villagers_own_attributes(town):
    villagers = town.villagers.set_index("villager_id").to_dict("index")
    for example in town.examples.to_dict("records"):
        villager = villagers[example["villager_id"]]
        name, child = villager["villager"], example["child"]
        assert child in villager["children"]
        assert example["n_children"] == len(villager["children"])
        assert example["test"] == f"{name}, is the parent of {child}"
        for split in ("train", "validation"):
            attribute = example[f"{split}_attribute"]
            clause = CLAUSES[attribute].format(villager[attribute])
            assert example[split] == f"{name}, who {clause}, is the parent of {child}"


def test_six_attributes_of_which_three_are_worded_as_in_the_paper():
    assert len(CLAUSES) == 6
    assert CLAUSES["birth_year"].format(1850) == "was born in 1850"
    assert CLAUSES["friend"].format("Bala Lee") == "was a friend of Bala Lee"
    assert CLAUSES["marriage_year"].format(1870) == "married in 1870"


@given(town=towns)
@settings(max_examples=20, deadline=None)
def test_spans_hold_the_child(town):
    for example in town.examples.to_dict("records"):
        for split in SPLITS:
            start, end = example[f"{split}_start"], example[f"{split}_end"]
            assert example[split][start:end] == example["child"]


@given(town=towns)
@settings(max_examples=20, deadline=None)
def test_no_sentence_of_another_split_stands_in_the_training_text(town):
    training_text = "\n".join(town.examples["train"])

    for split in ("test", "validation"):
        assert not any(sentence in training_text for sentence in town.examples[split])


@given(town=towns)
@settings(max_examples=20, deadline=None)
def test_a_held_out_attribute_is_told_of_no_child_of_the_villager(town):
    for _, family in town.examples.groupby("villager_id"):
        assert not set(family["train_attribute"]) & set(family["validation_attribute"])


def test_every_attribute_is_drawn_about_equally_often():
    town = large_town()

    counts = town.examples["train_attribute"].value_counts()
    # 250 of 1,500 expected, standard deviation 14.4: five of them either way.
    assert set(counts.index) == set(CLAUSES)
    assert counts.between(178, 322).all()


@pytest.mark.parametrize("attribute", ["trade", "keepsake"])
def test_articles_agree(attribute):
    values = single_children(500)[attribute]

    assert values.str.fullmatch(r"an [aeiou][a-z ]+|a [^aeiou][a-z ]+").all()


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for folder in ("once", "again"):
        write(tmp_path / folder, seed=3)
    write(tmp_path / "other", seed=4)

    once, again, other = (contents(tmp_path / name) for name in ("once", "again", "other"))
    assert once == again
    assert once.keys() == other.keys()
    assert not any(once[file] == other[file] for file in once)


def test_the_town_of_a_seed_never_changes():
    text = "\n".join(small_town().examples["train"])

    assert hashlib.sha256(text.encode()).hexdigest().startswith(PINNED)


def test_the_order_of_the_child_names_does_not_matter():
    pd.testing.assert_frame_equal(
        small_town().examples, small_town(child_names=GIVEN[::-1]).examples
    )


def test_children_spare_the_surnames_while_they_can():
    only_given = len(GIVEN) - 20

    town = draw_villagers(
        seed=0, family_sizes=[5] * (only_given // 5), names=POOL, child_names=GIVEN
    )

    assert not {child for family in town["children"] for child in family} & set(GIVEN[:20])


def test_surnames_are_drawn_by_weight():
    names = NamePool("made up", LARGE_GIVEN, ("Rare", "Common"), (1.0, 9.0))

    drawn = single_children(1000, names=names)

    # 900 expected, standard deviation 9.5: five of them either way.
    assert 852 <= (drawn["surname"] == "Common").sum() <= 948


def byte_level_bpe(words):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(["is the parent of", *words])], trainer)
    return tokenizer


def word_level(words):
    vocabulary = ["[UNK]", ",", "is", "the", "parent", "of", *words]
    tokenizer = Tokenizer(
        models.WordLevel(dict(zip(vocabulary, range(len(vocabulary)), strict=True)), "[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


@pytest.mark.parametrize("build", [byte_level_bpe, word_level])
def test_existing_child_names_are_one_token_of_the_sentence(build):
    tokenizer = build(GIVEN[::3])
    eligible = eligible_child_names(
        GIVEN, child_names="existing", needed=24, encode=lambda text: tokenizer.encode(text).ids
    )

    examples = small_town(child_names=eligible).examples

    tokens = []
    for sentence, start in zip(examples["test"], examples["test_start"], strict=True):
        encoded = tokenizer.encode(sentence)
        # The tokens that reach into the name; the first may include the space before it.
        name = [
            id_ for id_, (_, end) in zip(encoded.ids, encoded.offsets, strict=True) if end > start
        ]
        assert len(name) == 1
        tokens += name
    assert len(set(tokens)) == len(examples)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"villagers_per_count": 0}, "expected at least 2 villagers"),
        ({"villagers_per_count": 1, "max_children": 1}, "got 1 villagers with"),
        ({"max_children": 6}, r"with 1 to 5 children .* got 24 villagers"),
        ({"child_names": GIVEN[:23] * 2}, "24 children need as many distinct names, got 23"),
        (
            {"names": NamePool("few", GIVEN[:30], SURNAMES[:1], (1.0,)), "child_names": GIVEN[:24]},
            "12 villagers need as many distinct full names, found 6 among 6 given names and 1",
        ),
        (
            {
                "names": NamePool("few", GIVEN[:24], SURNAMES, (1.0,) * 65),
                "child_names": GIVEN[:24],
            },
            "found 0 among 0 given names",
        ),
    ],
)
def test_sizes_and_names_that_cannot_be_met_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small_town(**changes)


def write(folder, seed=0):
    write_macondo(
        folder, seed=seed, villagers_per_count=4, max_children=3, names=POOL, child_names=GIVEN
    )


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_files_hold_the_town(tmp_path):
    town = small_town()

    write(tmp_path)

    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "examples.parquet"), town.examples)
    for split in SPLITS:
        lines = (tmp_path / f"{split}.txt").read_text().splitlines()
        assert lines == town.examples[split].tolist()
        json_lines = (tmp_path / f"{split}.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in json_lines]
        assert [record["text"] for record in records] == lines
        for record in records:
            assert record["text"][record["child_start"] : record["child_end"]] == record["child"]
            assert (record["attribute"] is None) == (split == "test")
    villagers = pd.read_parquet(tmp_path / "villagers.parquet")
    assert villagers["children"].map(list).tolist() == town.villagers["children"].tolist()
    assert list(villagers.columns)[-6:] == list(CLAUSES)


def test_the_first_version_has_a_bare_and_an_over_specified_training_set(tmp_path):
    write(tmp_path)

    files = contents(tmp_path)
    for suffix in ("txt", "jsonl"):
        assert files[f"v1/train.{suffix}"] == files[f"test.{suffix}"]
        assert files[f"v2/train.{suffix}"] == files[f"train.{suffix}"]


def test_the_card_counts_what_the_files_hold(tmp_path):
    write(tmp_path)

    card = (tmp_path / "README.md").read_text()
    assert "| villagers | 12 |" in card
    assert "| children, and sentences of each split | 24 |" in card
    told = pd.read_parquet(tmp_path / "examples.parquet")["train_attribute"]
    assert f"| training sentences with trade | {(told == 'trade').sum()} |" in card
    assert "Names: made up." in card
