# Which folders a rule reads, as functions of its wildcards and the config. No rules.

from knnlm.lm.architecture import SITES, STANDING_SITES
from knnlm.lm.schedule import can_continue
from knnlm.plan.sizes import INVERTED_FILES
from knnlm.runtime.relations import tokens_needed

BASELINE = config["baseline"]
LM_SEED = config["lm_seeds"][0]  # of what needs one LM alone
BASE_STORE = BASELINE["datastore"]
BASE_MODEL = config["datastores"][BASE_STORE]["model"]
BASE_INDEXES = {name: config["indexes"][name] for name in BASELINE["indexes"]}
BASE_SITE = config["datastores"][BASE_STORE]["site"]
CONTROL = BASELINE["control"] or {"datastore": BASE_STORE, "seeds": []}
BASE_TOKENIZER = config["models"][BASE_MODEL]["tokenizer"]


def files_of_pretrained(entry, *patterns):
    """Return the files of a pretrained model or tokenizer in a folder; a hub name has none."""
    folder = Path(entry["model"])
    return sorted({str(path) for pattern in patterns for path in folder.glob(pattern)})


def source_of_tokenizer(wildcards):
    """Return the text that a tokenizer is trained on, or the files of a pretrained one."""
    entry = config["tokenizers"][wildcards.tokenizer]
    if entry["source"] == "trained":
        return [f"{RESULTS}/corpora/{entry['corpus']}/text"]
    return []


def files_of_tokenizer(wildcards):
    """Return the files of a pretrained tokenizer in a folder."""
    entry = config["tokenizers"][wildcards.tokenizer]
    return files_of_pretrained(entry, "tokenizer*.json") if entry["source"] == "pretrained" else []


def files_of_model(wildcards):
    """Return the files of a pretrained model in a folder."""
    return files_of_pretrained(config["models"][wildcards.model], "config.json", "*.safetensors*")


def tokens_for(model, corpus):
    """Return the folder of a corpus in the tokens of a model."""
    return f"{RESULTS}/corpora/{corpus}/tokens/{config['models'][model]['tokenizer']}"


def tokens_of_model(wildcards):
    """Return the tokens that a model is trained on."""
    return tokens_for(wildcards.model, config["models"][wildcards.model]["corpus"])


def tokenizer_of_model(wildcards):
    """Return the folder of a model's tokenizer."""
    return f"{RESULTS}/tokenizers/{config['models'][wildcards.model]['tokenizer']}"


def tokens_of_queries(wildcards):
    """Return the tokens of a corpus that a model scores."""
    return tokens_for(wildcards.model, wildcards.corpus)


def sites_of_model(wildcards):
    """Return the sites whose hidden states are kept: the standing ones and those of datastores."""
    stores = config["datastores"].values()
    keys = {store["site"] for store in stores if store["model"] == wildcards.model}
    return [site for site in SITES if site in {*STANDING_SITES, *keys}]


def needed_tokens(wildcards):
    """Return the most tokens that a setting asks of each split of a corpus, by that setting.

    The others are left out: a smaller model that is added makes no token anew.
    """
    needed = tokens_needed(config, wildcards.corpus, wildcards.tokenizer)
    most = {split: max(asked, key=asked.get) for split, asked in needed.items()}
    return {split: {key: needed[split][key]} for split, key in most.items()}


def trunk(wildcards):
    """Return the model whose stored state a longer training of the same settings continues from."""
    model = config["models"][wildcards.model]
    parent = model.get("extends")
    if parent and can_continue(config["models"][parent], model):
        return f"{RESULTS}/models/{parent}/seed{wildcards.seed}"
    return []


def model_of_datastore(wildcards):
    """Return the folder of the model whose hidden states a datastore holds."""
    model = config["datastores"][wildcards.datastore]["model"]
    return f"{RESULTS}/models/{model}/seed{wildcards.seed}"


def tokens_of_datastore(wildcards):
    """Return the tokens whose train split a datastore holds."""
    store = config["datastores"][wildcards.datastore]
    return tokens_for(store["model"], store["corpus"])


def queries_of_datastore(wildcards):
    """Return the folder of the queries scored by the model of a datastore."""
    model = config["datastores"][wildcards.datastore]["model"]
    split = wildcards.get("split", "validation")  # on which points are tuned
    return f"{RESULTS}/queries/{model}/seed{wildcards.seed}/{wildcards.corpus}/{split}"


def every_part(folder):
    """Return an input function: every part of a datastore in a folder named by wildcards."""

    def of(wildcards):
        count = config["datastores"][wildcards.datastore]["parts"]
        root = f"{RESULTS}/parts/{folder.format(**dict(wildcards))}"
        return [f"{root}/part{number}" for number in range(count)]

    return of


def with_index(files):
    """Return an input function: some files, but none for an engine that has no index on disk."""

    def of(wildcards):
        engine = config["indexes"][wildcards.index]["engine"]
        return files(wildcards) if engine in INVERTED_FILES else []

    return of


def trained_index(wildcards):
    """Return the trained index of the wildcards, which holds no key yet, as a list of one."""
    root = f"{RESULTS}/parts/indexes"
    return [f"{root}/{wildcards.datastore}/seed{wildcards.seed}/{wildcards.index}/trained"]


def datastore_of_index(wildcards):
    """Return the datastore of an index as a list of one; the fused engine has none."""
    if config["indexes"][wildcards.index]["engine"] == "fused":
        return []
    return [f"{RESULTS}/datastores/{wildcards.datastore}/seed{wildcards.seed}"]
