"""What Snakemake makes of the config: scales, precedence, errors before any job starts."""

import json

import pytest
import yaml


@pytest.mark.parametrize("scale", ["cpu", "gpu", "paper"])
def test_every_scale_passes_a_dry_run(project, scale):
    output = project.snakemake("--dry-run", "--config", f"scale={scale}").stdout

    assert "train_language_model" in output
    assert "evaluate_knn_perplexity" in output


def test_the_command_line_wins_over_the_scale_and_the_scale_over_the_defaults(project):
    (project.folder / "overlay.yaml").write_text("models: {base: {layers: 3}}")
    command = ["--config", "scale=gpu", "corpus=wikitext-2", "--configfile", "overlay.yaml"]

    project.snakemake("settings", *command)

    written = project.folder / "results/gpu-wikitext-2/tables/settings.json"
    settings = json.loads(written.read_text())
    assert settings["corpus"] == "wikitext-2"  # the command line, not the scale's wikitext-103
    assert settings["models"]["base"]["layers"] == 3  # the overlay, not the scale's 12
    assert settings["models"]["base"]["width"] == 768  # the scale, not the default 64
    assert settings["macondo"]["max_children"] == 5  # the default


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("scale=huge", "unknown scale 'huge'; known scales: cpu, gpu, paper"),
        (
            "corpus=ptb",
            "unknown name 'ptb'; known corpora: gazetteer, letters, part, wikitext-103, wikitext-2",
        ),
        ("lambda=0.3", "unknown key 'lambda'; known: "),
        ("search='{k: 5}'", "overlay file with --configfile"),
    ],
)
def test_a_bad_setting_stops_snakemake_before_any_job(project, setting, message):
    done = project.snakemake("--config", setting, check=False)

    assert done.returncode != 0
    assert message in done.stdout
    assert not (project.folder / "results").exists()


def test_a_shared_cache_that_is_not_there_stops_snakemake_before_any_job(project):
    project.environment |= {"SNAKEMAKE_OUTPUT_CACHE": str(project.folder / "cache")}

    done = project.snakemake("--dry-run", check=False)
    (project.folder / "cache").mkdir()

    assert done.returncode != 0
    assert "SNAKEMAKE_OUTPUT_CACHE: expected a folder, got" in done.stdout
    assert project.snakemake("--dry-run").returncode == 0


def test_the_list_of_rules_reads_as_a_table_of_contents(project):
    output = project.snakemake("--list-rules").stdout

    assert "Does retrieval from its own training data help the LM?" in output
    assert "Save one key and one value for each token of a part of the train split" in output


CONFIGS = {
    "another architecture": ({"model_type": "mamba"}, "mamba"),
    "no weights": ({}, "model.safetensors"),
    "pickled weights": ({}, "pickled weights only (pytorch_model.bin)"),
    "window": ({"n_positions": 16}, "expected at most the 16 positions"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_pretrained_folder_that_no_rule_can_take_stops_snakemake_before_any_job(project, case):
    changed, message = CONFIGS[case]
    shape = {"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 1, "n_positions": 64}
    folder = project.folder / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(shape | {"vocab_size": 300} | changed))
    if case == "pickled weights":
        (folder / "pytorch_model.bin").write_bytes(b"pickled")
    if case == "window":
        (folder / "model.safetensors").write_bytes(b"weights")
    model = {"source": "pretrained", "model": "mine", "context": 32}
    overlay = {
        "lm_seeds": [0],
        "models": {"mine": model},
        "datastores": {"base": {"model": "mine", "stride": 32}},
        "baseline": {"control": None},
        "queries": {"stride": 16},
        "softmax_bottleneck": {"heads": []},
    }
    (project.folder / "mine.yaml").write_text(yaml.safe_dump(overlay))

    done = project.snakemake("knn_perplexity", "--configfile", "mine.yaml", check=False)

    assert done.returncode != 0
    assert "models.mine" in done.stdout
    assert message in done.stdout
    assert not (project.folder / "results").exists()
