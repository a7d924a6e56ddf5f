# Neighbors of validation -> k, temperature and lmbda, for everything that is reported on test.


rule tune_interpolation:
    """Choose k, temperature and lmbda of a kNN-LM on validation, at full precision."""
    input:
        queries=queries_of_datastore,
        neighbors="<results>/neighbors/{datastore}/seed{seed}/{index}/{corpus}/validation",
    output:
        point="<results>/tuned/{datastore}/seed{seed}/{index}/{corpus}.json",
    log:
        "<logs>/tune_interpolation/{datastore}/seed{seed}/{index}/{corpus}.log",
    benchmark:
        "<benchmarks>/tune_interpolation/{datastore}/seed{seed}/{index}/{corpus}.tsv"
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/tune_interpolation.py", grid=lambda wildcards: BASELINE["grid"]
        ),
        threads=1,
        grid=BASELINE["grid"],
    script:
        "../../scripts/tune_interpolation.py"
