# Raw or generated text -> documents -> tokenizer -> token streams.


rule build_corpus:
    """Write the splits of a corpus as text, with the places where documents begin."""
    input:
        unpack(whole_of_part),
        files=files_of_corpus,
    output:
        text=directory("<results>/corpora/{corpus}/text"),
    log:
        "<logs>/build_corpus/{corpus}.log",
    benchmark:
        "<benchmarks>/build_corpus/{corpus}.tsv"
    priority: LONGEST_PATH
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/build_corpus.py", corpora="corpus"),
        threads=1,
        corpus=lookup(dpath="corpora/{corpus}", within=config),
    script:
        "../../scripts/build_corpus.py"


rule train_tokenizer:
    """Train a byte-level BPE on the train split of a corpus, or fetch a pretrained tokenizer."""
    input:
        files_of_tokenizer,
        text=source_of_tokenizer,
    output:
        tokenizer=directory("<results>/tokenizers/{tokenizer}"),
    log:
        "<logs>/train_tokenizer/{tokenizer}.log",
    benchmark:
        "<benchmarks>/train_tokenizer/{tokenizer}.tsv"
    cache: SHARED
    priority: LONGEST_PATH
    conda:
        CONDA
    threads: config["threads"]["encode"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/train_tokenizer.py", threads="encode", tokenizers="tokenizer"
        ),
        threads=config["threads"]["encode"],
        tokenizer=lookup(dpath="tokenizers/{tokenizer}", within=config),
    script:
        "../../scripts/train_tokenizer.py"


rule tokenize_corpus:
    """Turn every split into one stream of tokens, with documents, words and lines counted."""
    input:
        text="<results>/corpora/{corpus}/text",
        tokenizer="<results>/tokenizers/{tokenizer}",
    output:
        tokens=directory("<results>/corpora/{corpus}/tokens/{tokenizer}"),
    log:
        "<logs>/tokenize_corpus/{corpus}/{tokenizer}.log",
    benchmark:
        "<benchmarks>/tokenize_corpus/{corpus}/{tokenizer}.tsv"
    priority: LONGEST_PATH
    conda:
        CONDA
    threads: config["threads"]["encode"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/tokenize_corpus.py", threads="encode"),
        threads=config["threads"]["encode"],
        needed=needed_tokens,
    script:
        "../../scripts/tokenize_corpus.py"


rule build_macondo:
    """Write a town of villagers, and the over-specified and bare sentences about them."""
    input:
        tokenizer=tokenizer_of_macondo,
    output:
        macondo=directory("<results>/macondo/{town}/seed{seed}"),
    log:
        "<logs>/build_macondo/{town}/seed{seed}.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/build_macondo.py", macondo=town_of),
        threads=1,
        macondo=town_of,
    script:
        "../../scripts/build_macondo.py"


rule build_macondo_chat:
    """Write over-specified and bare questions about the villagers of Macondo, with answers."""
    input:
        tokenizer=tokenizer_of_conversations,
    output:
        conversations=directory("<results>/macondo_conv/seed{seed}"),
    log:
        "<logs>/build_macondo_chat/seed{seed}.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/build_macondo_chat.py", macondo_conv=True),
        threads=1,
        town=config["macondo_conv"],
    script:
        "../../scripts/build_macondo_chat.py"
