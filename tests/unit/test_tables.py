"""Tidy tables: columns, checks, bytes."""

import numpy as np
import pandas as pd
import pytest

from knnlm.evidence.cost import collect_costs
from knnlm.evidence.tables import (
    COLUMNS,
    means_over_seeds,
    over_seeds,
    read_table,
    select,
    tidy,
    write_csv,
    write_table,
)

ROW = {
    "experiment": "knn_perplexity",
    "method": "lm",
    "seed": 0,
    "metric": "perplexity_per_token",
    "value": 12.3456789012345,
    "n": 8000,
    "unit": "perplexity",
}


def test_columns_are_in_the_standard_order_and_what_does_not_apply_is_empty():
    table = tidy([ROW])

    assert tuple(table.columns) == COLUMNS
    assert table.loc[0, ["corpus", "setting", "seed"]].tolist() == ["", "", "0"]
    assert np.isnan(table.loc[0, "ci_low"])


def test_a_seed_stays_a_whole_number_beside_rows_without_one():
    table = tidy([ROW, ROW | {"seed": None}, ROW | {"seed": 12}])

    assert table["seed"].tolist() == ["0", "", "12"]


def test_a_table_comes_back_as_it_was_written(tmp_path):
    rows = [ROW, ROW | {"setting": "exact, tuned", "ci_low": 1.5, "ci_high": 1e-12 + 2}]
    write_table(tmp_path / "t.csv", tidy(rows))

    back = read_table(tmp_path / "t.csv")

    assert back["setting"].tolist() == ["", "exact, tuned"]
    assert back["seed"].tolist() == ["0", "0"]
    np.testing.assert_allclose(back["value"], 12.3456789012345, rtol=1e-8)
    assert np.isnan(back["ci_low"][0])
    assert back.dtypes.tolist() == tidy(rows).dtypes.tolist()


def test_writing_what_was_read_gives_the_same_bytes(tmp_path):
    rows = [ROW, ROW | {"method": "knn_lm", "value": 1 / 3, "ci_low": -2e-7, "ci_high": 1e9 / 7}]
    write_table(tmp_path / "first.csv", tidy(rows))

    write_table(tmp_path / "second.csv", read_table(tmp_path / "first.csv"))

    first = (tmp_path / "first.csv").read_bytes()
    assert first == (tmp_path / "second.csv").read_bytes()
    assert b"\r" not in first


def test_an_empty_table_keeps_its_columns(tmp_path):
    write_table(tmp_path / "t.csv", tidy([]))

    assert read_table(tmp_path / "t.csv").dtypes.tolist() == tidy([ROW]).dtypes.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "blue"}, "unknown: colour"),
        ({"unit": ""}, "missing: unit"),
        ({"n": None}, "missing: n"),
        ({"value": float("nan")}, "a value that is not a number: knn_perplexity / "),
        ({"ci_low": 1.0}, "half an interval"),
        ({"ci_low": 2.0, "ci_high": 1.0}, "an interval upside down"),
        ({"n": -1}, "a negative n"),
    ],
)
def test_a_row_that_is_not_whole_is_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        tidy([ROW | change])


def test_two_rows_for_one_number_are_an_error():
    with pytest.raises(ValueError, match="names of an earlier row"):
        tidy([ROW, ROW | {"value": 1.0}])


