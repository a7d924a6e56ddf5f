"""What the record of a run says, and what it must never say."""

import getpass
import json
import platform
import socket
import subprocess
from importlib.metadata import version

import pytest

from knnlm.runtime import provenance
from knnlm.runtime.provenance import environment, git_state, gpu_names

CONFIG = {"threads": {"train": 2}, "corpus": "gazetteer"}


@pytest.fixture
def checkout(tmp_path):
    def git(*arguments):
        identity = ("-c", "user.name=A", "-c", "user.email=a@b")
        subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True
        )

    git("init")
    (tmp_path / "a.txt").write_text("one\n")
    git("add", "a.txt")
    git("commit", "-m", "start")
    return tmp_path


def test_versions_threads_and_platform_are_recorded(tmp_path):
    record = environment(root=tmp_path, config=CONFIG)

    assert record["packages"]["numpy"] == version("numpy")
    assert record["python"] == platform.python_version()
    assert record["threads"] == {"train": 2}
    assert record["cpu"]["cores"] >= 1


def test_the_hash_follows_the_settings_and_not_their_order(tmp_path):
    first = environment(root=tmp_path, config=CONFIG)["config_sha256"]

    turned = environment(root=tmp_path, config=dict(reversed(CONFIG.items())))["config_sha256"]
    other = environment(root=tmp_path, config=CONFIG | {"corpus": "x"})["config_sha256"]

    assert first == turned
    assert first != other


def test_the_record_names_no_user_host_or_folder(tmp_path):
    text = json.dumps(environment(root=tmp_path, config={"threads": {}, "path": str(tmp_path)}))

    assert str(tmp_path) not in text
    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text


def test_a_clean_checkout_has_its_commit(checkout):
    state = git_state(checkout)

    assert len(state["commit"]) == 40
    assert state["dirty"] is False


def test_an_edited_file_makes_it_dirty_and_a_new_one_does_not(checkout):
    (checkout / "b.txt").write_text("new\n")
    assert git_state(checkout)["dirty"] is False

    (checkout / "a.txt").write_text("two\n")
    assert git_state(checkout)["dirty"] is True


def test_a_folder_inside_another_repository_has_no_commit(checkout):
    (checkout / "copy").mkdir()

    assert git_state(checkout / "copy") == {"commit": None, "dirty": None}


def test_without_git_or_driver_nothing_is_claimed(checkout, monkeypatch):
    monkeypatch.setattr(provenance.shutil, "which", lambda name: None)

    assert git_state(checkout) == {"commit": None, "dirty": None}
    assert gpu_names() == []


def test_a_tool_that_hangs_is_given_up(monkeypatch):
    def hang(*arguments, timeout, **settings):
        raise subprocess.TimeoutExpired(arguments[0], timeout)

    monkeypatch.setattr(provenance.shutil, "which", lambda name: name)
    monkeypatch.setattr(provenance.subprocess, "run", hang)

    assert gpu_names() == []
