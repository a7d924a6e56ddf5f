"""The plan against definitions: counted FLOPs, parameters, bytes, chains of jobs, and limits."""

import ast
import sys
from pathlib import Path

import faiss
import pytest
import yaml
from lm_artifacts import MODEL, VOCABULARY

from knnlm.experiments.mlp_augmentation.flops import (
    forward_flops,
    update_flops,
    window,
    without_data,
)
from knnlm.lm.model import create_model
from knnlm.plan import retrieval as plan_retrieval
from knnlm.plan.dag import Job, predecessors, read_jobs
from knnlm.plan.models import backward_too, forward
from knnlm.plan.needs import MODELS, Need
from knnlm.plan.report import exceeded
from knnlm.plan.resources import need_of, resources
from knnlm.plan.sizes import parameters, text_bytes, tokens
from knnlm.plan.table import Cluster, Plan, clusters
from knnlm.plan.work import GPU_EFFICIENCY, Machine, Work, product
from knnlm.retrieval import datastore, encoder
from knnlm.retrieval.engines import settings as index_settings
from knnlm.runtime.fingerprint import import_closure
from knnlm.runtime.settings import deep_merge, resolve

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
HARDWARE = yaml.safe_load((ROOT / "data/hardware.yaml").read_text())
NODE, H200 = (Machine.of(name, HARDWARE[name]) for name in ("node", "h200"))
LENGTH = 8
WILDCARDS = {
    "corpus": "gazetteer",
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
GROWS_WITH_TOKENS = [
    "build_corpus",
    "train_tokenizer",
    "tokenize_corpus",
    "build_datastore_part",
    "encode_index_part",
    "search_part",
    "search_fused_part",
    "search_neighbors",
    "train_mlp_replacement",
    "continue_language_model",
]
GROWS_WITH_WIDTH = [
    "train_language_model",
    "score_queries",
    "score_control",
    "build_datastore_part",
    "train_index",
    "encode_index_part",
    "search_part",
    "search_fused_part",
    "train_mlp_replacement",
    "continue_language_model",
    "project_distributions",
    "project_on_heads",
    "finetune_macondo",
    "train_macondo_mlp",
    "finetune_conversational",
]


def wildcards_of(rule):
    return WILDCARDS | ({"index": "fused"} if rule == "search_fused_part" else {})


def settings_of(**changes):
    return resolve(deep_merge(CONFIG, changes), changes, SCHEMA)


def machine(*, rate=1.0, cores=1, memory=1e12, disk=1e12):
    """A machine on which everything takes a second each and a start none."""
    ones = dict.fromkeys(("half", "moved", "exponentials", "operation"), 1.0)
    whole = dict(HARDWARE["node"]) | {"cpu": ones | {"products": {16: rate}}}
    whole |= {"read": 1, "written": 1, "step": 1, "start": 0, "start_torch": 0}
    return Machine.of("m", whole | {"cores": cores, "memory": memory, "disk": disk})


def job(rule, *inputs):
    return Job(rule, {"seed": "0"}, inputs, (f"{rule}.txt",), 1, {})


def planned(seconds, jobs, config):
    """A plan whose jobs take given steps, a second each."""
    plan = Plan(config, jobs, [])
    plan.needs[:] = [Need(work=Work(steps=seconds[one.rule])) for one in jobs]
    return plan


def test_a_forward_pass_has_the_counted_flops():
    model = create_model(MODEL, vocabulary_size=VOCABULARY, seed=0)

    work = forward(MODEL, VOCABULARY, LENGTH, span=LENGTH)

    assert work.flops == forward_flops(without_data(model), **window(LENGTH))
    assert backward_too(work).flops == update_flops(without_data(model), **window(LENGTH))


def test_a_head_on_few_tokens_costs_its_share():
    every, half = (
        forward(MODEL, VOCABULARY, LENGTH, scored=n).flops for n in (LENGTH, LENGTH // 2)
    )

    assert every - half == 2 * MODEL["width"] * VOCABULARY * LENGTH // 2


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_those_of_the_matrices(tied):
    shape = MODEL | {"tied_embeddings": tied}
    model = create_model(shape, vocabulary_size=VOCABULARY, seed=0)

    counted = sum(p.numel() for p in model.parameters() if p.ndim > 1)

    assert parameters(shape, VOCABULARY) == counted


def test_a_second_is_a_unit_of_work_over_its_rate():
    work = Work(
        products={16: 6.0}, moved=1, exponentials=2, operations=3, steps=4, read=5, written=6
    )

    assert machine(rate=2.0).seconds(work) == 3 + 1 + 2 + 3 + 4 + 5 + 6
    assert product(2, 16, 4).flops == 2 * 2 * 16 * 4


def test_threads_divide_work_and_no_more_than_there_are_cores():
    work = Work(moved=180.0)

    assert machine(cores=2).seconds(work, threads=2) == pytest.approx(100)
    assert machine(cores=2).seconds(work, threads=9) == pytest.approx(100)


def test_a_rate_lies_between_those_of_smaller_and_larger_products():
    sides = sorted(HARDWARE["node"]["cpu"]["products"])
    rates = [NODE.cpu.rate(side) for side in (8, *sides, 4096)]

    assert rates == sorted(rates)
    assert NODE.cpu.rate(32) == pytest.approx((NODE.cpu.rate(16) * NODE.cpu.rate(64)) ** 0.5)


def test_the_published_datastore_has_its_published_size():
    config = settings_of(scale="paper")
    count = config["datastores"]["base"]["parts"]
    parts = [{**WILDCARDS, "part": str(number)} for number in range(count)]
    needs = [need_of(config, "build_datastore_part", part) for part in parts]

    assert tokens(config, "train") == 153_225_485
    assert sum(need.disk for need in needs) == 153_225_484 * (2 * 1024 + 2)
    assert max(need.disk for need in needs) < 1.2 * min(need.disk for need in needs)


def test_a_text_of_ones_own_has_the_size_of_its_files(tmp_path):
    (tmp_path / "train.txt").write_text("x" * 1234)
    mine = {"source": "local", "path": str(tmp_path), "documents": "headings"}

    assert text_bytes(settings_of(corpus="mine", corpora={"mine": mine}), "train") == 1234


@pytest.mark.parametrize("rule", GROWS_WITH_TOKENS)
def test_more_text_is_more_work_and_more_bytes(rule):
    few, many = (
        need_of(settings_of(corpora={"gazetteer": {"people": n}}), rule, wildcards_of(rule))
        for n in (1400, 14_000)
    )

    assert NODE.seconds(many.work) > 2 * NODE.seconds(few.work) - NODE.start_torch
    assert many.memory + many.device >= few.memory + few.device


@pytest.mark.parametrize("rule", GROWS_WITH_WIDTH)
def test_a_wider_model_is_more_work(rule):
    narrow, wide = (
        need_of(settings_of(models={"base": {"width": n}}), rule, wildcards_of(rule))
        for n in (128, 512)
    )

    assert wide.work.flops > 2 * narrow.work.flops or rule == "search_neighbors"
    assert NODE.seconds(wide.work) > NODE.seconds(narrow.work)
    assert wide.memory + wide.device > narrow.memory + narrow.device


@pytest.mark.parametrize("scale", ["cpu", "gpu", "paper"])
@pytest.mark.parametrize("rule", sorted(MODELS))
def test_every_rule_asks_for_whole_numbers_and_for_more_in_a_retry(rule, scale):
    config = settings_of(scale=scale)
    asked = resources(config, NODE)

    for name in ("mem_mb", "runtime"):
        first, second = (asked[name](wildcards_of(rule), attempt=n, rulename=rule) for n in (1, 2))
        assert isinstance(first, int)
        assert 0 < first < second
    assert asked["disk_mb"](wildcards_of(rule), rulename=rule) > 0
    gpu = asked["gpu"](wildcards_of(rule), rulename=rule)
    assert gpu == int(MODELS[rule](config, wildcards_of(rule)).gpu and scale != "cpu")


def test_no_job_asks_for_more_minutes_than_a_scheduler_allows():
    asked = resources(settings_of(scale="paper"), NODE, longest=1440)["runtime"]

    assert asked(WILDCARDS, attempt=1, rulename="train_language_model") == 1440
    assert asked(WILDCARDS, attempt=1, rulename="build_macondo") == 10


def test_what_the_snakefile_imports_in_every_job_is_standard_library():
    module = ROOT / "scripts/knnlm/plan/resources.py"
    names = set()
    for path in import_closure([module], ROOT / "scripts"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                names.add(node.module.split(".")[0])
            elif isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}

    assert names <= sys.stdlib_module_names | {"knnlm"}


def test_numbers_that_the_plan_cannot_import_are_those_of_the_library():
    faiss_index = faiss.IndexIVFPQ(faiss.IndexFlatL2(2), 2, 1, 1, index_settings.CODE_BITS)

    assert plan_retrieval.INVERTED_FILES == index_settings.INVERTED_FILES
    assert plan_retrieval.SLICE_BYTES == datastore.SLICE_BYTES
    assert plan_retrieval.TOKENS_A_BATCH == encoder.TOKENS_A_BATCH
    assert faiss_index.pq.ksub == plan_retrieval.CODES
    rounds = {"coarse": faiss_index.cp.niter, "codes": faiss_index.pq.cp.niter}
    assert rounds == plan_retrieval.KMEANS_ROUNDS


def test_a_gpu_is_faster_and_holds_what_a_cpu_holds_in_memory():
    config = settings_of(scale="paper")
    need = need_of(config, "train_language_model", WILDCARDS)

    assert H200.seconds(need.work, gpus=1, half=True) < NODE.seconds(need.work, threads=32) / 20
    assert need.process_memory(on_gpu=True) < need.process_memory(on_gpu=False)


def test_several_gpus_share_a_training_and_nothing_else_and_no_more_than_there_are():
    config = settings_of(scale="paper")
    asked = {"train_language_model": 8, "score_queries": 8}
    jobs = [Job(rule, WILDCARDS, (), (f"{rule}.txt",), 1, {}) for rule in asked]
    plan = Plan(config, jobs, [Cluster(1, H200), Cluster(8, H200)], asked)
    (alone, scoring), (together, scoring_too) = map(plan.seconds, plan.hardware)
    table = plan.table().set_index("rule")

    work = alone - H200.start_torch - plan.needs[0].work.written / H200.written
    assert alone - together == pytest.approx(work * (1 - 1 / (1 + GPU_EFFICIENCY * 7)), rel=0.01)
    assert scoring == scoring_too
    assert plan.gpus == [8, 1]
    assert table.loc["train_language_model", "gpu"] == 8
    assert table.loc["total", "hours_h200"] > table.loc["total", "hours_8 x h200"]
    assert "asks for 8 GPUs, the limit is 2" in "\n".join(exceeded(plan, {"gpu": 2}))


def test_a_longer_training_is_planned_from_the_trunk_of_the_shorter():
    config = settings_of()
    base, longer = (
        need_of(config, "train_language_model", WILDCARDS | {"model": name}).work.flops
        for name in ("base", "longer")
    )

    # 1.8 M tokens less the 0.9 M x 0.7 before the decay, against 0.9 M
    assert longer / base == pytest.approx((1.8 - 0.63) / 0.9, rel=0.01)


def test_the_critical_path_is_the_longest_chain():
    jobs = [job("a"), job("b", "a.txt"), job("c", "a.txt"), job("d", "b.txt", "c.txt")]
    seconds = {"a": 1, "b": 5, "c": 2, "d": 4}
    plan = planned(seconds, jobs, settings_of())

    assert predecessors(jobs) == [[], [0], [0], [1, 2]]
    assert plan.critical_path(Cluster(1, machine())) == (10, ["a/0", "b/0", "d/0"])
    assert plan.wall_seconds(Cluster(1, machine(cores=1))) == 12
    assert plan.wall_seconds(Cluster(1, machine(cores=2))) == 10
    assert plan.wall_seconds(Cluster(2, machine(cores=1))) == 10


def test_what_exceeds_a_limit_is_named_with_both_numbers():
    jobs, config = [job("a")], settings_of()
    small = machine(memory=1e9, disk=1e8)
    plan = Plan(config, jobs, [Cluster(1, small)])
    plan.needs[:] = [Need(memory=3e9, disk=2e8, work=Work(steps=600))]

    text = "\n".join(exceeded(plan, {"runtime": 5.0}))

    assert "needs 3 GB of memory, the limit is 1 GB" in text
    assert "takes 10 min, the limit is 5 min" in text
    longer = "\n".join(exceeded(plan, {"runtime": 3.0}))
    assert "where it was stopped, 3 at least" in longer  # 3 + 3 + 3 + 1 minutes
    assert "need 0 GB of disk, the limit is 0 GB" in text
    assert "nothing exceeds" in exceeded(plan, {"mem_mb": 1e4, "disk_mb": 1e4})[0]


def test_hardware_is_a_list_of_machines_with_numbers_of_nodes():
    machines = {"node": NODE, "h200": H200}

    assert [c.name for c in clusters("node, 8 x h200", machines)] == ["node", "8 x h200"]
    assert clusters("8 x h200", machines)[0].nodes == 8
    with pytest.raises(ValueError, match="expected hardware among node, h200, got cray"):
        clusters("cray", machines)


def test_jobs_are_read_with_their_wildcards_and_requests():
    printed = """[Fri Nov 27 00:56:29 2026]
rule search:
    input: a/b, c
    output: d
    wildcards: index=exact, seed=0
    threads: 4
    resources: tmpdir=/tmp, mem_mb=100
localrule all:
    input: d
"""

    (found,) = read_jobs(printed)

    assert (found.rule, found.name, found.threads) == ("search", "search/exact/0", 4)
    assert found.inputs == ("a/b", "c")
    assert found.resources["mem_mb"] == "100"
    with pytest.raises(ValueError, match="expected the text of a dry run"):
        read_jobs("nothing")
