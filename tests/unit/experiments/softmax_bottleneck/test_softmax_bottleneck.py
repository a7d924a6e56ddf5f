"""The experiment end to end on a small model: what is projected, from where, and what is said."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lm_artifacts import MODEL, VOCABULARY, write_tokenizer, write_tokens
from retrieval_artifacts import (
    files_of,
    find_neighbors,
    make_datastore,
    make_index,
    write_model,
    write_scored,
)
from scored_run_artifacts import called, of_another_seed, write_point

from knnlm.evidence.claims import Evidence, evaluate_claims, read_claims
from knnlm.evidence.intervals import DocumentBootstrap
from knnlm.evidence.metrics import share_of_gap
from knnlm.evidence.plotting import look, save_figure
from knnlm.evidence.tables import read_table, select, write_table
from knnlm.experiments.softmax_bottleneck import table as softmax_bottleneck_table
from knnlm.experiments.softmax_bottleneck import walks as softmax_bottleneck_walks
from knnlm.experiments.softmax_bottleneck.checks import check
from knnlm.experiments.softmax_bottleneck.convex_projection import optimum
from knnlm.experiments.softmax_bottleneck.figure import draw
from knnlm.experiments.softmax_bottleneck.optima import Unit, project_on_heads, read_optima
from knnlm.experiments.softmax_bottleneck.problem import ProjectionInputs, load_problem, points_of
from knnlm.experiments.softmax_bottleneck.projection import score
from knnlm.experiments.softmax_bottleneck.table import evaluate
from knnlm.experiments.softmax_bottleneck.walk_rows import best_of
from knnlm.experiments.softmax_bottleneck.walks import (
    project_distributions,
    read_walks,
    walks_of,
)
from knnlm.lm.anatomy import head_weight
from knnlm.lm.model import create_model, load_model, save_model
from knnlm.lm.scoring import load_queries
from knnlm.retrieval.interpolation import knn_log_probs, mix_log_probs
from knnlm.retrieval.neighbors import load_neighbors
from knnlm.retrieval.sampling import evenly_spaced
from knnlm.retrieval.tuning import Point
from knnlm.runtime.artifacts import ArtifactError, identity, read_manifest, write_manifest
from knnlm.runtime.experiments import read_experiments, with_experiments
from knnlm.runtime.making import Target
from knnlm.runtime.seeds import numpy_generator
from knnlm.runtime.settings import SettingsError, resolve

ROOT = Path(__file__).parents[4]
SITE = "ffn_input_after_layer_norm"
N_DOCUMENTS, POSITIONS, K = 32, 70, 6
POINT = Point(k=K, temperature=20.0, lmbda=0.4)
MAPS = ("f", "norm_and_f", "f_g")
SETTINGS = {
    "positions": POSITIONS,
    "last_layers": list(MAPS),
    "optimizers": {
        "large_lr": {
            "lr": 0.1,
            "max_steps": 30,
            "targets": ["tuned", "published", "published_tuned_temperature"],
            "stops": {
                "mean": {"whose": "mean", "tolerance": 1e-3},
                "each": {"whose": "each", "tolerance": 1e-3},
                "tight": {"whose": "mean", "tolerance": 1e-5},
            },
        },
        "small_lr": {
            "lr": 1e-3,
            "max_steps": 4,
            "targets": ["tuned", "published"],
            "stops": {"end": {"whose": "mean", "tolerance": None}},
        },
    },
    "long": {"lrs": [0.1, 0.03], "steps": 15},
    "optimum": {"tolerance": 1e-6, "max_evaluations": 2000},
    "ranks": [2, 8],
    "heads": ["narrow", "wide"],
    "tile": 32,
}
PUBLISHED = {"k": 4, "lmbda": 0.25, "temperature": 1.0}
BASELINE = {"datastore": "base", "index": "exact", "published": PUBLISHED}
POINTS = points_of(POINT, PUBLISHED)
BASELINE |= {"bootstrap": {"samples": 100, "seed": 0}}
SEEDS = (0, 1)
RUN = {
    "corpus": "small",
    "baseline": BASELINE,
    "datastores": {"base": {"model": "base"}},
    "softmax_bottleneck": SETTINGS,
}
SEED_0 = {"seed": "0"}


def write_head(folder, tokenizer, *, name, width):
    """Write a model of another width."""
    folder.mkdir(parents=True)
    shape = {**MODEL, "width": width, "ffn_width": 2 * width}
    model = create_model(shape, vocabulary_size=VOCABULARY, seed=1)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    save_model(model, folder)
    made_from = {"tokenizer": identity(tokenizer, kind="tokenizer")}
    write_manifest(
        folder,
        kind="model",
        names={"model": name, **SEED_0},
        settings={},
        made_from=made_from,
        contents={},
    )


def inputs_of(root):
    return ProjectionInputs(
        model=root / "models/base/seed0",
        queries=root / "queries/base/seed0/small/test",
        neighbors=root / "neighbors/base/seed0/exact/small/test",
        site=SITE,
    )


def walk(root, output, last_layers):
    target = Target(output, "f", SEED_0 | {"last_layers": last_layers})
    project_distributions(target, inputs=inputs_of(root), points=POINTS, settings=SETTINGS)


def solve(root, output, others=None):
    project_on_heads(
        Target(output, "f", SEED_0),
        inputs=inputs_of(root),
        others=others or [root / f"models/{name}/seed0" for name in reversed(SETTINGS["heads"])],
        points=POINTS,
        settings=SETTINGS,
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return what the workflow would have made for one seed."""
    root = tmp_path_factory.mktemp("run")
    tokenizer = write_tokenizer(root / "tokenizer")
    tokens = write_tokens(root / "tokens", tokenizer, lengths={"test": [7] * N_DOCUMENTS})
    inputs = inputs_of(root)
    called(write_model(inputs.model, tokenizer), model="base", **SEED_0)
    for name, width in {"narrow": 8, "wide": 24}.items():
        write_head(root / f"models/{name}/seed0", tokenizer, name=name, width=width)
    lm = {"tokens": tokens, "model": inputs.model}
    store, index = root / "datastores/base/seed0", root / "indexes/base/seed0/exact"
    make_datastore(store, site=SITE, stride=4, dtype="float16", shard_mib=1, **lm)
    make_index(index, datastore=store, index={"engine": "exact", "metric": "l2"})
    every = {"tokens": None, "tokens_per_document": None, "stride": 4, "seed": 0}
    write_scored(inputs.queries, split="test", queries=every, **lm)
    called(inputs.queries, model="base", corpus="small", split="test", **SEED_0)
    find_neighbors(
        inputs.neighbors,
        datastore=store,
        index=index,
        queries=inputs.queries,
        k=K,
        block_queries=64,
        recall_sample=8,
    )
    names = {"datastore": "base", "index": "exact", "corpus": "small", **SEED_0}
    called(inputs.neighbors, split="test", **names)
    write_point(root / "tuned/base/seed0/exact/small.json", POINT, **names)
    for name in MAPS:
        walk(root, root / f"projections/seed0/{name}", name)
    solve(root, root / "projections/seed0/optima")
    return root


