import csv
import hashlib
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from knnlm.text.macondo.names import (
    eligible_child_names,
    faker_names,
    load_names,
    name_bytes,
    single_token_names,
)

LISTS = {
    "kantrowitz-male.txt": "# List of names\n\nAbe\nGale \nMcKay\n",
    "kantrowitz-female.txt": "Dee Dee\r\nJo-Ann\r\nE'Lane\r\nGale\r\nZoe\r\n",
    "fivethirtyeight-surnames.csv": '"","name","perct2013"\n"1","SMITH",0.008\n"2","LEE",0.002\n',
}
ROOT = Path(__file__).parents[2]
REAL_LISTS = ROOT.parent / "shared" / "data" / "names"  # where the tests of CI find them


@pytest.fixture
def lists(tmp_path):
    for file, text in LISTS.items():
        (tmp_path / file).write_text(text, newline="")
    return tmp_path


def word_level(words):
    tokenizer = Tokenizer(
        models.WordLevel(dict(zip(words, range(len(words)), strict=True)), unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return lambda text: tokenizer.encode(text).ids


def byte_level_bpe(text, vocab_size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def from_folder(folder):
    return load_names(source="folder", folder=folder, sources=ROOT / "data" / "sources.csv")


def test_faker_gives_distinct_one_word_names_in_one_order():
    pool = faker_names()

    # Counted in the release that the lock pins.
    assert (len(pool.given), len(pool.surnames)) == (6824, 1000)
    assert list(pool.given) == sorted(set(pool.given))
    assert list(pool.surnames) == sorted(set(pool.surnames))
    assert all(name.isalpha() for name in pool.given + pool.surnames)


def test_faker_surnames_keep_their_weights():
    pool = faker_names()

    weights = dict(zip(pool.surnames, pool.surname_weights, strict=True))
    assert max(weights, key=weights.get) == "Smith"  # the most common surname of the country
    assert min(weights.values()) > 0


def test_lists_are_read_without_comments_blanks_and_names_of_several_words(lists):
    pool = from_folder(lists)

    assert pool.given == ("Abe", "Gale", "McKay", "Zoe")
    assert pool.surnames == ("Lee", "Smith")
    assert pool.surname_weights == (1.0, 1.0)


@pytest.mark.parametrize("file", LISTS)
def test_a_missing_list_is_named(lists, file):
    (lists / file).unlink()

    with pytest.raises(ValueError, match=f"has no {file}; put the lists there"):
        from_folder(lists)


@pytest.mark.parametrize("text", ["<html>404 Not Found</html>", ""])
@pytest.mark.parametrize("file", LISTS)
def test_a_page_of_a_server_is_not_taken_for_a_list(lists, file, text):
    (lists / file).write_text(text)

    with pytest.raises(ValueError, match=rf"{file} is not a .*; remove it and download it again"):
        from_folder(lists)


def test_an_unknown_source_is_refused(tmp_path):
    with pytest.raises(ValueError, match="faker, folder or download, got 'phone book'"):
        load_names(source="phone book", folder=tmp_path, sources=tmp_path)


class Files(BaseHTTPRequestHandler):
    def do_GET(self):
        body = LISTS[self.path.strip("/")].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=[0.01])  # seconds
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


# Of the names in LISTS: sorted, without comments and blank lines, with \n.
CHECKSUMS = {
    "kantrowitz-male.txt": (sha256("Abe\nGale\nMcKay\n"), "names"),
    "kantrowitz-female.txt": (sha256("Dee Dee\nE'Lane\nGale\nJo-Ann\nZoe\n"), "names"),
    "fivethirtyeight-surnames.csv": (sha256(LISTS["fivethirtyeight-surnames.csv"]), "file"),
}


def write_sources(path, url, *, wrong=None):
    rows = ["file,url,sha256,sha256_of\n"]
    for file, (checksum, of) in CHECKSUMS.items():
        rows.append(f"{file},{url}/{file},{'0' * 64 if file == wrong else checksum},{of}\n")
    path.write_text("".join(rows))
    return path


def test_downloaded_lists_are_those_of_the_server(server, tmp_path, lists):
    sources = write_sources(tmp_path / "sources.csv", server)

    pool = load_names(source="download", folder=tmp_path / "downloads", sources=sources)

    assert pool == from_folder(lists)


@pytest.mark.parametrize(
    ("file", "what"),
    [("kantrowitz-female.txt", "names"), ("fivethirtyeight-surnames.csv", "bytes")],
)
def test_a_list_with_another_checksum_is_refused_with_the_way_out(server, tmp_path, file, what):
    sources = write_sources(tmp_path / "sources.csv", server, wrong=file)

    message = rf"have the sha256 0{{64}} \(of its {what}\), got [0-9a-f]{{64}}; remove it and "
    with pytest.raises(ValueError, match=message + r"try again, or .*\{source: folder, path"):
        load_names(source="download", folder=tmp_path / "downloads", sources=sources)


def test_a_name_more_or_less_changes_the_checksum_and_a_comment_does_not(lists):
    path = lists / "kantrowitz-male.txt"
    before = name_bytes(path)

    path.write_text("Gale\r\n\r\n# another header\r\nMcKay\r\nAbe\r\n", newline="")
    same = name_bytes(path)
    path.write_text("Gale\nMcKay\n#Abe\n")

    assert same == before
    assert name_bytes(path) != before


def test_a_server_out_of_reach_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # Nothing listens at port 9, the old discard service.
    sources = write_sources(tmp_path / "sources.csv", "http://127.0.0.1:9")

    with pytest.raises(ValueError, match=r"could not download .* set the source of names to faker"):
        load_names(source="download", folder=tmp_path / "downloads", sources=sources)


def test_the_table_of_sources_has_a_row_for_each_list():
    lines = (ROOT / "data" / "sources.csv").read_text().splitlines()

    assert lines[0] == "dataset,file,revision,url,sha256,sha256_of,license,notes"
    for file in LISTS:
        assert sum(f",{file}," in line for line in lines) == 1


def test_every_source_is_pinned_by_a_checksum():
    with (ROOT / "data" / "sources.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))

    assert all(re.fullmatch("[0-9a-f]{64}", row["sha256"]) for row in rows)
    assert {row["sha256_of"] for row in rows} == {"names", "file"}


@pytest.mark.skipif(not REAL_LISTS.is_dir(), reason="copies of the real lists are not here")
def test_the_checksums_are_those_of_the_real_lists(tmp_path):
    for file in LISTS:  # what is there already is checked, not fetched
        shutil.copy(REAL_LISTS / file, tmp_path / file)

    pool = load_names(source="download", folder=tmp_path, sources=ROOT / "data" / "sources.csv")

    assert len(pool.given) == 7539
    assert len(pool.surnames) == 100


def test_word_level_names_are_the_known_words():
    encode = word_level(["[UNK]", "is", "the", "parent", "of", "Rosa", "Omar"])

    assert single_token_names(["Rosa", "Ines", "Omar"], encode, needed=2) == ["Rosa", "Omar"]


def test_the_unknown_token_is_nobodys_name():
    encode = word_level(["[UNK]", "is", "the", "parent", "of", "Rosa"])

    assert single_token_names(["Ines", "Rosa"], encode, needed=1) == ["Rosa"]


def test_of_names_that_share_a_token_the_first_is_kept():
    words = ["[UNK]", "is", "the", "parent", "of", "deann"]
    encode = word_level(words)

    def in_lower_case(text):
        return encode(text.lower())

    assert single_token_names(["DeAnn", "Deann"], in_lower_case, needed=1) == ["DeAnn"]


def test_byte_level_names_are_those_whose_token_fits_the_text_before_them():
    text = "is the parent of Rosa, is the parent of Omar, (Ines), " * 9
    tokenizer = byte_level_bpe(text, vocab_size=300)

    def encode(text):
        return tokenizer.encode(text).ids

    names = ["Rosa", "Ines", "Omar", "Rosalind"]
    # After a space the token has to include it; at the start of a text it must not.
    assert single_token_names(names, encode, needed=2) == ["Rosa", "Omar"]
    assert single_token_names(names, encode, needed=1, before="") == ["Ines"]


def test_too_few_single_token_names_say_how_many_and_what_to_do():
    encode = word_level(["[UNK]", "is", "the", "parent", "of", "Rosa"])

    message = (
        "3 children need names of a single token, found 1 among 2 names; "
        "set child_names to added, or take fewer villagers"
    )
    with pytest.raises(ValueError, match=message):
        single_token_names(iter(["Rosa", "Ines"]), encode, needed=3)


def test_added_names_need_no_tokenizer_and_existing_ones_do():
    encode = word_level(["[UNK]", "is", "the", "parent", "of", "Rosa"])
    names = ["Rosa", "Ines"]

    added = eligible_child_names(names, child_names="added", needed=2, encode=None)
    existing = eligible_child_names(names, child_names="existing", needed=1, encode=encode)

    assert added == ["Rosa", "Ines"]
    assert existing == ["Rosa"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [("added", "3 children need as many names, got 2"), ("invented", "must be added or existing")],
)
def test_a_setting_of_child_names_that_cannot_be_met_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        eligible_child_names(["Rosa", "Ines"], child_names=setting, needed=3, encode=None)
