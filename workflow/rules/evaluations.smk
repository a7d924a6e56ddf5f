# What the rules of experiments take: inputs and params by name. No rules.

import re


def knn_lms(stores, *, indexes=(BASELINE["index"],), splits=("test",), seeds=config["lm_seeds"]):
    """Return the inputs of an evaluation of kNN-LMs on the subject, for some LM seeds.

    They are `queries` that the models of the datastores have scored, the `neighbors` that each
    index found for them, and the points `tuned` on validation.
    """
    corpus = config["corpus"]
    models = {config["datastores"][store]["model"] for store in stores}
    every = {"seed": seeds, "corpus": corpus, "split": splits}
    place = f"{{store}}/seed{{seed}}/{{index}}/{corpus}"
    found = {**every, "store": stores, "index": indexes}
    return {
        "queries": expand(
            "<results>/queries/{model}/seed{seed}/{corpus}/{split}", model=sorted(models), **every
        ),
        "neighbors": expand(f"<results>/neighbors/{place}/{{split}}", **found),
        "tuned": sorted(set(expand(f"<results>/tuned/{place}.json", **found))),
    }


def together(*inputs):
    """Return the inputs of several evaluations as those of one."""
    names = dict.fromkeys(name for one in inputs for name in one)
    return {name: [file for one in inputs for file in one.get(name, [])] for name in names}


def drawn_tables(wildcards):
    """Return the tables of an experiment that its figure is drawn from: all but its examples."""
    made = getattr(rules, f"evaluate_{wildcards.experiment}").output
    return {name: file for name, file in made.items() if name != "examples"}


def files_of_experiments(name):
    """Return the files of one name in the folders of all experiments that have it."""
    files = (one.folder / name for one in EXPERIMENTS.values())
    return [str(path.relative_to(ROOT)) for path in files if path.is_file()]


def papers_of(name):
    """Return the ids of the papers of an experiment: its own, and those of its exhibits."""
    named = re.findall(r"(\w+) et al\. \((\d{4})\)", workflow.get_rule(name).docstring)
    return {EXPERIMENTS[name].paper, *(f"{author.lower()}{year}" for author, year in named)}


def inputs_of_papers():
    """Return what the experiments of each paper make, of those that the settings name."""
    found = {}
    for name in config["experiments"]:
        for paper in papers_of(name):
            found.setdefault(paper, []).append(getattr(rules, name).input)
    return found


def evaluation(experiment, *blocks, stores=None, **chosen):
    """Return the params of the rule that evaluates an experiment.

    Its table.py gets the experiment's own block, the named blocks of the config, and what is
    chosen by hand, such as the entries of a large block that it uses; all of it is fingerprinted.
    With `stores` it gets what kNN-LMs of these datastores, and the baseline, are evaluated by.
    """
    settings = {block: config[block] for block in (experiment, "corpus", *blocks)} | chosen
    if stores is not None:
        settings |= {block: config[block] for block in ("lm_seeds", "baseline")}
        settings["datastores"] = {
            name: config["datastores"][name] for name in (BASE_STORE, *stores)
        }
    return {
        "fingerprint": fingerprint(
            "scripts/evaluate.py",
            imports=f"knnlm.experiments.{experiment}.table",
            **{name: lambda wildcards, value=value: value for name, value in settings.items()},
        ),
        "threads": 1,
        "experiment": experiment,
        "settings": settings,
    }


def counted_for(wildcards):
    """Return the paper and experiment that each timed job is counted for, by its benchmark file.

    A step that several experiments share is counted for the first of them in the report.
    """
    counted = {}
    for name in config["experiments"]:
        files = set(map(str, getattr(rules, name).input))
        targets = [job for job in workflow.dag.jobs if files & set(map(str, job.output))]
        for job in workflow.dag.bfs(workflow.dag.dependencies, *targets):
            counted.setdefault(str(job.benchmark), [EXPERIMENTS[name].paper, name])
    return counted