def evaluate_seeds(root, *, seeds=SEEDS[:1], settings=SETTINGS, order=list, **changes):
    """Return the table; every seed has the artifacts of the first."""
    found = inputs_of(root)
    first = {
        "queries": [found.queries],
        "neighbors": [found.neighbors],
        "tuned": [root / "tuned/base/seed0/exact/small.json"],
        "projections": [root / f"projections/seed0/{name}" for name in MAPS],
        "optima": [root / "projections/seed0/optima"],
    }
    inputs = {
        name: order(
            [of_another_seed(path, seed) if seed else path for seed in seeds for path in of_0]
        )
        for name, of_0 in first.items()
    }
    run = RUN | {"lm_seeds": list(seeds), "softmax_bottleneck": settings}
    return evaluate(inputs | changes, run)["table"]


@pytest.fixture(scope="module")
def table(folders):
    return evaluate_seeds(folders)


@pytest.fixture(scope="module")
def problem(folders):
    return load_problem(inputs_of(folders), POINT, positions=POSITIONS)


def bootstrap_of(root, places):
    """Return the resampled documents of the sampled positions."""
    queries = load_queries(inputs_of(root).queries)
    return DocumentBootstrap(
        queries.documents[places],
        samples=BASELINE["bootstrap"]["samples"],
        generator=numpy_generator(BASELINE["bootstrap"]["seed"], "bootstrap", "documents"),
    )


