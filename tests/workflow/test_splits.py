"""Which jobs read what was scored or found on test: those that report on it, none that chooses."""

import re

JOB = re.compile(r"^rule (\w+):\n    input: (.*)\n    output: (.*)$", re.MULTILINE)
ON_TEST = re.compile(r"/test\b")
REPORT_ON_TEST = {"explorer", "project_distributions", "project_on_heads"}  # beside evaluate_*
EACH_SPLIT = {"search_masks", "score_alternatives"}  # of both splits, each for itself: no choice


def test_only_jobs_that_report_on_test_read_what_was_scored_or_found_on_it(project):
    printed = project.snakemake("--dry-run", "all").stdout

    jobs = [job for job in JOB.findall(printed) if not ON_TEST.search(job[2])]
    readers = {rule for rule, read, _ in jobs if ON_TEST.search(read)}
    assert "tune_interpolation" in {rule for rule, _, _ in jobs}
    assert {
        rule for rule in readers if not rule.startswith("evaluate_")
    } == REPORT_ON_TEST | EACH_SPLIT
