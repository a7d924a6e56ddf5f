# How much of kNN's gain do output embeddings learn that are trained in place of the datastore?

EMBEDDED = {
    BASE_STORE: config["trained_embeddings"]["vectors"]["att"],
    config["trained_embeddings"]["ffn_datastore"]: config["trained_embeddings"]["vectors"]["ffn"],
}


rule trained_embeddings:
    """How much of kNN's gain do trained output embeddings recover, without any retrieval?

    Exhibits: Xu et al. (2023), Table 2 and Figure 2.
    """
    input:
        multiext("<results>/figures/trained_embeddings", ".svg", ".png"),
        "<results>/tables/trained_embeddings.csv",
    localrule: True


rule train_output_embeddings:
    """Train output embeddings of some vectors a word on the pairs of a datastore, size by size."""
    input:
        datastore="<results>/datastores/{datastore}/seed{seed}",
        model=model_of_datastore,
    output:
        embeddings=directory("<results>/output_embeddings/{datastore}/seed{seed}"),
    log:
        "<logs>/train_output_embeddings/{datastore}/seed{seed}.log",
    benchmark:
        "<benchmarks>/train_output_embeddings/{datastore}/seed{seed}.tsv"
    conda:
        CONDA
    threads: config["threads"]["fine_tune"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/train_output_embeddings.py",
            threads="fine_tune",
            training=lambda wildcards: config["trained_embeddings"]["training"],
            sizes=lambda wildcards: EMBEDDED[wildcards.datastore],
        ),
        threads=config["threads"]["fine_tune"],
        settings=config["trained_embeddings"]["training"],
        sizes=lambda wildcards: EMBEDDED[wildcards.datastore],
    script:
        "../../../scripts/train_output_embeddings.py"


rule evaluate_trained_embeddings:
    """Perplexity of LM, kNN-LM and embeddings of every size, alone, mixed and as an oracle."""
    input:
        **knn_lms([*EMBEDDED], splits=["validation", "test"], seeds=[LM_SEED]),
        datastores=expand(f"<results>/datastores/{{store}}/seed{LM_SEED}", store=[*EMBEDDED]),
        embeddings=expand(f"<results>/output_embeddings/{{store}}/seed{LM_SEED}", store=[*EMBEDDED]),
    output:
        table="<results>/tables/trained_embeddings.csv",
    log:
        "<logs>/evaluate_trained_embeddings.log",
    benchmark:
        "<benchmarks>/evaluate_trained_embeddings.tsv"
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        **evaluation("trained_embeddings", stores=[*EMBEDDED]),
    script:
        "../../../scripts/evaluate.py"
