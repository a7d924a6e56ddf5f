import importlib
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml

from knnlm.plan.sizes import model_size, queries, tokens
from knnlm.plan.texts import require_bytes
from knnlm.runtime.experiments import read_experiments, with_experiments
from knnlm.runtime.relations import check_relations
from knnlm.runtime.settings import SettingsError, deep_merge, resolve

ROOT = Path(__file__).parents[2]
CONFIG, SCHEMA = with_experiments(
    yaml.safe_load((ROOT / "config.yaml").read_text()),
    yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text()),
    read_experiments(ROOT).values(),
)
CHECKED = [path.parent.name for path in (ROOT / "scripts/knnlm/experiments").glob("*/checks.py")]


def settings_of(**command_line):
    settings = resolve(CONFIG, command_line, SCHEMA)
    check_relations(settings)
    for name in set(CHECKED) & set(settings["experiments"]):
        importlib.import_module(f"knnlm.experiments.{name}.checks").check(settings)
    return settings


def test_the_scale_wins_over_the_defaults():
    assert settings_of()["models"]["base"]["layers"] == 2
    assert settings_of(scale="gpu")["models"]["base"]["layers"] == 12


def test_the_command_line_wins_over_the_scale():
    settings = settings_of(scale="paper", corpus="gazetteer", models={"base": {"layers": 2}})

    assert settings["corpus"] == "gazetteer"
    assert settings["models"]["base"]["layers"] == 2
    assert settings["models"]["base"]["width"] == 1024


def test_the_run_is_named_after_scale_and_corpus_unless_the_user_names_it():
    assert settings_of(corpus="wikitext-2")["run"] == "cpu-wikitext-2"
    assert settings_of(run="my-idea")["run"] == "my-idea"


def test_a_model_takes_over_what_it_does_not_set_itself():
    base, longer = (settings_of()["models"][name] for name in ("base", "longer"))

    assert longer["training"].pop("tokens") == 2 * base["training"].pop("tokens")
    assert longer.pop("extends") == "base"
    assert longer == base


def test_a_town_takes_over_what_it_does_not_set_itself():
    town = {"villagers_per_count": 45, "names": {"source": "folder", "path": "names"}}

    macondo = settings_of(scale="paper", macondo={"towns": {"small": town}})["macondo"]

    shared = {key: value for key, value in macondo.items() if key != "towns"}
    assert macondo["towns"]["small"] == shared | town
    assert macondo["towns"]["gpt2"] == shared | {"child_names": "existing", "tokenizer": "gpt2"}
    assert shared["villagers_per_count"] == 100


@pytest.mark.parametrize("scale", ["gpu", "paper"])
def test_a_town_of_existing_names_is_made_for_the_tokenizer_of_those_who_learn_it(scale):
    settings = settings_of(scale=scale)

    learned = 0
    for name in settings["overspecification"]["compare"]:
        fine_tuning = settings["fine_tunings"][name]
        town = settings["macondo"]["towns"][fine_tuning["town"]]
        if town["child_names"] == "existing":
            learned += 1
            # GPT-2 XL has the tokenizer of GPT-2.
            assert fine_tuning["init"].removesuffix("-xl") == town["tokenizer"]
    assert learned


def test_a_mapping_of_another_kind_is_replaced_whole():
    low = {"optimizer": {"name": "adamw", "lr": 1, "betas": [0.9, 0.98]}}

    merged = deep_merge(low, {"optimizer": {"name": "nesterov", "lr": 2}})

    assert merged == {"optimizer": {"name": "nesterov", "lr": 2}}
    assert deep_merge(low, {"optimizer": {"lr": 2}})["optimizer"]["betas"] == [0.9, 0.98]