def read_scored(root):
    found = inputs_of(root)
    return load_queries(found.queries), load_neighbors(found.neighbors)


def value(table, **names):
    return select(table, **names)["value"].item()


# What is projected


def test_positions_are_of_all_documents(folders, problem):
    queries = load_queries(inputs_of(folders).queries)

    assert len(np.unique(problem.places)) == POSITIONS
    assert len(np.unique(queries.documents[problem.places])) == N_DOCUMENTS


@pytest.mark.parametrize("k", [2, K])
def test_the_target_is_the_knn_lm_of_the_k_nearest_stored_neighbors(folders, k):
    queries, found = read_scored(folders)
    problem = load_problem(inputs_of(folders), POINT._replace(k=k), positions=POSITIONS)

    log_probs = problem.mixture.log_probs(slice(None))

    nearest = (found.distances[:, :k], found.values[:, :k])
    knn = knn_log_probs(*nearest, queries.targets, temperature=20.0)
    expected = -mix_log_probs(queries.lm_log_probs, knn, POINT.lmbda)[problem.places]
    actual = -log_probs.gather(1, problem.targets[:, None]).squeeze(1)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("last_layers", MAPS)
def test_every_map_gives_exactly_the_lm_where_it_starts_from_the_lm(problem, last_layers):
    z = problem.starts(last_layers)["from_lm"]

    log_probs = problem.map_of(last_layers)(z).double().log_softmax(dim=1)

    actual = log_probs.gather(1, problem.targets[:, None]).squeeze(1)
    expected = problem.queries.lm_log_probs[problem.places]
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_the_other_start_is_the_key(folders, problem):
    keys = load_queries(inputs_of(folders).queries).hidden(SITE)[problem.places]

    np.testing.assert_array_equal(problem.starts("f")["from_key"], keys)
    assert set(problem.starts("norm_and_f")) == set(problem.starts("f_g")) == {"from_lm"}


def test_f_is_the_head_alone_as_in_the_paper(folders, problem):
    weight = head_weight(load_model(folders / "models/base/seed0"))
    z = torch.randn(3, weight.shape[1], generator=torch.Generator().manual_seed(0))

    torch.testing.assert_close(problem.map_of("f")(z), z @ weight.T)


def test_what_is_projected_is_the_tuned_knn_lm_and_the_published_at_either_temperature():
    tuned = Point(k=6, temperature=20.0, lmbda=0.4)

    points = points_of(tuned, {"k": 1024, "lmbda": 0.25, "temperature": 1.0})

    assert points == {
        "tuned": tuned,
        "published": Point(k=1024, temperature=1.0, lmbda=0.25),
        "published_tuned_temperature": Point(k=1024, temperature=20.0, lmbda=0.25),
    }


def test_every_target_start_direction_and_optimizer_is_walked_and_long_where_none_is_certified():
    names = {name: [walk.file for walk in walks_of(name, SETTINGS)] for name in MAPS}

    assert len(names["f"]) == (3 + 2) * 2 * 2 + 2  # targets, starts, directions
    assert len(names["norm_and_f"]) == (1 + 1) * 2 + 2 * 2
    assert len(names["f_g"]) == (3 + 2) * 2 + 2 * 2
    assert "published.from_key.f_p.small_lr.npz" in names["f"]
    assert "tuned.from_lm.f_p.long_lr_0.03.npz" in names["f"]
    assert "tuned.from_lm.p_f.long_lr_0.03.npz" not in names["f"]  # its optimum is certified
    assert "tuned.from_lm.p_f.long_lr_0.03.npz" in names["f_g"]
    assert len(set(names["f"])) == len(names["f"])


@pytest.mark.parametrize("target", POINTS)
def test_the_kls_of_a_walk_are_those_of_its_own_start_to_its_own_target(folders, problem, target):
    mixture = load_problem(inputs_of(folders), POINTS[target], positions=POSITIONS).mixture
    at = {
        start: score(problem.map_of("f"), z, mixture, problem.targets, tile=POSITIONS)
        for start, z in problem.starts("f").items()
    }

    for walk, found in read_walks(folders / "projections/seed0/f", problem.places).items():
        if walk.target == target:
            np.testing.assert_allclose(found["start_kl_p_f"], at[walk.start].kl_p_f, atol=1e-9)
            np.testing.assert_allclose(found["start_kl_f_p"], at[walk.start].kl_f_p, atol=1e-9)


