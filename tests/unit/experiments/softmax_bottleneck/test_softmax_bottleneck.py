"""The experiment end to end on a small model: what is projected, from where, and what is said."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lm_artifacts import MODEL, VOCABULARY, write_tokenizer, write_tokens
from retrieval_artifacts import files_of, find_neighbors, make_datastore, make_index, write_model

from knnlm.evidence.plotting import look, save_figure
from knnlm.evidence.tables import read_table, select, tidy, write_table
from knnlm.experiments.softmax_bottleneck import walks as softmax_bottleneck_walks
from knnlm.experiments.softmax_bottleneck.convex_projection import optimum
from knnlm.experiments.softmax_bottleneck.figure import draw_softmax_bottleneck
from knnlm.experiments.softmax_bottleneck.optima import Unit, project_on_heads, read_optima
from knnlm.experiments.softmax_bottleneck.problem import load_problem, spread
from knnlm.experiments.softmax_bottleneck.projection import mixture_nll
from knnlm.experiments.softmax_bottleneck.table import (
    best_of,
    evaluate_softmax_bottleneck,
    share_of_gap,
)
from knnlm.experiments.softmax_bottleneck.walks import (
    project_distributions,
    read_walks,
    walks_of,
)
from knnlm.lm.anatomy import head_weight
from knnlm.lm.model import create_model, load_model, save_model
from knnlm.lm.scoring import load_queries, score_queries
from knnlm.retrieval.interpolation import knn_log_probs, mix_log_probs
from knnlm.retrieval.neighbors import load_neighbors
from knnlm.retrieval.tuning import Point
from knnlm.runtime.artifacts import ArtifactError, identity, read_manifest, write_manifest
from knnlm.runtime.settings import SettingsError, resolve

ROOT = Path(__file__).parents[4]
SITE = "ffn_input_after_layer_norm"
N_DOCUMENTS, POSITIONS, K = 32, 70, 6
POINT = Point(k=K, temperature=20.0, lmbda=0.4)
MAPS = ("head", "f", "f_g")
SETTINGS = {
    "positions": POSITIONS,
    "last_layers": list(MAPS),
    "optimizers": {
        "large_lr": {"lr": 0.1, "tolerance": 1e-3, "max_steps": 30},
        "small_lr": {"lr": 1e-3, "tolerance": None, "max_steps": 4},
    },
    "long": {"lrs": [0.1, 0.03], "steps": 15},
    "optimum": {"tolerance": 1e-6, "max_evaluations": 2000},
    "ranks": [2, 8],
    "heads": ["narrow", "wide"],
    "tile": 32,
}
PUBLISHED = {"k": 4, "lmbda": 0.25, "temperature": 1.0}
KNN = {"index": "exact", "published": PUBLISHED, "bootstrap": {"samples": 100, "seed": 0}}
SEEDS = (0, 1)
KNN_TABLE = tidy(
    {"experiment": "knn_perplexity", "split": "validation", "method": "knn_lm", "seed": seed}
    | {"setting": "exact/tuned", "metric": metric, "value": value, "n": 1, "unit": "any"}
    for seed in SEEDS
    for metric, value in POINT._asdict().items()
)


def write_head(folder, tokenizer, *, width):
    """Write a model of another width."""
    folder.mkdir()
    shape = {**MODEL, "width": width, "ffn_width": 2 * width}
    model = create_model(shape, vocabulary_size=VOCABULARY, seed=1)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    save_model(model, folder)
    made_from = {"tokenizer": identity(tokenizer, kind="tokenizer")}
    write_manifest(folder, kind="model", settings={}, made_from=made_from, contents={})


def common(root):
    return {
        "fingerprint": "f",
        "model": root / "model",
        "queries": root / "queries",
        "neighbors": root / "neighbors",
        "knn_table": KNN_TABLE,
        "index": "exact",
        "site": SITE,
        "seed": 0,
        "settings": SETTINGS,
    }


def solve(root, output="optima", **changes):
    others = {name: root / name for name in SETTINGS["heads"]}
    arguments = {"output": root / output, "others": others, "published": PUBLISHED}
    project_on_heads(**common(root) | arguments | changes)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return what the workflow would have made for one seed."""
    root = tmp_path_factory.mktemp("run")
    tokenizer = write_tokenizer(root / "tokenizer")
    tokens = write_tokens(root / "tokens", tokenizer, lengths={"test": [7] * N_DOCUMENTS})
    model = write_model(root / "model", tokenizer)
    for name, width in {"narrow": 8, "wide": 24}.items():
        write_head(root / name, tokenizer, width=width)
    built = {"datastore": root / "datastore", "index": root / "index"}
    make_datastore(
        root / "datastore",
        tokens=tokens,
        model=model,
        site=SITE,
        stride=4,
        dtype="float16",
        shard_mib=1,
    )
    make_index(root / "index", datastore=root / "datastore", index={"engine": "exact"})
    score_queries(
        output=root / "queries",
        fingerprint="f",
        model=model,
        tokens=tokens,
        split="test",
        queries={"tokens": None, "tokens_per_document": None, "stride": 4, "seed": 0},
    )
    find_neighbors(
        root / "neighbors",
        queries=root / "queries",
        k=K,
        block_queries=64,
        recall_sample=8,
        seed=0,
        **built,
    )
    for name in MAPS:
        project_distributions(output=root / name, last_layers=name, **common(root))
    solve(root)
    return root


