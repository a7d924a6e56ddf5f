"""Fine-tuning on somebody else's machines: the OpenAI fine-tuning API, as any provider speaks it.

Calls are repeated when the service is busy or the line breaks. A call that costs money is never
simply repeated: the service is asked first whether the broken one arrived. The key comes from the
environment; no message, log or file of ours holds it.
"""

import base64
import binascii
import csv
import io
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from openai import (
    APIConnectionError,
    APIStatusError,
    InternalServerError,
    OpenAI,
    OpenAIError,
    RateLimitError,
)
from openai.types.fine_tuning import FineTuningJob

from knnlm.experiments.conversational_hosted.state import State
from knnlm.runtime.logs import LOGGER
from knnlm.text.macondo.chat import Message

TRIES = 8
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between two tries, doubled from one to the next
TIMEOUT = 60.0  # seconds for one answer
ENDED = ("failed", "cancelled")
TRANSIENT = (APIConnectionError, RateLimitError, InternalServerError)
NO_MONEY = "insufficient_quota"  # a 429 that no waiting heals
ANSWER_TOKENS = 8  # longest answer that is asked for: a name and a full stop
METRICS = ("step", "train_loss", "valid_loss", "full_valid_loss")

T = TypeVar("T")
Pause = Callable[[float], None]


class HostedError(ValueError):
    """What a service refused, or could not do in the time that it was given."""