# What is said of it


def test_the_share_of_the_gap_is_0_at_the_lm_and_1_at_the_knn_lm():
    lm, knn = np.log(80.0), np.log(60.0)

    shares = [share_of_gap(lm, knn, np.log(ppl)) for ppl in (80, 75, 60, 50, 90)]

    np.testing.assert_allclose(shares, [0, 0.25, 1, 1.5, -0.5], atol=1e-12)


def test_the_best_of_several_walks_is_chosen_by_its_kl_query_by_query():
    first = {"nll": [1.0, 2.0], "kl_p_f": [0.3, 0.1], "kl_f_p": [5.0, 6.0]}
    second = {"nll": [9.0, 0.0], "kl_p_f": [0.2, 0.4], "kl_f_p": [7.0, 8.0]}
    walked = [{name: np.array(v) for name, v in walk.items()} for walk in (first, second)]

    found = [best_of(walked, kl) for kl in ("kl_p_f", "kl_f_p")]

    assert [{name: v.tolist() for name, v in best.items()} for best in found] == [
        {"nll": [9.0, 2.0], "kl_p_f": [0.2, 0.1], "kl_f_p": [7.0, 6.0]},
        {"nll": [1.0, 2.0], "kl_p_f": [0.3, 0.1], "kl_f_p": [5.0, 6.0]},
    ]


def test_lm_and_knn_lm_are_those_of_the_sampled_positions(folders, table):
    queries, found = read_scored(folders)
    places = evenly_spaced(queries.n_queries, POSITIONS)
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


@pytest.mark.parametrize(("method", "share"), [("lm", 0), ("knn_lm", 1)])
def test_the_share_of_the_gap_is_paired_with_lm_and_knn_lm_position_by_position(
    folders, monkeypatch, method, share
):
    """A projection that predicts as the LM, or as the kNN-LM, has its share in every resample."""
    queries, found = read_scored(folders)

    def nll_of(target, places):
        k, temperature, lmbda = POINTS[target]
        nearest = (found.distances[places, :k], found.values[places, :k])
        knn = knn_log_probs(*nearest, queries.targets[places], temperature=temperature)
        lm = queries.lm_log_probs[places]
        return {"lm": -lm, "knn_lm": -mix_log_probs(lm, knn, lmbda)}[method]

    def read(folder, places):
        solved = read_optima(folder, places)
        return {unit: of | {"nll": nll_of(unit.target, places)} for unit, of in solved.items()}

    monkeypatch.setattr(softmax_bottleneck_table, "read_optima", read)

    table = evaluate_seeds(folders)

    for name in POINTS:
        rows = select(table, method="f", setting=f"{name}/optimum/own")
        shares = select(rows, metric="share_of_gap")[["value", "ci_low", "ci_high"]]
        differences = select(rows, metric=f"nats_per_token_vs_{method}")
        np.testing.assert_allclose(shares, [[share] * 3], atol=1e-9)
        np.testing.assert_allclose(differences[shares.columns], [[0] * 3], atol=1e-12)


def test_every_estimate_has_an_interval_around_it_and_every_row_the_number_of_positions(table):
    rows = table[table["metric"].str.startswith(("perplexity", "share", "kl", "starting", "nats"))]

    assert rows["ci_low"].notna().all()
    assert (rows["ci_low"] <= rows["value"] + 1e-12).all()
    assert (rows["value"] <= rows["ci_high"] + 1e-12).all()
    assert set(table[table["unit"] != "count"]["n"]) == {POSITIONS}


def test_where_a_map_gives_the_lm_the_rows_of_its_start_are_those_of_the_lm(table):
    for method in MAPS:
        start = {"method": method, "setting": "tuned/from_lm/start"}

        assert value(table, metric="share_of_gap", **start) == pytest.approx(0, abs=1e-3)
        for kl in ("kl_p_f", "kl_f_p"):
            of_f = value(table, method="f", setting="tuned/from_lm/start", metric=kl)
            assert value(table, metric=kl, **start) == pytest.approx(of_f, rel=1e-4)


