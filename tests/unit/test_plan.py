"""The plan against definitions: parameters, FLOPs, bytes, limits, and what is not known."""

import ast
import json
import re
import sys
from pathlib import Path

import faiss
import pytest
import yaml
from lm_artifacts import MODEL, VOCABULARY
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from knnlm.experiments.shared.flops import forward_flops, window, without_data
from knnlm.lm.model import create_model
from knnlm.plan import pipeline
from knnlm.plan.needs import Need, seconds
from knnlm.plan.resources import NEEDS_OF_RULES, need_of, resources
from knnlm.plan.sizes import (
    INVERTED_FILES,
    UnknownModelError,
    model_size,
    own_size,
    pretrained_size,
    text_bytes,
    tokens,
)
from knnlm.plan.table import Job, exceeded, make_plan, plan, read_jobs
from knnlm.retrieval import datastore, encoder
from knnlm.retrieval.engines import settings as index_settings
from knnlm.runtime.experiments import read_experiments, with_experiments
from knnlm.runtime.fingerprint import import_closure
from knnlm.runtime.settings import deep_merge, resolve

ROOT = Path(__file__).parents[2]
CONFIG, SCHEMA = with_experiments(
    yaml.safe_load((ROOT / "config.yaml").read_text()),
    yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text()),
    read_experiments(ROOT).values(),
)
HARDWARE = yaml.safe_load((ROOT / "data/hardware.yaml").read_text())
CPU, H100 = HARDWARE["cpu"], HARDWARE["h100"]
LENGTH = 8
WILDCARDS = {
    "corpus": "gazetteer",
    "tokenizer": "own",
    "model": "base",
    "datastore": "base",
    "index": "ivfpq",
    "split": "test",
    "seed": "0",
    "part": "0",
    "town": "own",
    "fine_tuning": "base",
    "head": "random",
    "control": "last_layers",
    "last_layers": "f_g",
}
GROWS_WITH_TOKENS = {
    "build_corpus", "train_tokenizer", "tokenize_corpus", "build_datastore_part",
    "encode_index_part", "search_part", "search_fused_part", "search_neighbors",
    "search_nested_shares", "train_mlp_replacement", "continue_language_model",
    "train_output_embeddings",
    "find_train_distributions",
}  # fmt: skip
GROWS_WITH_WIDTH = {
    "train_language_model", "score_queries", "score_continued", "build_datastore_part",
    "fetch_language_model", "train_index", "encode_index_part", "search_part",
    "search_fused_part", "search_nested_shares", "train_mlp_replacement", "continue_language_model",
    "project_distributions", "project_on_heads", "finetune_macondo", "train_macondo_mlp",
    "finetune_conversational", "train_output_embeddings", "find_train_distributions",
}  # fmt: skip
# MB of the largest job of more than 10 s of each rule, in the runs of docs/measurements/plan.md.
PEAKS = {
    "build_datastore_part": 645, "continue_language_model": 775, "encode_index_part": 589,
    "finetune_conversational": 629, "finetune_macondo": 701, "project_distributions": 769,
    "project_on_heads": 769, "score_continued": 641, "score_queries": 646, "search_part": 1012,
    "train_hurdle_macondo": 672, "train_hurdle_text": 750, "train_index": 537,
    "train_language_model": 792, "train_macondo_mlp": 774, "train_mlp_replacement": 901,
    "train_output_embeddings": 647, "find_train_distributions": 568,
}  # fmt: skip
LARGEST = {
    "search_part": {"index": "ivf_flat"}, "train_language_model": {"model": "wide"},
    "finetune_conversational": {"fine_tuning": "base_chat"},
}  # fmt: skip
# A Llama of 135M parameters, as SmolLM2 has it.
LLAMA = {
    "model_type": "llama", "max_position_embeddings": 8192,
    "vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
}  # fmt: skip


def wildcards_of(rule, **changes):
    return WILDCARDS | ({"index": "fused"} if rule == "search_fused_part" else {}) | changes


def settings_of(**changes):
    return resolve(deep_merge(CONFIG, changes), changes, SCHEMA)


