"""Corpora: three splits of text, cut into documents, from a generator, a folder or elsewhere."""

from pathlib import Path
from typing import Any

from knnlm.runtime.artifacts import identity
from knnlm.runtime.full_disk import named_if_full
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.making import Target, making
from knnlm.runtime.seeds import numpy_generator
from knnlm.text.documents import (
    SPLITS,
    describe_split,
    document_offsets,
    read_documents,
    read_lines,
    write_documents,
    write_split,
)
from knnlm.text.gazetteer.corpus import write_gazetteer
from knnlm.text.hub import dataset_lines, fetch_dataset

LOCAL_FILES = {  # WikiText and fairseq write "valid"
    "train": ("train.txt",),
    "validation": ("validation.txt", "valid.txt"),
    "test": ("test.txt",),
}


def build_corpus(
    target: Target, *, corpus: dict[str, Any], cache: Path, whole: Path | None = None
) -> None:
    """Write a text artifact: {split}.txt and {split}.documents.npy for the three splits.

    Args:
        target: the artifact; messages call the corpus by its name there.
        corpus: its block in the config; `source` is gazetteer, hub, local or part.
        cache: where downloads stay.
        whole: the text artifact of the corpus that a part is of.

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
    made_from = {} if whole is None else {"text": identity(whole, kind="text")}
    with making(target, kind="text", made_from=made_from, settings=corpus) as made:
        with named_if_full(made.folder):
            write = SOURCES[corpus["source"]]
            made.contents["source"] = write(made.folder, name, corpus, whole or cache)
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


def _from_part(folder: Path, name: str, corpus: dict[str, Any], whole: Path) -> dict[str, Any]:
    """Write a seeded part of the train documents of another corpus, in its order, and the rest."""
    every = len(document_offsets(whole, "train")) - 1
    order = numpy_generator(corpus["seed"], "part").permutation(every)
    chosen = {*order[: round(corpus["share"] * every)].tolist()}
    for split in SPLITS:
        kept = (
            document
            for number, document in enumerate(read_documents(whole, split))
            if split != "train" or number in chosen
        )
        write_documents(folder, split, kept)
    return {"train_documents": [len(chosen), every]}


def _origin(name: str, corpus: dict[str, Any], split: str) -> str:
    """Return what messages call a split: its file, or the corpus and the split."""
    if corpus["source"] == "local":
        return str(local_files(Path(corpus["path"]))[split])
    return f"{name} {split}"


SOURCES = {
    "gazetteer": _from_gazetteer,
    "hub": _from_hub,
    "local": _from_local,
    "part": _from_part,
}


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
