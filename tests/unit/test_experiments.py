"""Folders of experiments: what each brings to the config, and what is refused before any job."""

import shutil
from pathlib import Path

import pytest
import yaml

from knnlm.runtime.experiments import read_experiments, with_experiments
from knnlm.runtime.settings import SettingsError, resolve

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())


@pytest.fixture
def project(tmp_path):
    """Return a folder with one experiment, a copy of key_function."""
    for place in ("workflow/experiments", "scripts/knnlm/experiments"):
        shutil.copytree(ROOT / place / "key_function", tmp_path / place / "key_function")
    return tmp_path


def renamed(project, name):
    """Give the experiment of a project another name."""
    for place in ("workflow/experiments", "scripts/knnlm/experiments"):
        (project / place / "key_function").rename(project / place / name)


def edited(project, **changes):
    """Change keys of the settings of the experiment."""
    path = project / "workflow/experiments/key_function/settings.yaml"
    settings = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump({key: value for key, value in settings.items() if value}))


def settings_of(project, **command_line):
    config, schema = with_experiments(CONFIG, SCHEMA, read_experiments(project).values())
    return resolve(config, command_line, schema)


def test_an_experiment_brings_its_block_and_entries_of_shared_blocks(project):
    settings = settings_of(project)

    assert settings["experiments"] == ["key_function"]
    site = settings["datastores"]["key_ffn_before"]["site"]
    assert site == "ffn_input_before_layer_norm"
    assert set(settings["key_function"]["datastores"]) <= set(settings["datastores"])


def test_a_scale_and_the_command_line_change_the_block_of_an_experiment(project):
    edited(project, scales={"gpu": {"datastores": ["key_ffn_after", "key_ffn_before"]}})
    of_user = {"key_function": {"datastores": ["base", "key_ffn_after"]}}

    assert len(settings_of(project)["key_function"]["datastores"]) == 6
    assert len(settings_of(project, scale="gpu")["key_function"]["datastores"]) == 2
    chosen = settings_of(project, scale="gpu", **of_user)["key_function"]["datastores"]
    assert chosen == ["base", "key_ffn_after"]


def test_experiments_that_cost_money_run_only_when_they_are_named(project):
    text = project / "workflow/experiments/key_function/settings.yaml"
    text.write_text(
        "order: 1\npaper: none\nsettings: {confirm: false}\n"
        "schema: {properties: {confirm: {type: boolean, description: yes or no}}}\n"
    )

    assert settings_of(project)["experiments"] == []
    assert settings_of(project, experiments=["key_function"])["experiments"] == ["key_function"]


def test_the_report_shows_experiments_in_their_order():
    orders = [one.order for one in read_experiments(ROOT).values()]

    assert orders == sorted(orders)
    assert next(iter(read_experiments(ROOT))) == "knn_perplexity"


def test_a_scale_changes_the_entries_that_an_experiment_adds(project):
    edited(project, adds_at={"gpu": {"datastores": {"key_ffn_after": {"queries": 7}}}})
    of_user = {"datastores": {"key_ffn_after": {"queries": 5}}}

    assert settings_of(project)["datastores"]["key_ffn_after"]["queries"] == 2000
    at_gpu = settings_of(project, scale="gpu")["datastores"]
    assert (at_gpu["key_ffn_after"]["queries"], at_gpu["base"]["stride"]) == (7, 512)
    assert at_gpu["key_ffn_after"]["site"] == "ffn_input_after_layer_norm"
    chosen = settings_of(project, scale="gpu", **of_user)["datastores"]["key_ffn_after"]
    assert chosen["queries"] == 5


def test_a_scale_that_changes_an_entry_of_others_is_refused(project):
    edited(project, adds_at={"gpu": {"datastores": {"base": {"queries": 7}}}})

    with pytest.raises(SettingsError, match=r"adds_at\.gpu\.datastores: .* got 'base'; others"):
        settings_of(project)


def test_a_name_that_a_block_of_the_config_has_is_refused(project):
    renamed(project, "datastores")

    with pytest.raises(SettingsError, match=r"experiments/datastores: expected a name that no blo"):
        settings_of(project)


def test_an_added_entry_whose_name_is_taken_is_refused(project):
    edited(project, adds={"datastores": {"base": {"extends": "baseline"}}})

    with pytest.raises(SettingsError, match=r"adds\.datastores: the name 'base' is taken"):
        settings_of(project)


def test_entries_of_a_block_that_does_not_exist_are_refused(project):
    edited(project, adds={"dstores": {"x": {}}})

    with pytest.raises(SettingsError, match=r"adds\.dstores: expected a block of named entries"):
        settings_of(project)


def test_a_block_with_a_key_that_its_schema_does_not_know_is_refused(project):
    edited(project, settings={"datastores": ["key_ffn_after", "key_ffn_before"], "kay": 3})

    with pytest.raises(SettingsError, match=r"key_function: unknown key 'kay'; known: datastores"):
        settings_of(project)


def test_settings_without_a_schema_are_refused(project):
    edited(project, schema=None)

    with pytest.raises(
        SettingsError, match=r"settings\.yaml: expected the keys order, paper, settings"
    ):
        settings_of(project)


def test_changes_at_an_unknown_scale_are_refused(project):
    edited(project, scales={"huge": {}, "gpu": {}})

    with pytest.raises(SettingsError, match=r"unknown scale 'huge'; known scales: cpu, gpu, paper"):
        settings_of(project)


def test_an_unknown_experiment_is_refused(project):
    with pytest.raises(SettingsError, match=r"experiments\.0: expected one of \['key_function'\]"):
        settings_of(project, experiments=["key_functions"])
