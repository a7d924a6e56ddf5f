"""How a script is started again in several processes; a real start: tests/e2e/test_processes.py."""

import sys

import pytest

from knnlm.runtime.launch import launch_command, share


@pytest.fixture(autouse=True)
def no_exec(monkeypatch):
    def refuse(*arguments):
        raise AssertionError(f"{arguments} replaced the process")

    monkeypatch.setattr("os.execvpe", refuse)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)


@pytest.mark.parametrize("resources", [{}, {"gpu": 0}, {"gpu": 1}, {"processes": 1, "gpu": 4}])
def test_one_process_goes_on_as_it_is(resources):
    share(resources)


def test_a_launched_process_starts_no_others(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")

    share({"gpu": 8})


def test_nodes_that_cannot_share_the_processes_are_refused():
    with pytest.raises(ValueError, match="3 nodes can share evenly, got 8"):
        share({"gpu": 8, "nodes": 3})


def test_each_node_runs_accelerate_under_its_own_number():
    command = launch_command("train.py", processes=8, nodes=2)

    assert command[:3] == ["srun", "--overlap", "--nodes=2"]
    assert "--ntasks-per-node=1" in command
    assert '--machine_rank="$SLURM_NODEID"' in " ".join(command)
    assert {"--num_processes=8", "--num_machines=2", sys.executable} <= set(command)