def test_another_csv_is_an_error(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")

    with pytest.raises(ValueError, match=r"t\.csv to have the columns experiment, .* got a, b"):
        read_table(tmp_path / "t.csv")


def test_select_finds_rows_by_name_and_says_when_there_is_none():
    table = tidy([ROW, ROW | {"method": "knn_lm", "value": 2.0}])

    assert select(table, method="knn_lm", metric="perplexity_per_token")["value"].tolist() == [2.0]
    with pytest.raises(ValueError, match="no row with method 'mlp', seed '0'"):
        select(table, method="mlp", seed="0")


def test_curves_keep_their_coordinates_and_may_repeat_names_along_them(tmp_path):
    rows = [ROW | {"lmbda": 0.25}, ROW | {"lmbda": 0.5}, ROW]
    write_table(tmp_path / "t.csv", tidy(rows, coordinates=("lmbda",)))

    back = read_table(tmp_path / "t.csv")

    np.testing.assert_array_equal(back["lmbda"], [0.25, 0.5, np.nan])
    with pytest.raises(ValueError, match="unknown: lmbda"):
        tidy(rows)


def test_means_over_seeds_have_a_t_interval_and_count_the_seeds():
    rows = [ROW | {"seed": seed, "value": value} for seed, value in enumerate([1.0, 2.0, 6.0])]

    table = means_over_seeds(tidy([*rows, ROW | {"seed": None}, ROW | {"method": "control"}]))

    assert table["seed"].tolist() == ["all"]
    assert table["value"].tolist() == [3.0]
    assert table["n"].tolist() == [3]
    half = 4.302652729911275 * np.sqrt(7 / 3)  # t of 97.5 %, 2 degrees of freedom, s * s = 7
    np.testing.assert_allclose(table[["ci_low", "ci_high"]], [[3 - half, 3 + half]], rtol=1e-9)


def test_means_over_seeds_keep_the_splits_apart():
    rows = [ROW | {"split": split, "seed": seed} for split in ("a", "b") for seed in (0, 1)]

    table = means_over_seeds(tidy(row | {"value": i} for i, row in enumerate(rows)))

    assert dict(zip(table["split"], table["value"], strict=True)) == {"a": 0.5, "b": 2.5}


def test_one_seed_has_no_row_over_seeds():
    assert means_over_seeds(tidy([ROW])).empty


HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def test_costs_have_one_row_a_job_named_by_rule_and_wildcards(tmp_path):
    for name, line in {
        "train_language_model/base/seed0.tsv": "90.5\t0:01:30\t812.25\t1\t1\t1\t0\t0\t190\t171.8\n",
        "build_report.tsv": "0.4\t0:00:00\tNA\tNA\tNA\tNA\t-\t-\t0\t0.2\n",
    }.items():
        path = tmp_path / "benchmarks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEADER + line)

    benchmarks = tmp_path / "benchmarks"
    training = str(benchmarks / "train_language_model/base/seed0.tsv")
    costs = collect_costs(benchmarks, {training: ["chiang2024", "knn_perplexity"]})
    write_csv(tmp_path / "cost.csv", costs, float_format="%.2f")

    assert (tmp_path / "cost.csv").read_text() == (
        "paper,experiment,rule,wildcards,seconds,max_rss_mb,cpu_seconds\n"
        ",,build_report,,0.40,,0.20\n"
        "chiang2024,knn_perplexity,train_language_model,base/seed0,90.50,812.25,171.80\n"
    )


def test_a_run_without_benchmarks_costs_nothing_yet(tmp_path):
    assert collect_costs(tmp_path / "absent", {}).empty


def test_a_file_that_is_no_benchmark_is_an_error(tmp_path):
    (tmp_path / "notes.tsv").write_text("a\tb\n1\t2\n")

    with pytest.raises(ValueError, match=r"notes\.tsv to be a benchmark file of Snakemake"):
        collect_costs(tmp_path, {})


def test_a_number_of_several_seeds_is_shown_as_their_mean_and_one_of_one_seed_as_it_is():
    rows = [ROW | {"seed": seed, "value": value} for seed, value in ((0, 1.0), (1, 3.0))]
    table = tidy([*rows, ROW | {"seed": 0, "method": "control", "value": 5.0}])
    table = pd.concat([table, means_over_seeds(table)], ignore_index=True)

    shown = over_seeds(table)

    assert shown["value"].tolist() == [5.0, 2.0]
    assert shown["seed"].tolist() == ["0", "all"]
