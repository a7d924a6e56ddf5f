"""What cannot be an adaptation is refused before any job, with a remedy."""

from pathlib import Path

import pytest
import yaml

from knnlm.experiments.domain_adaptation.checks import check
from knnlm.plan.texts import require_bytes
from knnlm.runtime.experiments import read_experiments, with_experiments
from knnlm.runtime.settings import SettingsError, resolve

ROOT = Path(__file__).parents[4]
CONFIG, SCHEMA = with_experiments(
    yaml.safe_load((ROOT / "config.yaml").read_text()),
    yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text()),
    read_experiments(ROOT).values(),
)


@pytest.mark.parametrize("scale", ["cpu", "gpu", "paper"])
def test_the_settings_of_every_scale_pass(scale):
    check(resolve(CONFIG, {"scale": scale}, SCHEMA))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {
                "tokenizers": {"its_own": {"source": "trained", "vocabulary_size": 2048}},
                "models": {"second": {"tokenizer": "its_own"}},
            },
            "domain_adaptation.trained_there: expected a model with the tokenizer of 'base', own, "
            "got 'second' with its_own; .* set models.second.tokenizer to own",
        ),
        (
            {"domain_adaptation": {"fine_tuned": ["second"]}},
            "domain_adaptation.fine_tuned: expected models that start from 'base', got 'second'; "
            "set models.second.starts_from to base",
        ),
        (
            {"domain_adaptation": {"trained_there": "longer"}},
            "domain_adaptation.trained_there: expected a model trained on 'letters', the corpus of "
            "datastores.adapting, got 'longer', trained on 'gazetteer'",
        ),
        (
            {"datastores": {"adapting": {"corpus": "gazetteer"}}},
            "datastores.adapting.corpus: expected another corpus than 'base' is trained on",
        ),
        (
            {"domain_adaptation": {"datastore": "second"}},
            "domain_adaptation.datastore: expected one with keys of 'base', .* got 'second' of "
            "'second'; let datastores.second extend base",
        ),
        (
            {"domain_adaptation": {"home": "adapting"}},
            "domain_adaptation.home: expected a datastore of 'gazetteer', the corpus that its "
            "model 'base' is trained on, got 'adapting' of 'letters'",
        ),
    ],
)
def test_what_is_no_adaptation_is_refused(change, message):
    with pytest.raises(SettingsError, match=message):
        check(resolve(CONFIG, change, SCHEMA))


def test_a_register_that_does_not_exist_is_refused():
    with pytest.raises(SettingsError, match=r"corpora.letters.register .* got 'verse'"):
        resolve(CONFIG, {"corpora": {"letters": {"register": "verse"}}}, SCHEMA)


def test_a_corpus_with_fewer_entries_than_neighbors_is_refused():
    asked = {"search": {"k": 300_000}, "experiments": ["domain_adaptation"]}
    settings = resolve(CONFIG, asked, SCHEMA)

    with pytest.raises(
        SettingsError, match=r"search.k in datastores.\w+: expected at most as many"
    ):
        require_bytes(settings)