def test_a_walk_lowers_the_kl_that_it_minimizes_and_counts_its_updates(table):
    for direction, kl in {"p||f": "kl_p_f", "f||p": "kl_f_p"}.items():
        for method in MAPS:
            start = value(table, method=method, setting="tuned/from_lm/start", metric=kl)
            names = {"method": method, "setting": f"tuned/from_lm/{direction}/small_lr/end"}
            assert value(table, metric=kl, **names) < start
            assert value(table, metric="minimized_kl", **names) == value(table, metric=kl, **names)
            assert value(table, metric="updates", **names) == 4
            assert value(table, metric="stopped", **names) == 0


@pytest.mark.parametrize("last_layers", MAPS)
def test_what_a_walk_minimizes_is_the_kl_of_its_direction(folders, problem, last_layers):
    for walk, found in read_walks(
        folders / f"projections/seed0/{last_layers}", problem.places
    ).items():
        kl = {"p||f": "kl_p_f", "f||p": "kl_f_p"}[walk.direction]
        for stop in walk.stops:
            if stop.whose == "mean":  # all queries end together
                updates = found[f"at_{stop.name}_updates"][0]
                ends = [found[f"start_{kl}"].mean(), found[f"at_{stop.name}_{kl}"].mean()]
                trace = found["kl_trace"][[0, updates]]
                np.testing.assert_allclose(trace, ends, atol=1e-5)


def test_differences_between_walks_are_paired_position_by_position(folders, table, problem):
    def nll(last_layers, start, direction, stop):
        found = read_walks(folders / f"projections/seed0/{last_layers}", problem.places)
        (walk,) = (
            walk
            for walk in found
            if walk[:4] == ("published", start, direction, stop.split("/")[0])
        )
        return found[walk][f"at_{stop.split('/')[1]}_nll"]

    def check(method, start, direction, stop, against, other):
        names = {"method": method, "setting": f"published/{start}/{direction}/{stop}"}
        row = select(table, metric=f"nats_per_token_vs_{against}", **names)
        difference = nll(method, start, direction, stop) - nll(*other)
        assert row["value"].item() == pytest.approx(difference.mean())
        interval = bootstrap_of(folders, problem.places).ratio(difference)
        np.testing.assert_allclose(row[["ci_low", "ci_high"]].to_numpy()[0], interval)

    small, large = "small_lr/end", "large_lr/mean"
    check("f_g", "from_lm", "f||p", small, "f_from_lm", ("f", "from_lm", "f||p", small))
    check("f_g", "from_lm", "p||f", small, "f_from_key", ("f", "from_key", "p||f", small))
    check("f", "from_key", "f||p", large, "p||f", ("f", "from_key", "p||f", large))
    check("f", "from_key", "f||p", large, "tight", ("f", "from_key", "f||p", "large_lr/tight"))


def test_an_end_is_held_against_the_knn_lm_and_the_optimum_of_its_own_target(
    folders, table, problem
):
    optima = read_optima(folders / "projections/seed0/optima", problem.places)
    perplexities = select(table, method="knn_lm", metric="perplexity_per_token")
    knn = dict(zip(perplexities["setting"], np.log(perplexities["value"]), strict=True))

    for walk, found in read_walks(folders / "projections/seed0/f", problem.places).items():
        for stop in walk.stops:
            rows = select(table, method="f", setting="/".join([*walk[:4], stop.name]))
            values = rows.set_index("metric")["value"]
            nll, kl = (found[f"at_{stop.name}_{name}"] for name in ("nll", "kl_p_f"))
            above = (kl - optima[Unit(walk.target, "own")]["kl_p_f"]).mean()
            gain = nll.mean() - knn[walk.target]
            assert values["nats_per_token_vs_knn_lm"] == pytest.approx(gain)
            assert values["kl_p_f_above_optimum"] == pytest.approx(above, abs=1e-9)


