"""Hosted fine-tuning over real HTTP, against a server that breaks in every way we know of."""

import base64
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from hosted_server import KEY, VARIABLE, error

from knnlm.experiments.conversational_hosted.service import TRIES, HostedError, Service
from knnlm.experiments.conversational_hosted.state import State
from knnlm.runtime.artifacts import ArtifactError

ROOT = Path(__file__).parents[4]
CREATE, LOOK = "POST /fine_tuning/jobs", "GET /fine_tuning/jobs/ftjob-1"
JOB = {"model": "chatty", "epochs": 4, "seed": 0}


@pytest.fixture
def files(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(f'{{"messages": ["{split}"]}}\n')
    return tmp_path


def run(server, files, *, pauses=None):
    """Upload both files, start a job and wait for it; return it, its losses and the state."""
    state = State(files / "state.json", {"model": "chatty"})
    pause = (lambda seconds: None) if pauses is None else pauses.append
    service = Service(base_url=server.url, key_variable=VARIABLE, pause=pause)
    try:
        ids = [
            service.upload(files / f"{split}.jsonl", name=split, state=state, step=split)
            for split in ("train", "test")
        ]
        job = service.wait(service.start(**JOB, files=ids, state=state), every=30.0, state=state)
        return job, service.losses(job), state
    finally:
        service.close()


def test_a_job_gets_both_files_and_gives_its_losses(server, files):
    pauses = []

    job, losses, state = run(server, files, pauses=pauses)

    sent = server.jobs["ftjob-1"]
    assert [sent[name] for name in ("model", "training_file", "validation_file", "seed")] == [
        "chatty", "file-1", "file-2", 0,
    ]  # fmt: skip
    assert sent["hyperparameters"] == {"n_epochs": 4}
    assert server.files["file-1"]["content"] == (files / "train.jsonl").read_bytes()
    assert job.fine_tuned_model == "ft:chatty:macondo"
    assert losses[1] == {"step": 2.0, "train_loss": 1.5, "valid_loss": 2.5}
    assert losses[0] == {"step": 1.0, "train_loss": 3.0}
    assert pauses == [30.0, 30.0]  # between three looks
    assert state.ids == {"train": "file-1", "test": "file-2", "job": "ftjob-1"}


def test_a_second_run_asks_for_nothing_new(server, files):
    run(server, files)
    server.asked.clear()

    run(server, files)

    assert not [request for request in server.asked if request.startswith("POST")]


def test_a_busy_service_is_asked_again_after_the_time_it_wants(server, files):
    server.troubles[CREATE] = [(429, error("slow down"), {"Retry-After": "7"})]
    pauses = []

    run(server, files, pauses=pauses)

    assert pauses[0] == 7.0
    assert len(server.jobs) == 1


@pytest.mark.parametrize("trouble", [500, 503, "drop"])
def test_a_call_that_did_not_arrive_is_repeated(server, files, trouble):
    server.troubles[CREATE] = [trouble, trouble]
    server.troubles["POST /files"] = [trouble]
    server.troubles[LOOK] = [trouble]

    run(server, files)

    assert server.count(CREATE) == 3
    assert len(server.jobs) == 1
    uploaded = [f["filename"] for f in server.files.values() if f["purpose"] == "fine-tune"]
    assert uploaded == ["train", "test"]


def test_a_call_that_arrived_is_not_paid_for_twice_when_the_line_breaks(server, files):
    server.troubles[CREATE] = ["drop after"]
    server.troubles["POST /files"] = ["drop after", "drop after"]

    job, _, _ = run(server, files)

    assert job.id == "ftjob-1"
    assert server.count(CREATE) == len(server.jobs) == 1
    assert server.count("POST /files") == 2


def test_no_credit_is_no_reason_to_wait(server, files):
    server.troubles[CREATE] = [(429, error("pay first", "insufficient_quota"))]
    pauses = []

    with pytest.raises(HostedError, match=r"refused.*pay first"):
        run(server, files, pauses=pauses)

    assert pauses == []
    assert not server.jobs


def test_a_long_silence_is_an_error_from_which_a_later_run_goes_on(server, files):
    server.troubles[LOOK] = [500] * TRIES
    pauses = []

    with pytest.raises(HostedError, match="run the same command again later"):
        run(server, files, pauses=pauses)
    assert pauses == [1, 2, 4, 8, 16, 32, 60]  # between 8 tries; none after the last
    job, _, _ = run(server, files)

    assert job.status == "succeeded"
    assert server.count(CREATE) == 1
    assert server.count("POST /files") == 2


def test_a_job_that_fails_is_not_begun_again_until_its_state_is_removed(server, files):
    server.statuses = ["running", "failed"]

    for _ in range(2):
        with pytest.raises(HostedError, match=r"ftjob-1 as failed: moderation.*remove"):
            run(server, files)
    assert server.count(CREATE) == 1

    (files / "state.json").unlink()
    server.statuses = ["succeeded"]
    job, _, _ = run(server, files)
    assert job.id == "ftjob-2"


CHILD = """
import sys
from pathlib import Path
from test_hosted import run
class Server: url = sys.argv[1]
run(Server, Path(sys.argv[2]))
"""


@pytest.mark.parametrize("arrives", [False, True], ids=["before it arrives", "after it arrived"])
def test_a_run_that_is_killed_between_upload_and_job_pays_once(server, files, arrives):
    child = None

    def kill(service):
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        return "drop after" if arrives else "drop"

    server.troubles[CREATE] = [kill]
    paths = [str(ROOT / "scripts"), str(Path(__file__).parent)]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, server.url, str(files)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    assert child.wait(timeout=120) == -signal.SIGKILL
    assert State(files / "state.json", {"model": "chatty"}).ids.keys() == {"train", "test"}

    run(server, files)

    assert len(server.jobs) == 1
    assert server.count("POST /files") == 2
    assert server.count(CREATE) == (1 if arrives else 2)


def test_the_key_is_in_no_message_log_or_file(server, files, monkeypatch, caplog):
    caplog.set_level(1)
    server.troubles[CREATE] = [500, 403]
    told = []
    with pytest.raises(HostedError) as refused:
        run(server, files)
    told += traceback.format_exception(refused.value)
    server.statuses = ["failed"]
    with pytest.raises(HostedError) as failed:
        run(server, files)
    told += traceback.format_exception(failed.value)
    monkeypatch.setenv(VARIABLE, KEY + "x")  # refused with a message that repeats it
    (files / "state.json").unlink()
    with pytest.raises(HostedError, match=r"wrong key: Bearer \[key\]") as wrong:
        run(server, files)
    told += traceback.format_exception(wrong.value)

    kept = [path.read_text() for path in files.iterdir()]
    assert KEY not in "".join([*told, *kept, caplog.text])


def test_a_missing_key_is_named_by_its_variable(server, files, monkeypatch):
    monkeypatch.delenv(VARIABLE)

    with pytest.raises(HostedError, match=VARIABLE):
        run(server, files)


def test_a_result_file_in_base64_is_read(server, files):
    _, plain, _ = run(server, files)
    server.files["file-3"]["content"] = base64.b64encode(server.results)

    _, encoded, _ = run(server, files)

    assert encoded == plain


def test_losses_come_from_the_events_where_there_is_no_result_file(server, files):
    server.results = None
    shared = {"object": "fine_tuning.job.event", "created_at": 0, "level": "info", "message": "m"}
    server.events = [
        shared | {"id": "2", "type": "metrics", "data": {"step": 2, "train_loss": 1.0}},
        shared | {"id": "1", "type": "metrics", "data": {"step": 1, "train_loss": 2.0}},
        shared | {"id": "0", "type": "message", "data": {}},
    ]

    _, losses, _ = run(server, files)

    assert losses == [{"step": 1.0, "train_loss": 2.0}, {"step": 2.0, "train_loss": 1.0}]


def test_an_answer_has_its_likeliest_first_tokens(server):
    service = Service(base_url=server.url, key_variable=VARIABLE)

    reply = service.answer("m", [{"role": "user", "content": "Who?"}], top=2)
    server.first_tokens = []
    bare = service.answer("m", [{"role": "user", "content": "Who?"}], top=2)
    service.close()

    assert reply == {"text": "Rosa.", "first_tokens": [["Rosa", -0.5], ["Kim", -1.25]]}
    assert bare == {"text": "Rosa.", "first_tokens": []}


@pytest.mark.parametrize("content", ["{", '{"settings": {"model": "chatty"}}', "[]"])
def test_a_file_that_is_no_state_is_refused(tmp_path, content):
    (tmp_path / "state.json").write_text(content)

    with pytest.raises(ArtifactError, match="not the state"):
        State(tmp_path / "state.json", {"model": "chatty"})


def test_a_state_of_other_settings_is_refused(tmp_path):
    State(tmp_path / "state.json", {"model": "chatty"}).begin("job")

    with pytest.raises(ArtifactError, match="not the state"):
        State(tmp_path / "state.json", {"model": "other"})
