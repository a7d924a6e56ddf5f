import os
import shutil
from pathlib import Path

import pytest

from knnlm.runtime.fingerprint import code_of, fingerprint, import_closure

SOURCES = {
    "scripts/score.py": "from knnlm.lm.scoring import score\n\nscore()\n",
    "scripts/plot.py": "from knnlm.evidence.plotting import draw\n\ndraw()\n",
    "scripts/knnlm/__init__.py": '"""Library."""\n',
    "scripts/knnlm/lm/__init__.py": '"""Models."""\n',
    "scripts/knnlm/lm/scoring.py": (
        'def score():\n    """Score."""\n    from knnlm.text import words\n    return words\n'
    ),
    "scripts/knnlm/evidence/__init__.py": "",
    "scripts/knnlm/evidence/plotting.py": "def draw():\n    return 1\n",
    "scripts/knnlm/text/__init__.py": "",
    "scripts/knnlm/text/words.py": "WORDS = 3\nDATA = 'words_list.yaml'\n",
    "scripts/knnlm/text/words_list.yaml": "[]",
}


@pytest.fixture
def project(tmp_path) -> Path:
    for name, text in SOURCES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def of(project, script="scripts/score.py", **settings):
    return fingerprint(code_of(project, script), settings)


def edit(project, name, text):
    path = project / name
    path.write_text(text)
    # Two edits within one tick of the clock must not look like one.
    later = path.stat().st_mtime_ns + 1_000_000
    os.utime(path, ns=(later, later))


def test_the_closure_follows_lazy_imports_packages_and_data(project):
    closure = import_closure([project / "scripts/score.py"], project / "scripts")

    names = {path.relative_to(project).as_posix() for path in closure}
    assert names == {n for n in SOURCES if "plot" not in n and "evidence" not in n}


def test_an_edit_of_an_indirect_import_changes_it(project):
    before, plot = of(project), of(project, "scripts/plot.py")

    edit(project, "scripts/knnlm/text/words.py", "WORDS = 4\n")

    assert of(project) != before
    assert of(project, "scripts/plot.py") == plot


def test_an_edit_of_a_data_file_beside_a_module_changes_it(project):
    before = of(project)

    edit(project, "scripts/knnlm/text/words_list.yaml", "[1]")

    assert of(project) != before


def test_comments_docstrings_and_dates_change_nothing(project):
    before = of(project)

    edit(
        project, "scripts/knnlm/text/words.py", "# a comment\nWORDS = 3\nDATA = 'words_list.yaml'\n"
    )
    edit(
        project,
        "scripts/knnlm/lm/scoring.py",
        SOURCES["scripts/knnlm/lm/scoring.py"].replace("Score.", "Score well."),
    )

    assert of(project) == before


def test_a_data_file_that_a_docstring_names_is_no_part_of_the_code(project):
    before = of(project)
    (project / "scripts/knnlm/text/other.yaml").write_text("{}")

    words = SOURCES["scripts/knnlm/text/words.py"]
    edit(project, "scripts/knnlm/text/words.py", f'"""Words, see other.yaml."""\n{words}')

    assert of(project) == before


def test_another_folder_gives_the_same_fingerprint(project, tmp_path_factory):
    clone = tmp_path_factory.mktemp("clone") / "project"
    shutil.copytree(project, clone)

    assert of(clone) == of(project)


def test_settings_change_it_but_their_order_does_not(project):
    assert of(project, lr=1, dim=2) == of(project, dim=2, lr=1)
    assert of(project, lr=1, dim=2) != of(project, lr=2, dim=1)


def test_a_syntax_error_names_file_and_line(project):
    edit(project, "scripts/knnlm/text/words.py", "WORDS = = 4\n")

    with pytest.raises(SyntaxError) as caught:
        of(project)

    assert caught.value.filename.endswith("words.py")
    assert caught.value.lineno == 1