def test_each_claim_has_a_verdict_for_each_reading_that_the_text_allows(table):
    experiment = "softmax_bottleneck"
    claims = read_claims([ROOT / f"workflow/experiments/{experiment}/claims.yaml"])
    evidence = Evidence({experiment: table}, {experiment: experiment}, settings={})

    verdicts = evaluate_claims(claims, evidence).set_index("id")

    counts = verdicts.index.str.partition("/").get_level_values(0).value_counts().to_dict()
    assert counts == {
        "bottleneck_is_not_the_cause": 3,  # targets
        "optimum_has_the_perplexity_of_knn": 3,
        "projection_to_f_has_the_perplexity_of_knn": 3 * 2 * 2,  # and starts and directions
        "projection_to_f_g_has_the_perplexity_of_knn": 3 * 2,  # one start
        "projection_to_f_has_small_kl": 3 * 2 * 2,
        "projection_to_f_g_has_small_kl": 3 * 2,
        "kl_f_p_of_the_lm_is_not_small": 3,
        "kl_p_f_of_the_lm_is_not_small": 3,
        "small_steps_are_harder_with_the_mlp": 2 * 2,
        "small_steps_are_harder_with_the_mlp_same_start": 2 * 2,
    }
    printed = "published/from_key/f||p/large_lr/mean"
    ours = verdicts.loc[f"projection_to_f_has_small_kl/{printed}", "ours"]
    assert ours == value(table, method="f", setting=printed, metric="kl_f_p")


def test_nothing_is_compared_with_itself(table):
    rows = select(table, method="f", setting="tuned/from_lm/p||f/large_lr/tight")

    compared = {m for m in rows["metric"] if m.startswith("nats_per_token_vs_")}

    assert compared == {f"nats_per_token_vs_{name}" for name in ("lm", "knn_lm", "f_from_key")}


def test_every_rule_of_a_stop_has_rows_and_the_tighter_one_is_not_farther(table):
    kls = {
        stop: value(
            table,
            method="f",
            setting=f"tuned/from_lm/f||p/large_lr/{stop}",
            metric="minimized_kl",
        )
        for stop in ("mean", "each", "tight")
    }

    assert kls["tight"] <= kls["mean"]


def test_every_optimum_is_certified_and_nothing_that_ends_in_the_head_comes_nearer(table):
    assert (select(table, metric="certified")["value"] == 1).all()
    assert (select(table, metric="gradient_norm_max")["value"] <= 1e-6).all()
    above = select(table, metric="kl_p_f_above_optimum")
    assert set(above["setting"].str.split("/").str[0]) == set(POINTS)
    assert (above["value"] > -1e-9).all()


@pytest.mark.parametrize(("direction", "kl"), [("p||f", "kl_p_f"), ("f||p", "kl_f_p")])
def test_the_best_bounds_every_walk_of_its_map_and_target(table, direction, kl):
    rows = select(table, metric=kl)

    for method, of_map in rows[rows["method"].isin(MAPS)].groupby("method"):
        for target in POINTS:
            settings = of_map["setting"].str
            best = of_map[of_map["setting"] == f"{target}/best/{direction}"]["value"]
            walks = of_map[settings.startswith(f"{target}/from") & settings.contains("_lr")]
            assert best.empty == ((method == "f" and direction == "p||f") or walks.empty)
            assert best.empty or best.item() <= walks["value"].min()


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
        "published_tuned_temperature/optimum/own": 16,
    }


@pytest.mark.parametrize("unit", [("tuned", "rank_8"), ("tuned", "narrow"), ("published", "own")])
def test_an_optimum_is_that_of_its_target_on_its_head(folders, unit):
    target, head = unit
    problem = load_problem(inputs_of(folders), POINTS[target], positions=POSITIONS)
    own, narrow = (
        head_weight(load_model(folders / f"models/{name}/seed0")) for name in ("base", "narrow")
    )
    left, sizes, _ = torch.linalg.svd(own.detach().double(), full_matrices=False)
    heads = {"own": own, "narrow": narrow, "rank_8": left[:, :8] * sizes[:8]}

    found = read_optima(folders / "projections/seed0/optima", problem.places)[Unit(*unit)]

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
    several = evaluate_seeds(folders, seeds=SEEDS)

    for seed in ("0", "1"):
        rows = select(several, seed=seed)
        assert rows["value"].tolist() == table["value"].tolist()
    assert set(several["seed"]) == {"0", "1", "all"}


