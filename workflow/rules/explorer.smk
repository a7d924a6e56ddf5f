# The neighbor explorer: passages of test, and for each token what LM and kNN expected and why.


rule explorer:
    """Choose passages of test and tell what LM, kNN and their mixture say of each token."""
    input:
        text=f"<results>/corpora/{config['corpus']}/text",
        tokens=tokens_for(BASE_MODEL, config["corpus"]),
        datastore_tokens=tokens_for(BASE_MODEL, config["datastores"][BASE_STORE]["corpus"]),
        tokenizer=f"<results>/tokenizers/{BASE_TOKENIZER}",
        model=f"<results>/models/{BASE_MODEL}/seed{LM_SEED}",
        queries=f"<results>/queries/{BASE_MODEL}/seed{LM_SEED}/{config['corpus']}/test",
        neighbors=(
            f"<results>/neighbors/{BASE_STORE}/seed{LM_SEED}/{BASELINE['index']}/"
            f"{config['corpus']}/test"
        ),
        point=f"<results>/tuned/{BASE_STORE}/seed{LM_SEED}/{BASELINE['index']}/{config['corpus']}.json",
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
            "scripts/explore_neighbors.py", explorer=True, baseline=True, lm_seeds=True
        ),
        threads=1,
        settings=config["explorer"],
        index=BASELINE["index"],
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
