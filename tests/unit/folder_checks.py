"""What every evaluation must do with its folders: know them by manifests, never by order."""

import re
import shutil

import pandas as pd
import pytest

from knnlm.runtime.artifacts import ArtifactError


def check_folders_are_known_by_their_manifests(evaluate, inputs, settings, expected, tmp_path):
    """The order of folders changes no table; one of another seed stops, with its name."""
    shuffled = evaluate({name: folders[::-1] for name, folders in inputs.items()}, settings)

    assert list(shuffled) == list(expected)
    for name, table in expected.items():
        pd.testing.assert_frame_equal(shuffled[name], table)
    for name, folders in inputs.items():
        foreign = tmp_path / name / folders[0].parent.name / "seed0"
        shutil.copytree(next(f for f in folders if f.name == "seed1"), foreign)
        with pytest.raises(ArtifactError, match=re.escape(str(foreign))):
            evaluate({**inputs, name: [foreign, *folders[1:]]}, settings)