@pytest.mark.parametrize("seeds", [SEEDS[:1], SEEDS])
def test_the_figure_is_drawn_from_the_table_alone(folders, tmp_path, seeds):
    written = evaluate_seeds(folders, seeds=seeds)
    far = (written["metric"] == "share_of_gap") & (written["method"] == "norm_and_f")
    written.loc[far, ["value", "ci_low", "ci_high"]] = -7.25
    write_table(tmp_path / "table.csv", written)

    for name in ("a", "b"):
        with look():
            figure = draw({"table": read_table(tmp_path / "table.csv")})
            save_figure(figure, svg=tmp_path / f"{name}.svg", png=tmp_path / f"{name}.png")

    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    *targets, ranks = figure.axes
    assert [axes.get_title() for axes in targets] == [
        "tuned",
        "published",
        "published, tuned temperature",
    ]
    lines = [label.get_text() for label in targets[0].get_yticklabels()]
    assert lines[:3] == ["f, nearest", "f, from the LM", "f, from enc(c)"]
    assert len(lines) == 7
    assert "-7.25" in {text.get_text() for text in targets[0].texts}
    assert {text.get_text() for text in ranks.texts} == {"narrow", "wide"}


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

    for at in (3, None):
        monkeypatch.setattr(
            softmax_bottleneck_walks,
            "project",
            lambda *a, at=at, **s: project_until(*a, at=at, **s),
        )
        if at is None:
            walk(folders, output, "f_g")
        else:
            with pytest.raises(KilledError):
                walk(folders, output, "f_g")

    assert len(taken) == len([*walks_of("f_g", SETTINGS)]) + 1
    assert files_of(output) == files_of(folders / "projections/seed0/f_g")


def test_a_head_of_other_tokens_is_refused(folders, tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer", name="theirs")
    foreign = tmp_path / "models/narrow/seed0"
    write_head(foreign, tokenizer, name="narrow", width=8)

    with pytest.raises(ArtifactError, match=f"{foreign} was made from another tokenizer"):
        solve(folders, tmp_path / "refused", [foreign, folders / "models/wide/seed0"])


def test_projections_of_other_positions_are_refused(folders):
    with pytest.raises(ArtifactError, match="it holds others"):
        evaluate_seeds(folders, settings={**SETTINGS, "positions": 60})


def test_optima_of_other_queries_are_refused(folders, tmp_path):
    foreign = tmp_path / "projections/seed0/optima"
    foreign.mkdir(parents=True)
    manifest = read_manifest(folders / "projections/seed0/optima", kind="optima")
    parts = {name: manifest[name] for name in ("names", "settings", "contents")}
    made_from = manifest["made_from"] | {"queries": "others"}
    write_manifest(foreign, kind="optima", made_from=made_from, **parts)

    with pytest.raises(ArtifactError, match=f"{foreign} was made from another queries"):
        evaluate_seeds(folders, optima=[foreign])


def test_folders_in_another_order_give_the_same_table(folders):
    one, other = (
        evaluate_seeds(folders, seeds=SEEDS, order=order)
        for order in (list, lambda paths: paths[::-1])
    )

    assert one.equals(other)


def test_a_projection_in_the_place_of_another_map_stops_with_its_name(folders, tmp_path):
    moved = tmp_path / "projections/seed0/norm_and_f"
    shutil.copytree(folders / "projections/seed0/f_g", moved)
    given = [folders / "projections/seed0/f", moved, folders / "projections/seed0/f_g"]

    with pytest.raises(ArtifactError, match=f"expected {moved} to be what its path says"):
        evaluate_seeds(folders, projections=given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": ["gpt5"]}, r"softmax_bottleneck\.heads\.0: unknown name 'gpt5'"),
        (
            {"ranks": [8, 64]},
            r"ranks: expected ranks below 64, the width of model 'base', got 64",
        ),
    ],
)
def test_heads_and_ranks_that_do_not_exist_are_refused_before_any_job(change, message):
    config, schema = with_experiments(
        yaml.safe_load((ROOT / "config.yaml").read_text()),
        yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text()),
        read_experiments(ROOT).values(),
    )

    with pytest.raises(SettingsError, match=message):
        check(resolve(config, {"softmax_bottleneck": change}, schema))
