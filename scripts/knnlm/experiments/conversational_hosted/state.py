"""What a hosted fine-tuning has been asked for and answered: a small file that outlives the run.

It is written before and after every call that costs money, so that a killed run neither loses an
id nor pays twice. It holds ids, settings and answers, never a key.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from knnlm.runtime.artifacts import ArtifactError, save_json


class State:
    """Ids by step, such as "job"; steps that were begun; answers by question; the last status."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Open the state at `path`, or begin one.

        Args:
            path: its name follows from the settings, so that others never meet it.
            settings: what is asked for, for whoever reads the file.

        Raises:
            ArtifactError: if the file is not a state with these settings.
        """
        self.path = path
        empty = {"settings": dict(settings), "begun": [], "ids": {}, "answers": {}, "status": ""}
        self._content: dict[str, Any] = empty
        if path.is_file():
            try:
                self._content = json.loads(path.read_text(encoding="ascii"))
                same = self._content["settings"] == empty["settings"]
            except (ValueError, KeyError, TypeError) as error:
                raise self._foreign() from error
            if not same or set(self._content) != set(empty):
                raise self._foreign()

    def _foreign(self) -> ArtifactError:
        return ArtifactError(
            f"{self.path} is not the state of this fine-tuning; look at the service for jobs that "
            "were begun, then remove the file"
        )

    @property
    def ids(self) -> dict[str, str]:
        """The id that the service gave to each finished step."""
        return dict(self._content["ids"])

    @property
    def answers(self) -> dict[str, Any]:
        """The answers of the fine-tuned model, by question."""
        return dict(self._content["answers"])

    @property
    def status(self) -> str:
        """The last status of the job that was seen."""
        return self._content["status"]

    def begun(self, step: str) -> bool:
        """Return whether a step was begun, so that the service may have heard of it."""
        return step in self._content["begun"]

    def begin(self, step: str) -> None:
        """Note that the service is about to be asked for a step."""
        if not self.begun(step):
            self._content["begun"].append(step)
            self._save()

    def finish(self, step: str, given: str) -> None:
        """Note the id that the service gave to a step."""
        self._content["ids"][step] = given
        self._save()

    def note_status(self, status: str) -> None:
        """Note the status of the job."""
        if status != self.status:
            self._content["status"] = status
            self._save()

    def note_answer(self, question: str, answer: Any) -> None:
        """Keep an answer, which is JSON."""
        self._content["answers"][question] = answer
        self._save()

    def _save(self) -> None:
        save_json(self.path, self._content)