def evaluate(root, *, seeds=SEEDS[:1], **changes):
    """Return the table; every seed has the artifacts of the first."""
    arguments = {
        "corpus": "small",
        "model": "base",
        "seeds": list(seeds),
        "settings": SETTINGS,
        "knn": KNN,
        "knn_table": KNN_TABLE,
        "queries": [root / "queries" for _ in seeds],
        "neighbors": [root / "neighbors" for _ in seeds],
        "projections": [root / name for _ in seeds for name in MAPS],
        "optima": [root / "optima" for _ in seeds],
    }
    return evaluate_softmax_bottleneck(**arguments | changes)


@pytest.fixture(scope="module")
def table(folders):
    return evaluate(folders)


@pytest.fixture(scope="module")
def problem(folders):
    paths = {name: folders / name for name in ("model", "queries", "neighbors")}
    return load_problem(**paths, point=POINT, positions=POSITIONS, site=SITE)


def value(table, **names):
    return select(table, **names)["value"].item()


# What is projected


def test_positions_are_spread_evenly_over_all_documents(folders):
    queries = load_queries(folders / "queries")

    places = spread(queries.n_queries, positions=POSITIONS)

    assert len(np.unique(places)) == POSITIONS
    assert set(np.diff(places)) == {queries.n_queries // POSITIONS, 1 + queries.n_queries // 70}
    assert len(np.unique(queries.documents[places])) == N_DOCUMENTS
    assert spread(5, positions=9).tolist() == [0, 1, 2, 3, 4]


def test_the_target_is_the_knn_lm_of_the_stored_neighbors(folders, problem):
    queries, found = load_queries(folders / "queries"), load_neighbors(folders / "neighbors")

    actual = mixture_nll(problem.mixture, problem.targets, tile=9)

    knn = knn_log_probs(found.distances, found.values, queries.targets, temperature=20.0)
    expected = -mix_log_probs(queries.lm_log_probs, knn, POINT.lmbda)[problem.places]
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("last_layers", MAPS)
def test_every_map_gives_exactly_the_lm_where_it_starts_from_the_lm(problem, last_layers):
    z = problem.starts(last_layers)["from_lm"]

    log_probs = problem.map_of(last_layers)(z).double().log_softmax(dim=1)

    actual = log_probs.gather(1, problem.targets[:, None]).squeeze(1)
    expected = problem.queries.lm_log_probs[problem.places]
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_the_other_start_is_the_key(folders, problem):
    keys = load_queries(folders / "queries").hidden(SITE)[problem.places]

    for last_layers in ("head", "f"):
        np.testing.assert_array_equal(problem.starts(last_layers)["from_key"], keys)
    assert set(problem.starts("f_g")) == {"from_lm"}


def test_every_start_direction_and_optimizer_is_walked_and_long_walks_where_none_is_certified():
    names = {name: [walk.file for walk in walks_of(name, SETTINGS)] for name in MAPS}

    assert len(names["head"]) == 2 * 2 * 2
    assert len(names["f"]) == 2 * 2 * 2 + 2
    assert len(names["f_g"]) == 2 * 2 + 2
    assert "from_key.f_p.small_lr.npz" in names["f"]
    assert "from_lm.p_f.long_lr_0.03.npz" in names["f_g"]
    assert len(set(names["f"])) == len(names["f"])


# What is said of it


def test_the_share_of_the_gap_is_0_at_the_lm_and_1_at_the_knn_lm():
    lm, knn = np.log(80.0), np.log(60.0)

    shares = [share_of_gap(lm, knn, np.log(ppl)) for ppl in (80, 75, 60, 50, 90)]

    np.testing.assert_allclose(shares, [0, 0.25, 1, 1.5, -0.5], atol=1e-12)


def test_the_best_of_several_walks_is_chosen_by_its_kl_query_by_query():
    first = {"nll": [1.0, 2.0], "kl_p_f": [0.3, 0.1], "kl_f_p": [5.0, 6.0]}
    second = {"nll": [9.0, 0.0], "kl_p_f": [0.2, 0.4], "kl_f_p": [7.0, 8.0]}
    walked = [{name: np.array(v) for name, v in walk.items()} for walk in (first, second)]

    found = best_of(walked)

    assert {name: v.tolist() for name, v in found.items()} == {
        "nll": [9.0, 2.0],
        "kl_p_f": [0.2, 0.1],
        "kl_f_p": [7.0, 6.0],
    }


def test_lm_and_knn_lm_are_those_of_the_sampled_positions(folders, table):
    queries, found = load_queries(folders / "queries"), load_neighbors(folders / "neighbors")
    places = spread(queries.n_queries, positions=POSITIONS)
    lm = queries.lm_log_probs[places]

    knn = knn_log_probs(
        found.distances[places, :4],
        found.values[places, :4],
        queries.targets[places],
        temperature=1,
    )

    names = {"seed": "0", "metric": "perplexity_per_token"}
    assert value(table, method="lm", **names) == pytest.approx(np.exp(-lm.mean()))
    published = np.exp(-mix_log_probs(lm, knn, 0.25).mean())
    assert value(table, method="knn_lm", setting="published", **names) == pytest.approx(published)
    gap = value(table, method="knn_lm", setting="published", metric="perplexity_gap")
    assert gap == pytest.approx(np.exp(-lm.mean()) - published)
    assert value(table, metric="documents") == N_DOCUMENTS


def test_every_estimate_has_an_interval_around_it_and_every_row_the_number_of_positions(table):
    rows = table[table["metric"].str.startswith(("perplexity", "share", "kl", "starting", "nats"))]

    assert rows["ci_low"].notna().all()
    assert (rows["ci_low"] <= rows["value"] + 1e-12).all()
    assert (rows["value"] <= rows["ci_high"] + 1e-12).all()
    assert set(table[table["unit"] != "count"]["n"]) == {POSITIONS}


def test_all_maps_start_at_the_same_kl_from_the_lm(table):
    starts = table[(table["metric"] == "starting_kl_p_f") & table["setting"].str.contains("_lm/")]

    assert set(starts["method"]) == set(MAPS)
    np.testing.assert_allclose(starts["value"], starts["value"].iloc[0], rtol=1e-4)


def test_a_walk_lowers_the_kl_that_it_minimizes_and_counts_its_steps(table):
    for direction, kl in {"p||f": "kl_p_f", "f||p": "kl_f_p"}.items():
        for method in MAPS:
            names = {"method": method, "setting": f"tuned/from_lm/{direction}/small_lr"}
            start = value(table, metric=f"starting_{kl}", **names)
            assert value(table, metric=kl, **names) < start
            assert value(table, metric="steps", **names) == 4


@pytest.mark.parametrize("last_layers", MAPS)
def test_what_a_walk_minimizes_is_the_kl_of_its_direction(folders, problem, last_layers):
    for walk, found in read_walks(folders / last_layers, problem.places).items():
        kl = {"p||f": "kl_p_f", "f||p": "kl_f_p"}[walk.direction]
        ends = [found[f"start_{kl}"].mean(), found[kl].mean()]

        np.testing.assert_allclose(found["kl_trace"][[0, -1]], ends, atol=1e-5)


def test_every_optimum_is_certified_and_nothing_that_ends_in_the_head_comes_nearer(table):
    assert (select(table, metric="certified")["value"] == 1).all()
    assert (select(table, metric="gradient_norm_max")["value"] <= 1e-6).all()
    assert (select(table, metric="kl_p_f_above_optimum")["value"] > -1e-9).all()
    best = [value(table, method=m, setting="tuned/best", metric="kl_p_f") for m in ("f", "f_g")]
    walks = table[(table["metric"] == "kl_p_f") & table["setting"].str.contains("/p||f/", regex=0)]
    for method, bound in zip(("f", "f_g"), best, strict=True):
        assert bound <= walks[walks["method"] == method]["value"].min()


def test_a_head_of_lower_rank_is_farther_and_ranks_are_those_of_the_heads(table):
    settings = [f"tuned/optimum/{name}" for name in ("rank_2", "rank_8", "own")]

    kls = [value(table, setting=setting, metric="kl_p_f") for setting in settings]

    assert kls[0] > kls[1] > kls[2] > 0
    ranks = select(table, metric="rank").set_index("setting")["value"].to_dict()
    assert ranks == {
        "tuned/optimum/own": 16,
        "tuned/optimum/rank_2": 2,
        "tuned/optimum/rank_8": 8,
        "tuned/optimum/narrow": 8,
        "tuned/optimum/wide": 24,
        "published/optimum/own": 16,
    }


@pytest.mark.parametrize("unit", [("tuned", "rank_8"), ("tuned", "narrow"), ("published", "own")])
def test_an_optimum_is_that_of_its_target_on_its_head(folders, unit):
    target, head = unit
    paths = {name: folders / name for name in ("model", "queries", "neighbors")}
    point = {"tuned": POINT, "published": Point(**PUBLISHED)}[target]
    problem = load_problem(**paths, point=point, positions=POSITIONS, site=SITE)
    own, narrow = (head_weight(load_model(folders / name)) for name in ("model", "narrow"))
    left, sizes, _ = torch.linalg.svd(own.detach().double(), full_matrices=False)
    heads = {"own": own, "narrow": narrow, "rank_8": left[:, :8] * sizes[:8]}

    found = read_optima(folders / "optima", problem.places)[Unit(*unit)]

    start = torch.zeros(POSITIONS, heads[head].shape[1])
    expected = optimum(
        heads[head].detach(),
        problem.mixture,
        start,
        tolerance=1e-8,
        max_evaluations=2000,
        tile=99,
    )
    np.testing.assert_allclose(found["kl_p_f"], expected.kl, atol=1e-9)


def test_several_seeds_have_their_rows_and_means_over_them(folders, table):
    several = evaluate(folders, seeds=SEEDS)

    for seed in ("0", "1"):
        rows = select(several, seed=seed)
        assert rows["value"].tolist() == table["value"].tolist()
    assert set(several["seed"]) == {"0", "1", "all"}


@pytest.mark.parametrize("seeds", [SEEDS[:1], SEEDS])
def test_the_figure_is_drawn_from_the_table_alone(folders, tmp_path, seeds):
    written = evaluate(folders, seeds=seeds)
    far = (written["metric"] == "share_of_gap") & (written["method"] == "f")
    written.loc[far, ["value", "ci_low", "ci_high"]] = -7.25
    write_table(tmp_path / "table.csv", written)

    for name in ("a", "b"):
        with look():
            figure = draw_softmax_bottleneck(read_table(tmp_path / "table.csv"))
            save_figure(figure, svg=tmp_path / f"{name}.svg", png=tmp_path / f"{name}.png")

    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    left, right = figure.axes
    lines = [label.get_text() for label in left.get_yticklabels()]
    assert lines[0] == "head, optimum"
    assert len(lines) == 8
    assert "-7.25" in {text.get_text() for text in left.texts}
    assert {text.get_text() for text in right.texts} == {"narrow", "wide"}


# Kills, and what does not belong together


class KilledError(Exception):
    """Stands for a kill."""


def test_a_killed_run_goes_on_with_the_next_walk_and_ends_in_the_same_bytes(
    folders, tmp_path, monkeypatch
):
    output, taken, project = tmp_path / "f_g", [], softmax_bottleneck_walks.project

    def project_until(*arguments, at, **settings):
        taken.append(settings["lr"])
        if len(taken) == at:
            raise KilledError
        return project(*arguments, **settings)

    arguments = {**common(folders), "output": output, "last_layers": "f_g"}
    for at in (3, None):
        monkeypatch.setattr(
            softmax_bottleneck_walks,
            "project",
            lambda *a, at=at, **s: project_until(*a, at=at, **s),
        )
        if at is None:
            project_distributions(**arguments)
        else:
            with pytest.raises(KilledError):
                project_distributions(**arguments)

    assert len(taken) == len([*walks_of("f_g", SETTINGS)]) + 1
    assert files_of(output) == files_of(folders / "f_g")


def test_a_head_of_other_tokens_is_refused(folders, tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer", name="theirs")
    write_head(tmp_path / "foreign", tokenizer, width=8)

    with pytest.raises(ArtifactError, match="was made from another tokenizer"):
        solve(folders, "refused", others={"narrow": tmp_path / "foreign"})


def test_projections_of_other_positions_or_queries_are_refused(folders, tmp_path):
    with pytest.raises(ArtifactError, match="it holds others"):
        evaluate(folders, settings={**SETTINGS, "positions": 60})

    foreign = tmp_path / "optima"
    foreign.mkdir()
    manifest = read_manifest(folders / "optima", kind="optima")
    made_from = manifest["made_from"] | {"queries": "others"}
    write_manifest(foreign, kind="optima", settings={}, made_from=made_from, contents={})
    with pytest.raises(ArtifactError, match="was made from another queries"):
        evaluate(folders, optima=[foreign])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": ["gpt5"]}, r"softmax_bottleneck\.heads: unknown name 'gpt5'"),
        (
            {"ranks": [8, 128]},
            r"ranks: expected ranks below 128, the width of model 'base', got 128",
        ),
    ],
)
def test_heads_and_ranks_that_do_not_exist_are_refused_before_any_job(change, message):
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())

    with pytest.raises(SettingsError, match=message):
        resolve(config, {"softmax_bottleneck": change}, schema)
