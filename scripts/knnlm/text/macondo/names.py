"""Names: where villagers and children get theirs, and which of them are one token.

Chiang et al. (2023), Appendix B.1, take given names from the lists of Mark Kantrowitz and surnames
from FiveThirtyEight's most common ones. Those lists are read from a folder or downloaded; the
default needs neither and takes the names that the package `faker` carries.
"""

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pooch
from faker.providers.person.en import Provider as EnglishPersons
from faker.providers.person.en_US import Provider as AmericanPersons

GIVEN_NAME_FILES = ("kantrowitz-male.txt", "kantrowitz-female.txt")
SURNAME_FILE = "fivethirtyeight-surnames.csv"
# "Dee Dee", "Jo-Ann" and "E'Lane" are left out: a name is one word, so that no name hides in
# another one.
ONE_WORD = re.compile(r"[A-Z][A-Za-z]+")
# No vocabulary holds it: if it gets one token all the same, that is the unknown one.
NO_WORD = "Qzxvkjwq"
DOWNLOAD_TIMEOUT = 10  # seconds until a server counts as out of reach


@dataclass(frozen=True)
class NamePool:
    """Given names, drawn evenly, and surnames, drawn by weight.

    Attributes:
        source: where the names come from, for the dataset card.
        given: distinct, sorted.
        surnames: distinct, sorted.
        surname_weights: one for each surname, above 0; they need not add up to 1.
    """

    source: str
    given: tuple[str, ...]
    surnames: tuple[str, ...]
    surname_weights: tuple[float, ...]


def load_names(*, source: str, folder: Path, sources: Path) -> NamePool:
    """Return the names of one source.

    Args:
        source: `faker` (offline), `folder` (the lists lie in `folder`) or `download` (into it).
        folder: where the lists lie or go; `faker` does not look at it.
        sources: the table of downloads, data/sources.csv.

    Raises:
        ValueError: if the source is unknown, or its lists are missing, foreign or out of reach.
    """
    if source == "faker":
        return faker_names()
    if source == "folder":
        return folder_names(folder)
    if source == "download":
        download_names(folder, sources=sources)
        return folder_names(folder)
    raise ValueError(f"names must come from faker, folder or download, got {source!r}")


def faker_names() -> NamePool:
    """Return faker's English given names and its American surnames with their weights.

    The provider's lists are read, no generator is asked: same release, same names.
    """
    weights = dict(AmericanPersons.last_names.items())
    surnames = _one_word_names(weights)
    return NamePool(
        source=f"faker {version('faker')}, locales en (given names) and en_US (surnames), MIT",
        given=_one_word_names(EnglishPersons.first_names),
        surnames=surnames,
        surname_weights=tuple(float(weights[name]) for name in surnames),
    )


def folder_names(folder: Path) -> NamePool:
    """Return the paper's names from a folder with Kantrowitz's and FiveThirtyEight's lists.

    The paper samples surnames "randomly" from the list, read here as evenly: the shares of the
    population that the list gives are not used.

    Args:
        folder: holds kantrowitz-male.txt and kantrowitz-female.txt (a name a line, lines with #
            are comments) and fivethirtyeight-surnames.csv (column `name`, upper case).

    Raises:
        ValueError: if a file is missing or is not such a list.
    """
    for file in (*GIVEN_NAME_FILES, SURNAME_FILE):
        if not (folder / file).is_file():
            raise ValueError(
                f"{folder} has no {file}; put the lists there (data/sources.csv says from where), "
                "or set the source of names to download or faker"
            )
    given = [name for file in GIVEN_NAME_FILES for name in _listed_names(folder / file)]
    surnames = _one_word_names(_surnames(folder / SURNAME_FILE))
    return NamePool(
        source=(
            "given names by Mark Kantrowitz (free use with credit), surnames by FiveThirtyEight "
            "(CC BY 4.0)"
        ),
        given=_one_word_names(given),
        surnames=surnames,
        surname_weights=(1.0,) * len(surnames),
    )


