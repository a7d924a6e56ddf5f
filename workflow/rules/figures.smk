# Tables -> figures: one rule for all experiments, and all of them as one target, or by paper.


rule plot:
    """Draw the figure of an experiment from its tables alone."""
    input:
        unpack(drawn_tables),
    output:
        svg="<results>/figures/{experiment}.svg",
        png="<results>/figures/{experiment}.png",
    log:
        "<logs>/plot/{experiment}.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/plot.py", imports="knnlm.experiments.{experiment}.figure"),
        threads=1,
    script:
        "../../scripts/plot.py"


rule experiments:
    """Every table and figure of the experiments that the settings name."""
    input:
        [getattr(rules, name).input for name in config["experiments"]],
    localrule: True


for paper, made in inputs_of_papers().items():

    rule:
        """The tables and figures of one paper: of every experiment that has an exhibit of it."""
        name:
            paper
        input:
            made,
        localrule: True