def test_the_paper_scale_holds_the_published_settings():
    settings = settings_of(scale="paper")
    model, training = settings["models"]["base"], settings["models"]["base"]["training"]

    assert (model["layers"], model["width"], model["ffn_width"]) == (16, 1024, 4096)
    assert model["context"] == 3072
    assert model["dropout"] == {"residual": 0.3, "attention": 0.1, "activation": 0.1}
    assert settings["tokenizers"]["own"]["vocabulary_size"] == 33_344
    updates = training["tokens"] // (
        training["batch_size"] * training["accumulation"] * model["context"]
    )
    assert updates == 286_000
    assert training["optimizer"]["name"] == "nesterov"
    assert training["schedule"]["name"] == "cosine_restarts"
    assert training["clip_norm"] == 0.1
    assert settings["search"]["k"] == 1024
    assert settings["baseline"]["published"]["lmbda"] == 0.25
    ivfpq = settings["indexes"]["ivfpq"]
    assert (ivfpq["n_centroids"], ivfpq["code_bytes"], ivfpq["n_probes"]) == (4096, 64, 32)


BAD = {
    "unknown scale": ({"scale": "huge"}, r"unknown scale 'huge'; known scales: cpu, gpu, paper"),
    "unknown corpus": ({"corpus": "ptb"}, r"corpus: unknown name 'ptb'; known corpora: gazetteer"),
    "unknown key": ({"lambda": 0.3}, r"the config: unknown key 'lambda'; known: "),
    "unknown nested key": (
        {"search": {"kay": 3}},
        r"search: unknown key 'kay'; known: block_queries, k,",
    ),
    "unknown model": (
        {"datastores": {"base": {"model": "gpt5"}}},
        r"datastores\.base\.model: unknown name 'gpt5'; known models: base, .*longer",
    ),
    "unknown datastore": (
        {"baseline": {"datastore": "x"}},
        r"baseline\.datastore: unknown name 'x'; known datastores: .*base",
    ),
    "unknown control": (
        {"baseline": {"control": {"datastore": "x"}}},
        r"baseline\.control\.datastore: unknown name 'x'; known datastores: .*base, .*longer",
    ),
    "control of a seed that no LM has": (
        {"baseline": {"control": {"seeds": [0, 7]}}},
        r"baseline\.control\.seeds: expected some of lm_seeds, .*, got 7",
    ),
    "seed given twice": (
        {"lm_seeds": [1, 1]},
        r"lm_seeds: expected each value once, got 1 more than once",
    ),
    "no patience": (
        {"models": {"base": {"training": {"early_stopping": {"patience": 0}}}}},
        r"early_stopping\.patience: expected a number at least 1, got 0",
    ),
    "early stopping by no tokens": (
        {"models": {"base": {"training": {"validation_tokens": 0}}}},
        r"models\.base\.training\.validation_tokens",
    ),
    "unknown index": (
        {"baseline": {"indexes": ["hnsw"]}},
        r"baseline\.indexes\.0: unknown name 'hnsw'; "
        r"known indexes: exact, exact_ip, fused, ivf_flat, ivfpq",
    ),
    "curves of an index without a row": (
        {"baseline": {"index": "exact", "indexes": ["ivfpq"]}},
        r"baseline\.index: expected one of baseline\.indexes, ivfpq, got 'exact'",
    ),
    "unknown engine": (
        {"indexes": {"mine": {"engine": "hnsw"}}},
        r"indexes\.mine\.engine .*"
        r"expected one of \['exact', 'fused', 'ivf_flat', 'ivfpq'\], got 'hnsw'",
    ),
    "setting of another engine": (
        {"indexes": {"exact": {"n_probes": 3}}},
        r"indexes\.exact: unknown key 'n_probes'; known: engine, metric",
    ),
    "text for a number": (
        {"models": {"base": {"layers": "four"}}},
        r"models\.base\.layers: expected integer, got 'four'",
    ),
    "YAML float that is a string": (
        {"models": {"base": {"training": {"optimizer": {"lr": "1e-3"}}}}},
        r"optimizer\.lr: expected number, got '1e-3'; write floats as 1\.0e-3",
    ),
    "nested value on the command line": (
        {"search": "{k: 5}"},
        r"search .*expected object, got '\{k: 5\}'.*overlay file with --configfile",
    ),
    "below range": ({"search": {"k": 0}}, r"search\.k: expected a number at least 1, got 0"),
    "above range": (
        {"baseline": {"published": {"lmbda": 1.5}}},
        r"published\.lmbda .*below 1, got 1\.5",
    ),
    "negative temperature": (
        {"baseline": {"published": {"temperature": -1}}},
        r"published\.temperature .*above 0, got -1",
    ),
    "no seeds": ({"lm_seeds": []}, r"lm_seeds"),
    "unknown corpus source": (
        {"corpora": {"mine": {"source": "web"}}},
        r"corpora\.mine\.source .*'gazetteer', 'hub', 'local', 'part'\], got 'web'",
    ),
    "local corpus without a path": (
        {"corpora": {"mine": {"source": "local"}}},
        r"corpora\.mine: missing key 'path'",
    ),
    "unknown site": (
        {"datastores": {"base": {"site": "embedding"}}},
        r"datastores\.base\.site .*expected one of .*got 'embedding'",
    ),
    "stride beyond the context": (
        {"datastores": {"base": {"stride": 129}}},
        r"datastores\.base\.stride: expected at most the context of model 'base', 128 tokens",
    ),
    "query stride beyond the context": (
        {"queries": {"stride": 129}},
        r"queries\.stride: expected at most the context",
    ),
    "k of the experiment beyond k of the search": (
        {"search": {"k": 512}},
        r"search\.k: expected at least 1024, the largest k of the baseline, got 512",
    ),
    "tokenizer too small": (
        {"tokenizers": {"own": {"vocabulary_size": 100}}},
        r"tokenizers\.own\.vocabulary_size .*at least 257, got 100",
    ),
    "pretrained tokenizer without a name": (
        {"tokenizers": {"gpt2": {"source": "pretrained"}}},
        r"tokenizers\.gpt2: missing key 'model'",
    ),
    "model that extends nothing known": (
        {"models": {"third": {"extends": "fourth", "training": {"tokens": 5}}}},
        r"models\.third\.extends: expected one of models .* got 'fourth'",
    ),
    "model without sizes": (
        {"models": {"third": {"source": "trained", "tokenizer": "own", "context": 8}}},
        r"models\.third: missing key 'layers', 'width', .*'training' .* that it `extends`",
    ),
    "model without a whole training": (
        {"models": {"third": {**CONFIG["models"]["base"], "training": {"tokens": 5}}}},
        r"models\.third\.training: missing key 'batch_size', .* that it `extends`",
    ),
    "model that starts from nothing known": (
        {"models": {"third": {"extends": "base", "starts_from": "fourth"}}},
        r"models\.third\.starts_from: unknown name 'fourth'; known models: base, .*longer,",
    ),
    "models that start from each other": (
        {"models": {"base": {"starts_from": "longer"}, "longer": {"starts_from": "base"}}},
        r"models\.base\.starts_from: expected a model whose own training does not start from "
        r"this one, got base -> longer -> base; leave starts_from out of one",
    ),
    "model that starts from one of another shape": (
        {"models": {"third": {"extends": "base", "starts_from": "narrow"}}},
        r"models\.third\.starts_from: expected a model with the width of this one, 64, got "
        r"'narrow' with 32; let models\.third extend narrow",
    ),
    "model that starts from one of another tokenizer": (
        {
            "tokenizers": {"small": {"source": "trained", "vocabulary_size": 1024}},
            "models": {"third": {"extends": "base", "starts_from": "base", "tokenizer": "small"}},
        },
        r"models\.third\.starts_from: expected a model with the tokenizer of this one, 'small', "
        r"got 'base' with 'own'",
    ),
    "model that starts from a pretrained one": (
        {
            "models": {
                "gpt2": {"source": "pretrained", "model": "gpt2", "context": 128},
                "third": {"extends": "base", "starts_from": "gpt2"},
            }
        },
        r"models\.third\.starts_from: expected a trained model, got 'gpt2', which is pretrained",
    ),
    "pretrained model that starts from another": (
        {
            "models": {
                "gpt2": {"source": "pretrained", "model": "x", "context": 8, "starts_from": "base"}
            }
        },
        r"models\.gpt2: unknown key 'starts_from'; known: context,",
    ),
    "unknown fine-tuning": (
        {"overspecification": {"compare": ["gpt5"]}},
        r"overspecification\.compare\.0: unknown name 'gpt5'; known fine_tunings: base,",
    ),
    "unknown town": (
        {"fine_tunings": {"base": {"town": "x"}}},
        r"fine_tunings\.base\.town: unknown name 'x'; known macondo\.towns: gpt2, mistral, own",
    ),
    "unknown town of the hurdle": (
        {"mlp_hurdle": {"macondo": {"town": "x"}}},
        r"mlp_hurdle\.macondo\.town: unknown name 'x'; known macondo\.towns",
    ),
    "models compared on towns of two sizes": (
        {
            "macondo": {"towns": {"gpt2": {"villagers_per_count": 3}}},
            "overspecification": {"compare": ["base", "gpt2_random"]},
        },
        r"compare: expected towns of one size, got .* own \(16, 5\), gpt2 \(3, 5\)",
    ),
    "names from a folder without a path": (
        {"macondo": {"names": {"source": "folder"}}},
        r"macondo\.names: missing key 'path'",
    ),
    "model without a tokenizer": (
        {"models": {"third": {"source": "trained", "context": 8}}},
        r"models\.third: missing key 'tokenizer'",
    ),
    "model of an unknown tokenizer": (
        {"models": {"base": {"tokenizer": "x"}}},
        r"models\.base\.tokenizer: unknown name 'x'; known tokenizers: own",
    ),
    "pretrained model with a shape": (
        {"models": {"gpt2": {"source": "pretrained", "model": "gpt2", "context": 8, "layers": 2}}},
        r"models\.gpt2: unknown key 'layers'; known: context, corpus, extends, model, size_gb,",
    ),
    "pretrained model without a window": (
        {"models": {"gpt2": {"source": "pretrained", "model": "gpt2"}}},
        r"models\.gpt2: missing key 'context'",
    ),
    "several seeds of a pretrained baseline": (
        {
            "models": {"gpt2": {"source": "pretrained", "model": "gpt2", "context": 1024}},
            "datastores": {"base": {"model": "gpt2"}},
            "lm_seeds": [0, 1],
        },
        r"lm_seeds: expected one seed, since the pretrained model 'gpt2' is the same for all",
    ),
    "control of another tokenizer": (
        {
            "models": {"gpt2": {"source": "pretrained", "model": "gpt2", "context": 1024}},
            "datastores": {"longer": {"model": "gpt2"}},
        },
        r"baseline\.control\.datastore: expected one of a model with the tokenizer of 'base', own, "
        r"got 'longer' of 'gpt2'",
    ),
    "datastore of an unknown corpus": (
        {"datastores": {"base": {"corpus": "ptb"}}},
        r"datastores\.base\.corpus: unknown name 'ptb'; known corpora: gazetteer",
    ),
    "share of nothing": (
        {"datastores": {"base": {"share": 0}}},
        r"datastores\.base\.share .*above 0, got 0",
    ),
    "share of more than all": (
        {"datastores": {"base": {"share": 1.5}}},
        r"datastores\.base\.share .*at most 1, got 1\.5",
    ),
    "datastores that extend each other": (
        {"datastores": {"a": {"extends": "b"}, "b": {"extends": "a"}}},
        r"datastores\.b\.extends: expected one of datastores that does not extend this one",
    ),
    "metric that there is not": (
        {"indexes": {"exact": {"metric": "cosine"}}},
        r"indexes\.exact\.metric .*one of .* got .cosine",
    ),
    "run that is a path": ({"run": "../elsewhere"}, r"run .*'\.\./elsewhere'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_are_named_with_what_was_expected_and_given(case):
    command_line, message = BAD[case]

    with pytest.raises(SettingsError, match=message):
        settings_of(**command_line)


@pytest.mark.parametrize(("asked", "refused"), [(2000, False), (2001, True)])
def test_a_split_with_fewer_bytes_than_tokens_asked_stops_before_any_job(tmp_path, asked, refused):
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.txt").write_text("word " * 400)
    training = {"early_stopping": {"patience": 3}, "validation_tokens": asked}
    settings = settings_of(
        corpus="mine",
        corpora={"mine": {"source": "local", "path": str(tmp_path), "documents": "lines"}},
        models={"base": {"training": training}},
        experiments=["knn_perplexity"],
    )

    with pytest.raises(SettingsError) if refused else nullcontext() as stopped:
        require_bytes(settings)

    if refused:
        assert re.match(
            r"models\.\w+\.training\.validation_tokens: expected at most as many tokens as the "
            r"validation split of '(mine|part)' has bytes, 2,000, got 2,001",
            str(stopped.value),
        )


def test_entries_that_name_no_corpus_have_the_subject():
    settings = settings_of(
        corpus="wikitext-2", datastores={"other": {"extends": "base", "corpus": "gazetteer"}}
    )

    assert settings["models"]["base"]["corpus"] == "wikitext-2"
    assert settings["tokenizers"]["own"]["corpus"] == "wikitext-2"
    assert settings["datastores"]["base"]["corpus"] == "wikitext-2"
    assert settings["datastores"]["other"]["corpus"] == "gazetteer"


def test_a_pretrained_model_brings_its_own_tokenizer():
    model = {"source": "pretrained", "model": "some/name", "context": 512}

    settings = settings_of(models={"mine": model})

    assert settings["models"]["mine"]["tokenizer"] == "mine"
    assert settings["tokenizers"]["mine"]["model"] == "some/name"
    assert settings["tokenizers"]["mine"]["source"] == "pretrained"


def test_what_extends_the_baseline_follows_it():
    deep = {"deep": {"extends": "base", "site": "output_after_layer_norm"}}

    settings = settings_of(
        datastores={**deep, "x": {"extends": "baseline", "share": 0.5}},
        baseline={"datastore": "deep"},
        experiments=["knn_perplexity"],
    )

    assert settings["datastores"]["x"]["site"] == "output_after_layer_norm"
    assert settings["datastores"]["x"]["share"] == 0.5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shares": {"base": [0.5, 0.2]}}, r"shares.base: expected shares that ascend, up to .* 1"),
        (
            {"shares": {"base": [0.5, 0.8]}, "datastores": {"base": {"share": 0.6}}},
            r"shares.base: expected shares that ascend, up to that of the datastore, 0.6",
        ),
        ({"shares": {"none": [0.5]}}, r"unknown name 'none'; known datastores: .*base,"),
        ({"shares": {"base": [0.5, 1.5]}}, r"shares.base.1: expected a number at most 1, got 1.5"),
        (
            {"corpora": {"half": {"source": "part", "of": "part", "share": 0.5, "seed": 0}}},
            r"corpora.half.of: expected a corpus that is no part itself, got 'part'",
        ),
        ({"corpus": "part"}, r"corpora.part.of: expected a corpus that is no part itself"),
    ],
)
def test_shares_and_parts_that_cannot_be_are_refused(changed, message):
    with pytest.raises(SettingsError, match=message):
        settings_of(**changed)


