"""Corpora: three splits of text, cut into documents, from a generator, the hub or a folder."""

from pathlib import Path
from typing import Any

from knnlm.runtime.full_disk import named_if_full
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.making import Target, making
from knnlm.text.documents import SPLITS, describe_split, read_lines, write_split
from knnlm.text.gazetteer.corpus import write_gazetteer
from knnlm.text.hub import dataset_lines, fetch_dataset

LOCAL_FILES = {  # WikiText and fairseq write "valid"
    "train": ("train.txt",),
    "validation": ("validation.txt", "valid.txt"),
    "test": ("test.txt",),
}


def build_corpus(target: Target, *, corpus: dict[str, Any], cache: Path) -> None:
    """Write a text artifact: {split}.txt and {split}.documents.npy for the three splits.

    Args:
        target: the artifact; messages call the corpus by its name there.
        corpus: its block in the config; `source` is gazetteer, hub or local.
        cache: where downloads stay.

    Raises:
        ValueError: if the source cannot be reached, or a split is missing, empty, too short, not
            UTF-8 or without the headings that should cut it.
    """
    name = target.names["corpus"]
    if corpus["source"] not in SOURCES:
        raise ValueError(
            f"expected corpora.{name}.source to be one of {', '.join(SOURCES)}, "
            f"got {corpus['source']!r}"
        )
    with making(target, kind="text", made_from={}, settings=corpus) as made:
        with named_if_full(made.folder):
            made.contents["source"] = SOURCES[corpus["source"]](made.folder, name, corpus, cache)
        for split in SPLITS:
            found = describe_split(made.folder, split, origin=_origin(name, corpus, split))
            made.contents[split] = found
            LOGGER.info("%s %s: %s", name, split, found)


def _from_gazetteer(folder: Path, name: str, corpus: dict[str, Any], cache: Path) -> dict[str, Any]:
    names = ("seed", "people", "held_out", "register")
    return write_gazetteer(folder, **{name: corpus[name] for name in names})


def _from_hub(folder: Path, name: str, corpus: dict[str, Any], cache: Path) -> dict[str, Any]:
    configuration = corpus["configuration"]
    fetched = fetch_dataset(
        corpus["repository"], name=configuration, revision=corpus["revision"], cache=cache
    )
    for split in SPLITS:
        lines = dataset_lines(fetched, name=configuration, split=split)
        origin = _origin(name, corpus, split)
        write_split(folder, split, lines, rule=corpus["documents"], origin=origin)
    return {}


def _from_local(folder: Path, name: str, corpus: dict[str, Any], cache: Path) -> dict[str, Any]:
    rule = corpus.get("documents", "headings")
    for split, path in local_files(Path(corpus["path"])).items():
        write_split(folder, split, read_lines(path), rule=rule, origin=str(path))
    return {}


def _origin(name: str, corpus: dict[str, Any], split: str) -> str:
    """Return what messages call a split: its file, or the corpus and the split."""
    if corpus["source"] == "local":
        return str(local_files(Path(corpus["path"]))[split])
    return f"{name} {split}"


SOURCES = {"gazetteer": _from_gazetteer, "hub": _from_hub, "local": _from_local}


def local_files(folder: Path) -> dict[str, Path]:
    """Return the file of each split in a folder of text.

    Raises:
        ValueError: if the folder or a split is missing.
    """
    if not folder.is_dir():
        raise ValueError(
            f"expected a corpus folder with train.txt, validation.txt and test.txt, got {folder}, "
            "which is not a folder; correct `path` in config.yaml (relative paths start at the "
            "folder of the Snakefile)"
        )
    found = {}
    for split, names in LOCAL_FILES.items():
        files = [folder / name for name in names if (folder / name).is_file()]
        if not files:
            present = sorted(path.name for path in folder.iterdir())
            raise ValueError(
                f"expected {folder} to hold {' or '.join(names)}, got {present or 'nothing'}; "
                f"put the {split} text there under that name"
            )
        found[split] = files[0]
    return found
