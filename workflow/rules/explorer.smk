# The neighbor explorer: passages of test, and for each token what LM and kNN expected and why.

EXPLORED = {
    "text": f"<results>/corpora/{config['corpus']}/text",
    "tokens": f"<results>/corpora/{config['corpus']}/tokens",
    "tokenizer": f"<results>/corpora/{config['corpus']}/tokenizer",
    "model": f"<results>/models/{KNN_PERPLEXITY_BASE}/seed{config['lm_seeds'][0]}",
    "queries": f"<results>/log_probs/{KNN_PERPLEXITY_BASE}/seed{config['lm_seeds'][0]}/test",
    "neighbors": (
        f"<results>/neighbors/{KNN_PERPLEXITY['datastore']}/seed{config['lm_seeds'][0]}/"
        f"{KNN_PERPLEXITY['index']}/test"
    ),
}


rule explorer:
    """Choose passages of test and tell what LM, kNN and their mixture say of each token."""
    input:
        **EXPLORED,
        knn_table="<results>/tables/knn_perplexity.csv",
    output:
        passages="<results>/explorer/passages.json",
    log:
        "<logs>/explorer.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/explore_neighbors.py", explorer=True, knn_perplexity=True, lm_seeds=True
        ),
        threads=1,
        settings=config["explorer"],
        index=KNN_PERPLEXITY["index"],
        seed=config["lm_seeds"][0],
    script:
        "../../scripts/explore_neighbors.py"


rule explorer_page:
    """Write the passages as a page beside the report."""
    input:
        passages="<results>/explorer/passages.json",
    output:
        page="<results>/report/explorer.html",
    log:
        "<logs>/explorer_page.log",
    localrule: True
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/write_explorer.py"),
        threads=1,
        run=config["run"],
    script:
        "../../scripts/write_explorer.py"