def test_a_share_with_fewer_entries_than_k_is_refused_before_any_job():
    settings = settings_of(shares={"part": [0.001, 1.0]})

    with pytest.raises(SettingsError, match=r"search.k in shares.part: expected .*1,024,001"):
        require_bytes(settings)
    require_bytes(settings | {"experiments": ["knn_perplexity"]})


def test_a_part_is_of_the_subject_unless_it_says_more():
    assert settings_of()["corpora"]["part"]["of"] == "gazetteer"
    assert settings_of(corpus="wikitext-2")["corpora"]["part"]["of"] == "wikitext-2"
    named = {"half": {"source": "part", "of": "wikitext-2", "share": 0.5, "seed": 0}}
    assert settings_of(corpora=named)["corpora"]["half"]["of"] == "wikitext-2"


def test_the_further_trained_lm_of_more_data_takes_about_the_flops_of_the_retrieval():
    for scale in ("cpu", "gpu", "paper"):
        settings = settings_of(scale=scale)
        model, store = settings["models"]["part"], settings["datastores"]["part"]
        size, context = model_size(settings, "part"), model["context"]
        entries = tokens(settings, settings["corpus"], "own", "train")
        asked = sum(
            queries(settings, "part", settings["corpus"], split) for split in ("validation", "test")
        )
        read = entries * context / min(store["stride"], context)
        retrieval = size.forward(read, span=context) + 2 * asked * entries * size.width
        trained = settings["models"]["part_further"]["training"]["tokens"]
        training = 3 * size.forward(trained, span=context, scored=trained)
        assert training == pytest.approx(retrieval, rel=0.1), scale
