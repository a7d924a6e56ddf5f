# What a corpus is made of: files, or another corpus. No rules.


def files_of_corpus(wildcards):
    """Return the files of a local corpus, so that an edited text is seen; others have none."""
    folder = config["corpora"][wildcards.corpus].get("path")
    return sorted(map(str, Path(folder).glob("*.txt"))) if folder else []


def whole_of_part(wildcards):
    """Return the text of the corpus that a corpus is a part of, by the name of the input."""
    entry = config["corpora"][wildcards.corpus]
    return {"whole": f"{RESULTS}/corpora/{entry['of']}/text"} if "of" in entry else {}
