"""The plan against Snakemake's own counts, and against what a run really left on the disk."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter

import pandas as pd
import pytest
from workflow_project import ROOT, TINY

from knnlm.plan.resources import NEEDS_OF_RULES, need_of
from knnlm.plan.table import read_jobs

COUNT = re.compile(r"^(\w+) +(\d+)$", re.MULTILINE)


def asked_by(job):
    """The resources of a job of the dry run."""
    return dict(pair.split("=", 1) for pair in job.printed["resources"].split(", "))


@pytest.mark.parametrize("scale", ["cpu", "gpu", "paper"])
def test_the_plan_has_the_jobs_of_the_dry_run(project, scale):
    printed = project.snakemake(
        "--dry-run", "--forceall", "--cores", "1000", "all", "--config", f"scale={scale}"
    ).stdout
    stats = printed[printed.rindex("Job stats:") :]
    counted = {name: int(count) for name, count in COUNT.findall(stats)}
    counted = {name: n for name, n in counted.items() if name not in ("total", "all")}

    jobs = read_jobs(printed)
    planned = pd.Series([job.rule for job in jobs]).value_counts().to_dict()

    assert planned == counted
    for job in jobs:
        asked = asked_by(job)
        if job.rule in NEEDS_OF_RULES:
            assert int(asked["mem_mb"]) >= 1000
            assert {"runtime", "disk_mb", "gpu"} <= set(asked)


def test_the_plan_is_printed_and_written_before_anything_was_run(project):
    printed = project.snakemake(*TINY, "plan").stdout
    table = pd.read_csv(project.folder / "results/tiny/tables/plan.csv")
    counts = table.set_index("rule")["jobs"]

    assert "nothing exceeds them" in printed
    assert counts["search_fused_part"] == 4
    assert counts["total"] == counts.drop("total").sum()
    assert not (project.folder / "results/tiny/corpora").exists()
    # It has no output, so that a second time it prints again.
    assert "nothing exceeds them" in project.snakemake(*TINY, "plan").stdout


def test_limits_of_a_profile_are_what_the_plan_is_held_against(project):
    limits = ["plan:limit_mem_mb=600", "plan:limit_disk_mb=1", "plan:hardware=h100"]

    printed = project.snakemake(*TINY, "plan", "--set-resources", *limits).stdout

    assert "limits of the profile:" in printed
    asked = project.snakemake(
        *TINY, "--dry-run", "--set-resources", "plan:limit_runtime=7", "--", "cost"
    ).stdout
    minutes = {
        int(asked_by(job)["runtime"]) for job in read_jobs(asked) if job.rule in NEEDS_OF_RULES
    }
    assert minutes == {7}
    assert "GB of memory, not 0.6" in printed
    assert "GB of disk, not 0.0" in printed


def test_the_plan_for_paper_has_every_rule_and_names_what_exceeds_and_what_is_not_known(project):
    limits = ["plan:limit_runtime=1440", "plan:hardware=h200"]

    printed = project.snakemake(
        "plan", "--config", "scale=paper", "--set-resources", *limits
    ).stdout

    table = pd.read_csv(project.folder / "results/paper-wikitext-103/tables/plan.csv")
    table = table.set_index("rule")
    assert table.loc["search_part", "jobs"] >= 96
    longest = table["longest_hours"].drop("total")
    exceeded = re.findall(r"^  (\w+) takes .* h, not 24\.0", printed, re.MULTILINE)
    assert set(exceeded) == set(longest.index[longest > 24])
    assert exceeded
    # No weights were downloaded here, and nothing says how large these models are.
    assert "finetune_macondo asks for the default: gpt2 has no config.json here that" in printed


def test_no_job_of_a_run_took_more_memory_than_it_asked_for(finished):
    printed = finished.snakemake(*TINY, "--dry-run", "--forceall", "all").stdout
    timed = [job for job in read_jobs(printed) if "benchmark" in job.printed]

    for job in timed:
        row = pd.read_csv(
            finished.folder / job.printed["benchmark"], sep="\t", na_values=["-", "NA"]
        ).iloc[-1]
        assert not row["max_rss"] * 1.048576 > float(asked_by(job)["mem_mb"]), job
    assert {
        "train_language_model",
        "search_fused_part",
        "encode_index_part",
        "search_neighbors",
    } <= {job.rule for job in timed}


def test_the_plan_is_compared_with_every_timed_rule_of_a_finished_run(finished, project):
    (project.folder / "results").mkdir()
    (project.folder / "results/tiny").symlink_to(finished.folder / "results/tiny")
    benchmarks = finished.folder / "results/tiny/benchmarks"

    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/plan.py", "--run", "results/tiny"],
        cwd=project.folder,
        env=project.environment | {"PYTHONPATH": str(ROOT / "scripts")},
        text=True,
        capture_output=True,
    )

    assert done.returncode == 0, done.stderr
    rows = [line.strip("|").split("|") for line in done.stdout.splitlines()[2:]]
    jobs = {rule.strip(): int(count) for rule, count, *_ in rows}
    assert jobs.pop("total") == sum(jobs.values())
    timed = [path.relative_to(benchmarks).parts[0] for path in benchmarks.rglob("*.tsv")]
    assert jobs == Counter(name.removesuffix(".tsv") for name in timed)


def test_gpus_of_several_nodes_count_like_those_of_one(project):
    def minutes(*asked):
        resources = [f"train_language_model:{one}" for one in asked]
        options = ["--config", "scale=paper", "--set-resources", *resources, "--dry-run"]
        printed = project.snakemake("results/paper-wikitext-103/models/base/seed0", *options).stdout
        (job,) = (job for job in read_jobs(printed) if job.rule == "train_language_model")
        return int(asked_by(job)["runtime"])

    eight = minutes("gpu=8")

    assert eight < minutes("gpu=1") / 6
    assert minutes("nodes=2", "gpu=0", "gres=gpu:4", "processes=8") == eight


@pytest.mark.parametrize(
    ("rule", "folder"),
    [
        ("build_datastore_part", "datastores/base/seed0"),
        ("encode_index_part", "indexes/base/seed0/ivf_flat"),
        ("search_neighbors", "neighbors/base/seed0/ivf_flat/gazetteer/test"),
        ("score_queries", "queries/base/seed0/gazetteer/test"),
        ("tokenize_corpus", "corpora/gazetteer/tokens/own"),
    ],
)
def test_planned_bytes_are_those_on_the_disk(finished, rule, folder):
    config = json.loads((finished.folder / "results/tiny/tables/settings.json").read_text())
    wildcards = {"datastore": "base", "index": "ivf_flat", "model": "base", "tokenizer": "own"}
    wildcards |= {"corpus": "gazetteer", "split": "test"}
    results = finished.folder / "results/tiny" / folder
    written = sum(path.stat().st_size for path in results.rglob("*") if path.is_file())

    parts = range(config["datastores"]["base"]["parts"] if rule.endswith("_part") else 1)
    planned = sum(need_of(config, rule, {**wildcards, "part": str(n)}).disk for n in parts)

    assert written / 2 < planned < written * 2


def test_the_gpu_benchmark_runs_at_tiny_sizes_without_a_gpu():
    command = [sys.executable, "benchmarks/gpu.py", "--tiny"]
    environment = os.environ | {"PYTHONPATH": "scripts"}

    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True)

    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    found = {line.split("|")[1].split(",")[0].strip(): float(line.split("|")[4]) for line in lines}
    assert len(lines) == 5
    assert found["same neighbors as the CPU"] == 1
    assert all(share > 0 or "training" in what for what, share in found.items())


def test_the_gpu_settings_are_the_gpu_scale_on_local_articles_with_random_weights(project):
    folder = project.folder / "data/downloads/articles"
    (project.folder / "data").unlink()
    shutil.copytree(
        ROOT / "data", project.folder / "data", ignore=shutil.ignore_patterns("downloads")
    )
    folder.mkdir(parents=True)
    for name in ("train", "valid", "test"):
        (folder / f"{name}.txt").write_text("= A =\n\ntext\n" * 100_000)
    overlay = f"--configfile={ROOT / 'benchmarks/gpu_settings.yaml'}"

    hardware = "plan:hardware='h100'"
    project.snakemake(overlay, "--set-resources", hardware, "--", "plan")
    table = pd.read_csv(project.folder / "results/gpu-articles/tables/plan.csv")
    settings = project.snakemake(overlay, "--", "results/gpu-articles/tables/settings.json")

    table = table.set_index("rule")
    assert settings.returncode == 0
    assert table.loc["train_language_model", "gpu"] == 1
    assert 0 < table.loc["train_language_model", "gpu_memory_gb"] < 80
    text = (project.folder / "results/gpu-articles/tables/settings.json").read_text()
    used = json.loads(text)
    assert used["models"]["base"]["width"] == 768
    tuned = used["overspecification"]["compare"] + used["conversational"]["compare"]
    inits = {used["fine_tunings"][name]["init"] for name in tuned}
    assert inits == {"random"}
