"""One target a paper builds the exhibits of that paper, and of no other."""

import pytest

EXHIBITS = {  # experiments that a paper's target makes, and one that it leaves out
    "chiang2024": ({"knn_perplexity", "softmax_bottleneck", "mlp_hurdle"}, "key_function"),
    "khandelwal2020": ({"knn_perplexity", "key_function"}, "mlp_hurdle"),
    "xu2023": ({"ruled_out"}, "mlp_hurdle"),
}


@pytest.mark.parametrize("paper", EXHIBITS)
def test_the_target_of_a_paper_makes_every_experiment_with_an_exhibit_of_it(project, paper):
    made, left_out = EXHIBITS[paper]

    jobs = project.jobs("--", paper)

    assert {f"evaluate_{name}" for name in made} <= jobs
    assert f"evaluate_{left_out}" not in jobs
    assert "plot" in jobs
    assert not {"report", "claims"} & jobs


def test_a_paper_has_no_target_where_the_settings_leave_out_its_experiments(project):
    (project.folder / "some.yaml").write_text("experiments: [key_function]")

    jobs = project.jobs("--configfile", "some.yaml", "--", "khandelwal2020")
    done = project.snakemake("--dry-run", "--configfile", "some.yaml", "--", "xu2023", check=False)

    assert "evaluate_key_function" in jobs
    assert "evaluate_knn_perplexity" not in jobs
    assert done.returncode != 0
    assert "xu2023" in done.stdout