class Service:
    """A provider of the API, asked patiently."""

    def __init__(self, *, base_url: str, key_variable: str, pause: Pause = time.sleep) -> None:
        """Prepare to ask; nothing is sent yet.

        Args:
            base_url: of the provider, ending in /v1 as a rule.
            key_variable: the environment variable that holds the key.
            pause: waits for a number of seconds.

        Raises:
            HostedError: if the variable is empty.
        """
        self._key = os.environ.get(key_variable, "").strip()
        if not self._key:
            raise HostedError(
                f"expected the key of {base_url} in the environment variable {key_variable}, got "
                "none; export it in the shell that runs snakemake"
            )
        self.pause = pause
        self._client = OpenAI(base_url=base_url, api_key=self._key, max_retries=0, timeout=TIMEOUT)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def upload(self, file: Path, *, name: str, state: State, step: str) -> str:
        """Return the id of an uploaded file, uploading it only if the service does not have it.

        Args:
            file: JSON lines of messages.
            name: at the service, of this file alone.
            state: of the fine-tuning.
            step: how the state calls the upload.
        """
        content = file.read_bytes()

        def found() -> str | None:
            files = self._client.files.list(purpose="fine-tune")
            return next(
                (f.id for f in files if (f.filename, f.bytes) == (name, len(content))), None
            )

        def send() -> str:
            return self._client.files.create(file=(name, content), purpose="fine-tune").id

        return self._once(f"uploading {name}", send, found, state=state, step=step)

    def start(
        self, *, model: str, epochs: int, seed: int, files: Sequence[str], state: State
    ) -> str:
        """Return the id of a fine-tuning job, starting it only if the service has none like it.

        Args:
            model: that is fine-tuned.
            epochs: passes over the training file.
            seed: of the service's own draws.
            files: ids of the training file and, if there is one, of the file that is scored.
            state: of the fine-tuning.
        """
        training, *scored = files

        def found() -> str | None:
            # A failed job has cost nothing, and another one may be wanted.
            jobs = self._client.fine_tuning.jobs.list()
            return next(
                (j.id for j in jobs if j.training_file == training and j.status not in ENDED), None
            )

        def send() -> str:
            job = self._client.fine_tuning.jobs.create(
                model=model,
                training_file=training,
                hyperparameters={"n_epochs": epochs},  # the older form: every provider reads it
                seed=seed,
                **({"validation_file": scored[0]} if scored else {}),
            )
            return job.id

        return self._once("starting the job", send, found, state=state, step="job")

    def wait(self, job: str, *, every: float, state: State) -> FineTuningJob:
        """Return a job once it has succeeded.

        Args:
            job: its id.
            every: seconds between two looks.
            state: in which the status is kept.

        Raises:
            HostedError: if the job failed or was cancelled.
        """
        while True:
            seen = self._ask(
                "looking at the job", lambda: self._client.fine_tuning.jobs.retrieve(job)
            )
            if seen.status != state.status:
                LOGGER.info("job %s: %s", job, seen.status)
            state.note_status(seen.status)
            if seen.status in ENDED:
                told = seen.error.message if seen.error else "no reason given"
                raise HostedError(
                    f"the service ended job {job} as {seen.status}: {self._without_key(told)}; "
                    f"mend the cause, then remove {state.path} to begin a new job"
                )
            if seen.status == "succeeded":
                return seen
            self.pause(every)

    def losses(self, job: FineTuningJob) -> list[dict[str, float]]:
        """Return what the service measured in training: a row a step with some of `METRICS`.

        From the result file or, where the service keeps none, from the events of the job.

        Raises:
            HostedError: if it has neither.
        """
        rows: list[dict[str, float]] = []
        for file in job.result_files or []:
            content = self._ask(
                "reading the result file", lambda f=file: self._client.files.content(f).read()
            )
            rows += _numbers(csv.DictReader(io.StringIO(_decoded(content))))
        if not rows:
            events = self._ask(
                "reading the events",
                lambda: list(self._client.fine_tuning.jobs.list_events(job.id, limit=100)),
            )
            rows = _numbers(event.data for event in events if isinstance(event.data, dict))
        if not rows:
            raise HostedError(f"job {job.id} has neither a result file nor events with losses")
        return sorted(rows, key=lambda row: row["step"])

    def answer(self, model: str, question: Sequence[Message], *, top: int) -> dict[str, Any]:
        """Return the likeliest answer, and the likeliest first tokens with their log-probabilities.

        Args:
            model: fine-tuned.
            question: messages.
            top: first tokens that are asked for.

        Returns:
            text, and first_tokens (a list of token and log-probability), empty where the service
            gives none.
        """
        reply = self._ask(
            "asking the model",
            lambda: self._client.chat.completions.create(
                model=model,
                messages=list(question),
                temperature=0.0,
                max_tokens=ANSWER_TOKENS,
                logprobs=True,
                top_logprobs=top,
            ),
        )
        choice = reply.choices[0]
        tokens = choice.logprobs.content if choice.logprobs and choice.logprobs.content else []
        first = [[entry.token, entry.logprob] for entry in tokens[0].top_logprobs] if tokens else []
        return {"text": choice.message.content or "", "first_tokens": first}

    def _once(
        self,
        what: str,
        send: Callable[[], str],
        found: Callable[[], str | None],
        *,
        state: State,
        step: str,
    ) -> str:
        """Return the id of a step that must not happen twice, whatever happened before."""
        if step in state.ids:
            return state.ids[step]
        given = self._ask(f"looking for the result of {what}", found) if state.begun(step) else None
        if given is None:
            state.begin(step)
            given = self._ask(what, send, before_repeat=found)
        LOGGER.info("%s: %s", what, given)
        state.finish(step, given)
        return given

    def _ask(
        self,
        what: str,
        call: Callable[[], T],
        *,
        before_repeat: Callable[[], T | None] | None = None,
    ) -> T:
        """Call until there is an answer; before repeating, take what an earlier call has left.

        Raises:
            HostedError: if the service refuses, or is silent for too long.
        """
        wait = FIRST_WAIT
        for tries_left in reversed(range(TRIES)):
            try:
                return call()
            except OpenAIError as error:
                told = self._without_key(str(error) or type(error).__name__)
                hopeless = getattr(error, "code", None) == NO_MONEY
                if hopeless or not isinstance(error, TRANSIENT):
                    # The original may hold the key in its request: it must not reach a traceback.
                    raise HostedError(f"{what}: the service refused: {told}") from None
                wait_now = max(wait, _asked_to_wait(error))
            if not tries_left:
                break
            LOGGER.info("%s: %s; trying again in %.0f s", what, told, wait_now)
            self.pause(wait_now)
            wait = min(2 * wait, LONGEST_WAIT)
            if before_repeat is not None:
                left = self._ask(f"looking for the result of {what}", before_repeat)
                if left is not None:
                    return left
        raise HostedError(
            f"{what}: no answer after {TRIES} tries, the last time: {told}; run the same command "
            "again later, it goes on from here and pays nothing twice"
        )

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]")


def _asked_to_wait(error: OpenAIError) -> float:
    """Return the seconds that a busy service asks for, at most `LONGEST_WAIT`."""
    if not isinstance(error, APIStatusError):
        return 0.0
    try:
        return min(float(error.response.headers.get("retry-after", 0)), LONGEST_WAIT)
    except ValueError:  # a date
        return LONGEST_WAIT


def _decoded(content: bytes) -> str:
    """Return the text of a result file, which some services encode in base64."""
    try:
        return base64.b64decode(content, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return content.decode("utf-8")


def _numbers(rows: Iterable[dict[str, Any]]) -> list[dict[str, float]]:
    """Return the metrics that rows hold; rows without a step are left out."""
    found = [
        {name: float(row[name]) for name in METRICS if row.get(name) not in (None, "")}
        for row in rows
    ]
    return [row for row in found if "step" in row]
