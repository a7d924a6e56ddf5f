# Which parts a datastore, its indexes and their neighbors have: docs/scaling.md. No rules.

from knnlm.plan.retrieval import INVERTED_FILES


def every_part(folder):
    """Return an input function: every part of a datastore in a folder named by wildcards."""

    def of(wildcards):
        count = config["datastores"][wildcards.datastore]["parts"]
        root = f"results/{config['run']}/parts/{folder.format(**dict(wildcards))}"
        return [f"{root}/part{number}" for number in range(count)]

    return of


def with_index(files):
    """Return an input function: some files, but none for an engine that has no index on disk."""

    def of(wildcards):
        engine = config["indexes"][wildcards.index]["engine"]
        return files(wildcards) if engine in INVERTED_FILES else []

    return of


def trained_index(wildcards):
    """Return the trained index of the wildcards, which holds no key yet, as a list of one."""
    root = f"results/{config['run']}/parts/indexes"
    return [f"{root}/{wildcards.datastore}/seed{wildcards.seed}/{wildcards.index}/trained"]


def datastore_of_index(wildcards):
    """Return the datastore of an index as a list of one; the fused engine has none."""
    if config["indexes"][wildcards.index]["engine"] == "fused":
        return []
    return [f"results/{config['run']}/datastores/{wildcards.datastore}/seed{wildcards.seed}"]


def with_engine(*engines):
    """Return the pattern of the names of indexes with one of some engines."""
    names = [name for name, index in config["indexes"].items() if index["engine"] in engines]
    return "|".join(names) or "(?!)"  # which matches nothing
