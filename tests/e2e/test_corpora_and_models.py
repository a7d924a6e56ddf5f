"""One run holds several corpora and models: an LM of one scored on another, and pretrained LMs."""

import json
import shutil

import pandas as pd
import pytest
import yaml
from documents import extending_blocks
from workflow_project import TINY, Project

from knnlm.runtime.artifacts import identity, read_manifest

BLOCKS = extending_blocks()
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def own_tables(project: Project, run: str) -> pd.DataFrame:
    return pd.read_csv(project.folder / f"results/{run}/tables/knn_perplexity.csv")


@pytest.mark.slow
def test_an_lm_of_one_corpus_is_scored_on_another_with_a_datastore_of_it(project):
    overlay = yaml.safe_load(BLOCKS["second_corpus.yaml"])
    overlay["corpora"]["other"]["people"] = 150
    overlay["baseline"] = {"control": None, "indexes": ["exact"]}
    (project.folder / "second.yaml").write_text(yaml.safe_dump(overlay))

    project.snakemake("knn_perplexity", "--configfile", TINY[0].split("=")[1], "second.yaml")

    results = project.folder / "results/second-corpus"
    table = own_tables(project, "second-corpus")
    assert set(table["corpus"]) == {"other"}
    store = read_manifest(results / "datastores/base/seed0", kind="datastore")
    tokens = {name: results / f"corpora/{name}/tokens/own" for name in ("gazetteer", "other")}
    model = read_manifest(results / "models/base/seed0", kind="model")
    assert store["made_from"]["tokens"] == identity(tokens["other"], kind="tokens")
    assert model["made_from"]["tokens"] == identity(tokens["gazetteer"], kind="tokens")
    assert store["made_from"]["model"] == identity(results / "models/base/seed0", kind="model")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_pretrained_lm_takes_the_place_of_a_trained_one(copied, family):
    folder = copied.folder / "models" / family
    write_random_lm(folder, family, tokenizer=copied.folder / "results/tiny/tokenizers/own")
    overlay = yaml.safe_load(BLOCKS["pretrained_lm.yaml"])
    overlay["models"]["mine"] |= {"model": str(folder), "context": 48}
    (copied.folder / "pretrained.yaml").write_text(yaml.safe_dump(overlay))
    shutil.rmtree(copied.folder / "results")

    command = ["--configfile", TINY[0].split("=")[1], "pretrained.yaml"]
    copied.snakemake("knn_perplexity", "results/pretrained/report/explorer.html", *command)
    again = copied.jobs("knn_perplexity", *command)

    table = own_tables(copied, "pretrained")
    perplexity = table[(table["metric"] == "perplexity_per_token") & (table["split"] == "test")]
    assert "control" not in set(table["method"])
    assert perplexity[perplexity["method"] == "lm"]["value"].iloc[0] > 100  # its weights are random
    assert {"lm", "knn_lm"} <= set(perplexity["method"])
    assert not (copied.folder / "results/pretrained/models/base").exists()
    assert again == set()


def write_random_lm(folder, family, *, tokenizer):
    """Write a random LM as `save_pretrained` does, with the files of a tokenizer."""
    import transformers

    vocabulary = json.loads((tokenizer / "manifest.json").read_text())["contents"]
    sizes = {"vocab_size": vocabulary["vocabulary_size"]}
    config = {
        "gpt2": lambda: transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, **sizes),
        "llama": lambda: transformers.LlamaConfig(intermediate_size=64, **SMALL, **sizes),
    }[family]()
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder / name)