def download_names(folder: Path, *, sources: Path) -> None:
    """Download the paper's lists into a folder; what is there already is only checked.

    Args:
        folder: made if it is missing.
        sources: CSV with the columns file, url, sha256 and sha256_of: "file" for the checksum of
            the bytes, "names" for that of `name_bytes`.

    Raises:
        ValueError: if a server is out of reach or a checksum is not the one of the table.
    """
    with sources.open(newline="", encoding="utf-8") as lines:
        rows = {row["file"]: row for row in csv.DictReader(lines)}
    for file in (*GIVEN_NAME_FILES, SURNAME_FILE):
        if file not in rows:
            raise ValueError(f"{sources} has no row for {file}; add its url and sha256")
        row, url = rows[file], rows[file]["url"]
        try:
            pooch.retrieve(
                url,
                known_hash=None,  # checked below, with words on what to do
                fname=file,
                path=folder,
                downloader=pooch.HTTPDownloader(timeout=DOWNLOAD_TIMEOUT),
            )
        except OSError as error:  # the errors of requests, which pooch uses, are of this kind
            raise ValueError(
                f"could not download {file} from {url} ({type(error).__name__}); put the file into "
                f"{folder} by hand, or set the source of names to faker"
            ) from error
        of_names = row["sha256_of"] == "names"
        content = name_bytes(folder / file) if of_names else (folder / file).read_bytes()
        checksum = hashlib.sha256(content).hexdigest()
        if checksum != row["sha256"]:
            raise ValueError(
                f"expected {folder / file} from {url} to have the sha256 {row['sha256']} (of its "
                f"{'names' if of_names else 'bytes'}), got {checksum}; remove it and try again, or "
                "take lists that you trust: put them into a folder under the names in "
                "data/sources.csv and set names to {source: folder, path: that folder}"
            )


def name_bytes(path: Path) -> bytes:
    """Return what matters of a list of names: the distinct ones, sorted, each with a line end.

    Comments, blank lines, line ends and order differ between copies of Kantrowitz's lists; the
    towns that are drawn from them do not depend on any of that.

    Raises:
        ValueError: if the file is no list of names.
    """
    return "".join(f"{name}\n" for name in sorted(set(_listed_names(path)))).encode()


def eligible_child_names(
    names: Sequence[str],
    *,
    child_names: str,
    needed: int,
    encode: Callable[[str], list[int]],
    before: str = "is the parent of ",
) -> list[str]:
    """Return the names that children may have under the setting `child_names`.

    Args:
        names: distinct candidates.
        child_names: `added` (any name: the caller appends the drawn ones to the vocabulary) or
            `existing` (only names that already are one token).
        needed: number of children.
        encode: as in `single_token_names`; not called for `added`.
        before: as in `single_token_names`.

    Raises:
        ValueError: if the setting is unknown or too few names are left.
    """
    if child_names == "existing":
        return single_token_names(names, encode, needed=needed, before=before)
    if child_names != "added":
        raise ValueError(f"child_names must be added or existing, got {child_names!r}")
    if len(names) < needed:
        raise ValueError(
            f"{needed} children need as many names, got {len(names)}; take a larger source of "
            "names or fewer villagers"
        )
    return list(names)


def single_token_names(
    names: Iterable[str],
    encode: Callable[[str], list[int]],
    *,
    needed: int,
    before: str = "is the parent of ",
) -> list[str]:
    """Return the names that the tokenizer writes as one token of their own, in the given order.

    Chiang et al. (2023), Section 4.2: each child has a single-token name. A name qualifies if it
    adds exactly one token to the text before it, so the space belongs where the tokenizer puts
    it: into the token (byte-level BPE, SentencePiece) or nowhere (word level). The unknown token
    is nobody's name, and of names that share a token only the first is kept.

    Args:
        names: distinct candidates.
        encode: text to token ids, without special tokens.
        needed: number of children.
        before: the text before the name, with its space; "" if the name begins the text.

    Raises:
        ValueError: if fewer names qualify than are needed.
    """
    context = encode(before.rstrip(" "))
    taken = set(encode(before + NO_WORD)[len(context) :])
    kept = []
    tried = 0
    for name in names:
        tried += 1
        tokens = encode(before + name)
        is_one_token = len(tokens) == len(context) + 1 and tokens[:-1] == context
        if is_one_token and tokens[-1] not in taken:
            taken.add(tokens[-1])
            kept.append(name)
    if len(kept) < needed:
        raise ValueError(
            f"{needed} children need names of a single token, found {len(kept)} among {tried} "
            "names; set child_names to added, or take fewer villagers"
        )
    return kept


def _one_word_names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({name for name in names if ONE_WORD.fullmatch(name)}))


def _listed_names(path: Path) -> list[str]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    names = [line for line in lines if line and not line.startswith("#")]
    # A server's error page passes for a text file, but not for a list of names.
    foreign = next((name for name in names if not re.fullmatch(r"[A-Za-z' -]+", name)), None)
    if foreign is not None or not names:
        raise ValueError(
            f"{path} is not a list with one name a line, got {foreign or 'no name'!r}; "
            "remove it and download it again"
        )
    return names


def _surnames(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as lines:
        names = [row.get("name") for row in csv.DictReader(lines)]
    if not names or not all(names):
        raise ValueError(
            f"{path} is not a table with a surname in each row of the column name; "
            "remove it and download it again"
        )
    return [name.title() for name in names if name]