def with_folder(folder, *, scale="cpu", **changed):
    """Settings with a pretrained model as an LM, in a datastore, and in a fine-tuning."""
    model = {"source": "pretrained", "model": str(folder), "context": 1024, **changed}
    tuned = CONFIG["fine_tunings"]["gpt2_lr5e-5"] | {"init": str(folder), "town": "own", **changed}
    return settings_of(
        scale=scale,
        models={"mine": model},
        datastores={"mine": {"extends": "base", "model": "mine"}},
        fine_tunings={"mine": tuned},
    )


@pytest.fixture
def llama(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    return tmp_path


def job(rule="search_part", **wildcards):
    return Job(rule, wildcards_of(rule, **wildcards), 1, {})


@pytest.mark.parametrize("tied", [True, False])
def test_size_of_our_model_has_the_parameters_of_its_matrices_and_its_flops(tied):
    settings = MODEL | {"tied_embeddings": tied}
    model = create_model(settings, vocabulary_size=VOCABULARY, seed=0)

    size = own_size(settings, VOCABULARY)

    assert size.parameters == sum(p.numel() for p in model.parameters() if p.ndim > 1)
    counted = size.forward(LENGTH, span=LENGTH, scored=LENGTH)
    assert counted == forward_flops(without_data(model), **window(LENGTH))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_size_of_a_pretrained_model_is_that_of_its_weights(tmp_path, family, tied):
    if family == "gpt2":
        config = GPT2Config(
            vocab_size=50, n_embd=16, n_layer=3, n_head=2, n_positions=8, tie_word_embeddings=tied
        )
        model, positions = GPT2LMHeadModel(config), 8 * 16
    else:
        config = LlamaConfig(
            vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied,
        )  # fmt: skip
        model, positions = LlamaForCausalLM(config), 0
    model.save_pretrained(tmp_path)

    size = pretrained_size(str(tmp_path), None)

    matrices = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert size.parameters == matrices - positions
    assert (size.layers, size.width, size.vocabulary) == (3, 16, 50)


def test_size_of_a_model_of_the_hub_is_read_from_its_cache(tmp_path, monkeypatch):
    snapshot = tmp_path / "models--some--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(LLAMA))
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    assert pretrained_size("some/model", None).parameters == pytest.approx(134.5e6, rel=0.01)
    with pytest.raises(UnknownModelError, match=r"another/model has no config\.json"):
        pretrained_size("another/model", None)


def test_a_llama_of_135_million_parameters_needs_a_few_gb_and_minutes(llama):
    config = with_folder(llama)

    needs = {
        rule: need_of(config, rule, wildcards_of(rule, fine_tuning="mine", model="mine"))
        for rule in ("finetune_macondo", "fetch_language_model", "score_queries")
    }

    tuning = needs["finetune_macondo"]
    # 3,365 MB were measured: docs/measurements/plan.md
    assert 3.365e9 / 2 < tuning.process_memory(config) < 3.365e9 * 2
    assert seconds(H100, tuning) < 60 * 10
    assert 0.5e9 < needs["fetch_language_model"].process_memory(config) < 3e9
    assert 1e9 < needs["score_queries"].process_memory(config) < 3e9
    assert not any(need.unknown for need in needs.values())


def test_a_training_that_starts_from_other_weights_reads_them_too():
    started = {"extends": "base", "starts_from": "base"}
    config = settings_of(models={"started": started, "again": {"extends": "base"}})

    started, again = (
        need_of(config, "train_language_model", {"model": name, "seed": "0"})
        for name in ("started", "again")
    )

    assert started.memory - again.memory == 4 * model_size(config, "base").parameters
    assert (started.flops, started.disk) == (again.flops, again.disk)


@pytest.mark.parametrize("rule", sorted(PEAKS))
def test_planned_memory_is_within_a_factor_of_2_of_what_a_run_took(rule):
    config = settings_of()

    need = need_of(config, rule, wildcards_of(rule, **LARGEST.get(rule, {})))

    assert PEAKS[rule] / 2 < need.process_memory(config) / 1e6 < PEAKS[rule] * 2


@pytest.mark.parametrize(
    ("rule", "index", "gpu"),
    [
        ("finetune_macondo", "exact", 1),
        ("build_datastore_part", "exact", 1),
        ("train_index", "ivfpq", 0),
    ],
)
def test_what_is_not_known_asks_for_the_default_and_the_table_says_so(tmp_path, rule, index, gpu):
    config = with_folder(tmp_path / "nothing", scale="paper")
    wildcards = wildcards_of(rule, fine_tuning="mine", datastore="mine", index=index)
    asked = resources(config, H100, longest=None, gpus={})

    assert asked["mem_mb"](wildcards, attempt=1, rulename=rule) == (6000 if gpu else 1000)
    assert asked["runtime"](wildcards, threads=1, attempt=1, rulename=rule) == 10
    assert asked["gpu"](wildcards, rulename=rule) == gpu
    (reason, _) = plan(config, [Job(rule, wildcards, 1, {})], H100, {})["unknown"]
    assert "nothing has no config.json here that can be read, and no size_gb is set" in reason


def test_the_size_of_a_model_that_cannot_be_read_is_a_setting(tmp_path, llama):
    known = need_of(with_folder(llama), "finetune_macondo", wildcards_of("", fine_tuning="mine"))
    config = with_folder(tmp_path / "nothing", size_gb=0.538)

    said = need_of(config, "finetune_macondo", wildcards_of("", fine_tuning="mine"))

    assert not said.unknown
    assert said.gpu_memory == pytest.approx(known.gpu_memory, rel=0.3)


def test_the_published_datastore_has_its_published_size():
    config = settings_of(scale="paper")
    count = config["datastores"]["base"]["parts"]
    where = {**WILDCARDS, "corpus": "wikitext-103"}
    parts = [{**where, "part": str(number)} for number in range(count)]
    needs = [need_of(config, "build_datastore_part", part) for part in parts]

    assert tokens(config, "wikitext-103", "own", "train") == 153_225_485
    assert sum(need.disk for need in needs) == 153_225_484 * (2 * 1024 + 2)
    assert max(need.disk for need in needs) < 1.2 * min(need.disk for need in needs)


@pytest.mark.parametrize(("index", "bytes_of_a_key"), [("ivf_flat", 4 * 1024), ("ivfpq", 64)])
def test_an_inverted_file_is_in_memory_whole_when_a_part_is_searched(index, bytes_of_a_key):
    config = settings_of(scale="paper")
    entries = 153_225_484 / config["datastores"]["base"]["parts"]

    memory = {
        name: need_of(config, "search_part", wildcards_of("", corpus="wikitext-103", index=name))
        for name in (index, "exact")
    }

    lists = 1.5 * entries * (bytes_of_a_key + 8)
    assert memory[index].memory - memory["exact"].memory == pytest.approx(lists, rel=0.1)
    assert memory["exact"].gpu
    assert not memory[index].gpu


@pytest.mark.parametrize("metric", ["scores_mib", "keys_mib"])
def test_gpu_memory_of_an_exact_search_is_its_slice_of_keys_and_its_scores(metric):
    few, many = (
        need_of(
            settings_of(scale="paper", search={metric: mib}),
            "search_part",
            wildcards_of("", corpus="wikitext-103", index="exact"),
        ).gpu_memory
        for mib in (1024, 2048)
    )

    assert many - few == (3 if metric == "scores_mib" else 1) * (1 << 30)


def test_gpu_memory_of_a_training_is_sixteen_bytes_a_parameter_and_a_pass():
    config = settings_of(scale="paper")
    need = need_of(config, "train_language_model", wildcards_of("", corpus="wikitext-103"))

    assert 16 * 247e6 < need.gpu_memory < 80e9
    assert need.process_memory(config) < need.gpu_memory


def test_a_fine_tuning_of_seven_billion_parameters_does_not_fit_without_adapters(tmp_path):
    mistral = {
        "model_type": "mistral", "max_position_embeddings": 32_768,
        "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 14_336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(mistral))
    config, tuned = with_folder(tmp_path, scale="paper"), CONFIG["fine_tunings"]["mistral_lr5e-5"]
    with_lora = {"mine": {**tuned, "init": str(tmp_path), "town": "mistral"}}

    whole, adapted = (
        exceeded(plan(c, [job("finetune_macondo", fine_tuning="mine")], H100, {}), H100)
        for c in (config, settings_of(scale="paper", fine_tunings=with_lora))
    )

    assert "GB of memory of a GPU, not 80.0" in whole[0]
    assert adapted == ["  nothing exceeds them"]


def test_half_of_a_datastore_has_half_of_the_bytes():
    whole, half = (
        need_of(settings_of(datastores={"base": {"share": s}}), "build_datastore_part", WILDCARDS)
        for s in (1.0, 0.5)
    )

    assert half.disk == pytest.approx(whole.disk / 2, rel=0.01)


def test_fewer_queries_are_fewer_neighbors():
    config = settings_of(datastores={"base": {"queries": 100}})

    need = need_of(config, "search_neighbors", wildcards_of("", index="exact"))

    assert need.disk == 100 * config["search"]["k"] * (8 + 4 + 4)


def test_a_text_of_ones_own_has_the_size_of_its_files(tmp_path):
    (tmp_path / "train.txt").write_text("x" * 1234)
    (tmp_path / "valid.txt").write_text("x" * 56)
    mine = {"source": "local", "path": str(tmp_path), "documents": "headings"}
    config = settings_of(corpus="mine", corpora={"mine": mine})

    assert text_bytes(config, "mine", "train") == 1234
    assert text_bytes(config, "mine", "validation") == 56


@pytest.mark.parametrize("rule", sorted(GROWS_WITH_TOKENS))
def test_more_text_is_more_work_and_more_bytes(rule):
    few, many = (
        need_of(
            settings_of(corpora={"gazetteer": {"people": n}}, queries={"tokens": None}),
            rule,
            wildcards_of(rule),
        )
        for n in (1400, 14_000)
    )

    assert many.flops >= 2 * few.flops
    assert many.memory + many.gpu_memory >= few.memory + few.gpu_memory


@pytest.mark.parametrize("rule", sorted(GROWS_WITH_WIDTH))
def test_a_wider_model_is_more_work(rule):
    narrow, wide = (
        need_of(settings_of(models={"base": {"width": n}}), rule, wildcards_of(rule))
        for n in (128, 512)
    )

    assert wide.flops >= 2 * narrow.flops
    assert wide.memory + wide.gpu_memory > narrow.memory + narrow.gpu_memory


@pytest.mark.parametrize("scale", ["cpu", "gpu", "paper"])
@pytest.mark.parametrize("rule", sorted(NEEDS_OF_RULES))
def test_every_rule_asks_for_whole_numbers_and_for_more_in_a_retry(rule, scale):
    config = settings_of(scale=scale)
    asked = resources(config, CPU, longest=None, gpus={})
    wildcards = wildcards_of(rule)

    more = {"mem_mb": {}, "runtime": {"threads": 1}}
    for name, given in more.items():
        first, second = (asked[name](wildcards, attempt=n, rulename=rule, **given) for n in (1, 2))
        assert isinstance(first, int)
        assert 0 < first < second
    assert asked["disk_mb"](wildcards, rulename=rule) > 0
    gpu = asked["gpu"](wildcards, rulename=rule)
    assert gpu == int(NEEDS_OF_RULES[rule](config, wildcards).gpu and scale != "cpu")


def test_every_function_is_named_as_a_rule():
    rules = "".join(path.read_text() for path in (ROOT / "workflow").rglob("*.smk"))

    assert set(NEEDS_OF_RULES) <= set(re.findall(r"^rule (\w+)", rules, re.MULTILINE))


def test_no_job_asks_for_more_minutes_than_a_scheduler_allows():
    asked = resources(settings_of(scale="paper"), H100, longest=1440, gpus={})["runtime"]
    options = {"threads": 8, "attempt": 1}

    assert asked(WILDCARDS, rulename="train_language_model", **options) == 1440
    assert asked(WILDCARDS, rulename="build_macondo", **options) == 10


def test_several_gpus_share_a_training_and_nothing_else():
    config = settings_of(scale="paper")
    alone, shared = (
        plan(config, [job(rule) for rule in ("train_language_model", "score_queries")], H100, asked)
        for asked in ({}, {"train_language_model": 8, "score_queries": 8})
    )

    assert alone["hours"][0] > 4 * shared["hours"][0]
    assert alone["hours"][1] == shared["hours"][1]
    assert list(shared["gpu"]) == [8, 1, 8]  # the largest in all
    assert "asks for 8 GPUs, not 2" in "\n".join(exceeded(shared, {**H100, "gpu": 2}))


def test_what_the_snakefile_imports_in_every_job_is_standard_library():
    modules = [ROOT / "scripts/knnlm/plan/resources.py"]
    modules += sorted((ROOT / "scripts/knnlm/experiments").glob("*/needs.py"))
    names = set()
    for path in import_closure(modules, ROOT / "scripts"):
        for node in ast.parse(path.read_text()).body:  # but for a look into the cache of the hub
            if isinstance(node, ast.ImportFrom):
                names.add(node.module.split(".")[0])
            elif isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}

    assert names <= sys.stdlib_module_names | {"knnlm"}


def test_numbers_that_the_plan_cannot_import_are_those_of_the_library():
    faiss_index = faiss.IndexIVFPQ(faiss.IndexFlatL2(2), 2, 1, 1, index_settings.CODE_BITS)

    assert INVERTED_FILES == index_settings.INVERTED_FILES
    assert pipeline.SLICE_BYTES == datastore.SLICE_BYTES
    assert pipeline.TOKENS_A_BATCH == encoder.TOKENS_A_BATCH
    assert faiss_index.pq.ksub == pipeline.CODES
    assert max(faiss_index.cp.niter, faiss_index.pq.cp.niter) == pipeline.KMEANS_ROUNDS


def test_sums_and_largest_of_the_jobs_of_a_rule():
    config = settings_of(datastores={"base": {"parts": 2}})
    jobs = [job("build_datastore_part", part=part) for part in "01"] + [job("claims")]

    table = plan(config, jobs, CPU, {}).set_index("rule")

    each = [need_of(config, one.rule, one.wildcards) for one in jobs[:2]]
    row = table.loc["build_datastore_part"]
    assert row["jobs"] == 2
    assert row["disk_gb"] == pytest.approx(sum(need.disk for need in each) / 1e9)
    assert row["longest_hours"] == pytest.approx(max(seconds(CPU, need) for need in each) / 3600)
    assert table.loc["total", "jobs"] == 3


def test_what_exceeds_a_limit_is_named_with_both_numbers(monkeypatch):
    need = Need(memory=3e9, disk=2e9, flops=50e9 * 595)
    monkeypatch.setattr("knnlm.plan.table.need_of", lambda *_: need)
    planned = plan(settings_of(), [job("a", seed="7")], CPU, {})

    limits = {"mem_mb": 1000, "disk_mb": 1000, "runtime": 3}
    text = "\n".join(exceeded(planned, {**CPU, **limits}))

    assert "a needs 3.5 GB of memory, not 1.0" in text
    assert "a takes 0.2 h, not 0.1: 3 retries go on" in text  # 3 + 3 + 3 + 1 minutes
    assert "all artifacts need 2.0 GB of disk, not 1.0" in text
    assert exceeded(planned, CPU) == ["  nothing exceeds them"]


def test_hardware_has_a_name_in_the_list(tmp_path):
    asked = {"snakefile": ROOT / "Snakefile", "resources": {"hardware": "cray"}, "asked": {}}

    with pytest.raises(ValueError, match="expected hardware among cpu, h100, h200, got 'cray'"):
        make_plan(tmp_path / "plan.csv", settings_of(), hardware=HARDWARE, **asked)


def test_jobs_are_read_with_their_wildcards_and_requests():
    printed = """[Fri Nov 27 00:56:29 2026]
rule search:
    input: a/b, c
    output: d
    benchmark: e.tsv
    wildcards: index=exact, seed=0
    threads: 4
    resources: tmpdir=/tmp, mem_mb=100
[Fri Nov 27 00:56:29 2026]
localrule all:
    input: d
"""

    (found,) = read_jobs(printed)

    assert (found.rule, found.threads) == ("search", 4)
    assert found.wildcards == {"index": "exact", "seed": "0"}
    assert found.printed["resources"] == "tmpdir=/tmp, mem_mb=100"
    assert found.printed["benchmark"] == "e.tsv"
    with pytest.raises(ValueError, match="expected the text of a dry run"):
        read_jobs("nothing")
