"""What the long rules of the shared pipeline need: a function for each."""

from dataclasses import replace

from knnlm.plan.needs import FP32, NEIGHBOR, Need, Settings, Wildcards
from knnlm.plan.sizes import (
    ModelSize,
    entries,
    model_size,
    neighbors,
    queries,
    searched,
    text_bytes,
)

LAYER_SECONDS = 1e-3  # to start forward, backward and update of one layer, however small it is
TEXT_FLOPS = 25_000  # in the time that an interpreter takes for a byte of text
GENERATED = 4  # times the memory of a text that is only read
SLICE_BYTES = 512 << 20  # of keys in fp32 that a reader of a datastore holds
TOKENS_A_BATCH = 8192  # that the encoder of a datastore reads in one forward pass
KEPT = 32  # tokens of a distribution of p_kNN, see knnlm.retrieval.train_distributions
QUERIES_A_BLOCK = 1 << 17  # that are saved together, at most
LOGITS = 20 << 23  # bytes of a tile of logits in fp32, in double, and of their softmax
KMEANS_ROUNDS, CODES = 25, 256  # of faiss, at most; centroids of a byte of a code
DISK_RATE = 5e8  # bytes/s of a shared file system


def training(size: ModelSize, block: Settings, batch: float, passes: float, span: float) -> Need:
    """Return what a training needs that reads `batch` tokens, in windows of `span`, in a pass."""
    lora = block.get("lora")  # adapters, if only they are trained
    trained = 16 * lora["rank"] * size.width * size.layers if lora else size.parameters
    kept = size.layers * size.states(batch) / (1 if block["precision"] == "fp32" else 2)
    logits, read = 3 * FP32 * batch * size.vocabulary, 3 * passes * batch
    return Need(
        gpu=True,
        memory=FP32 * size.parameters / 4,
        gpu_memory=FP32 * (size.parameters + 3 * trained) + logits + kept,
        disk=3 * FP32 * trained,
        flops=size.forward(read, span=span, scored=read),
        waiting=LAYER_SECONDS * passes * size.layers,
    )


def fine_tuning(config: Settings, name: str, examples: int, span: int) -> tuple[Need, ModelSize]:
    """Return what an entry of `fine_tunings` needs on examples of `span` tokens, and its size."""
    block = config["fine_tunings"][name]
    start = block["shape"] if block["init"] == "random" else block["init"]
    size = model_size(config, start, block.get("size_gb"))
    batch, passes = block["batch_size"] * span, block["epochs"] * examples / block["batch_size"]
    return training(size, block, batch, passes, span), size


def for_tokenize_corpus(config: Settings, wildcards: Wildcards) -> Need:
    """Read or write a text, of which validation and test are some part, and its tokens."""
    corpus = wildcards.get("corpus") or config["tokenizers"][wildcards["tokenizer"]]["corpus"]
    size = 1.3 * text_bytes(config, corpus, "train")
    return Need(memory=10 * size, disk=3 * size, flops=TEXT_FLOPS * size)


for_train_tokenizer = for_tokenize_corpus


def for_build_corpus(config: Settings, wildcards: Wildcards) -> Need:
    """Write a text; one that is generated is held with its facts until all of it is told."""
    need = for_tokenize_corpus(config, wildcards)
    generated = config["corpora"][wildcards["corpus"]]["source"] == "gazetteer"
    return replace(need, memory=GENERATED * need.memory) if generated else need


def for_fetch_language_model(config: Settings, wildcards: Wildcards) -> Need:
    """Load a pretrained LM and save it as an artifact."""
    weights = FP32 * model_size(config, wildcards["model"]).parameters
    return Need(memory=2 * weights, disk=weights)


def for_train_language_model(config: Settings, wildcards: Wildcards) -> Need:
    """Train; what is taken from a shorter training is not subtracted."""
    model, size = config["models"][wildcards["model"]], model_size(config, wildcards["model"])
    block, span = model["training"], model["context"]
    batch = block["batch_size"] * span
    need = training(size, block, batch, block["tokens"] / batch, span)
    start = FP32 * size.parameters * ("starts_from" in model)  # read beside the model's own
    need = replace(need, memory=need.memory + start)
    if "objective" in block:  # the teacher reads each batch, and labels are distributions
        flops = need.flops + size.forward(block["tokens"], span=span, scored=block["tokens"])
        labels = 3 * FP32 * batch * size.vocabulary
        need = replace(need, flops=flops, gpu_memory=need.gpu_memory + labels)
    more = model.get("softmaxes", 1) - 1  # each has its own logits
    need = replace(
        need,
        flops=need.flops + more * 6 * block["tokens"] * size.width * (size.vocabulary + size.width),
        gpu_memory=need.gpu_memory + more * 3 * FP32 * batch * size.vocabulary,
    )
    return replace(need, shared=True, disk=need.disk + FP32 * size.parameters)


def for_score_queries(config: Settings, wildcards: Wildcards) -> Need:
    """Read the windows of the queries with an LM or a control; keep states and scores."""
    name = wildcards.get("model") or config["datastores"][config["baseline"]["datastore"]]["model"]
    count = queries(config, name, wildcards["corpus"], wildcards["split"])
    context, size = config["models"][name]["context"], model_size(config, name)
    read = count * context / min(config["queries"]["stride"], context)
    entry = FP32 * 3 * size.width + 26  # states of three sites, and what describes a query
    return Need(
        gpu=True,
        memory=FP32 * size.parameters + 2 * entry * min(count, QUERIES_A_BLOCK),
        gpu_memory=size.states(context) + LOGITS,
        disk=count * entry,
        flops=size.forward(read, span=context, scored=count),
    )


for_score_continued = for_score_queries


def for_build_datastore_part(config: Settings, wildcards: Wildcards) -> Need:
    """Read a part of the train split in overlapping windows; write the keys."""
    block = config["datastores"][wildcards["datastore"]]
    count, disk, size = entries(config, wildcards)
    context = config["models"][block["model"]]["context"]
    read = count / block["share"] * context / min(block["stride"], context)
    return Need(
        gpu=True,
        memory=FP32 * size.parameters + 4 * min(disk, block["shard_mib"] << 20),
        gpu_memory=size.states(max(TOKENS_A_BATCH, context)),
        disk=disk,
        flops=size.forward(read, span=context),
    )


def for_train_index(config: Settings, wildcards: Wildcards) -> Need:
    """Cluster a sample of keys, and the parts of their codes."""
    block, (count, _, size) = config["indexes"][wildcards["index"]], entries(config, wildcards)
    sample = min(block["train_keys"], count) * size.width
    flops = 2 * KMEANS_ROUNDS * sample * (block["n_centroids"] + CODES)
    return Need(memory=4 * FP32 * sample, flops=flops)


def for_encode_index_part(config: Settings, wildcards: Wildcards) -> Need:
    """Find the cluster of every key of a part, and its code."""
    block, (count, _, size) = config["indexes"][wildcards["index"]], entries(config, wildcards)
    memory = 1.2 * min(SLICE_BYTES, FP32 * count * size.width)
    disk = count * block.get("code_bytes", FP32 * size.width)
    flops = 2 * count * size.width * (block["n_centroids"] + CODES)
    return Need(memory=memory, disk=disk, flops=flops)


def for_search_part(config: Settings, wildcards: Wildcards) -> Need:
    """Find the neighbors of every query in a part; an inverted file is held in memory whole."""
    settings, index = config["search"], config["indexes"][wildcards["index"]]
    (count, stored, size), found = entries(config, wildcards), neighbors(config, wildcards)
    keys, asked = FP32 * count * size.width, searched(config, wildcards)
    tile = min(keys, settings["keys_mib"] << 20)
    tile += settings["block_queries"] * (4 * 4096 + 72 * settings["k"])  # scores, and six lists
    flops = 2 * asked * count * size.width
    if "n_probes" in index:  # an inverted file; its lists grow by doubling
        lists = 1.5 * count * (8 + index.get("code_bytes", FP32 * size.width))
        flops *= 6 * index["n_probes"] / index["n_centroids"]  # few keys are compared, one by one
        return Need(memory=tile + lists, disk=found, flops=flops)
    on_gpu = (tile + 3 * (settings["scores_mib"] << 20)) * (config["scale"] != "cpu")
    waiting = 5 + stored / DISK_RATE * asked / settings["block_queries"]  # each reads all keys
    return Need(gpu=True, memory=tile, gpu_memory=on_gpu, disk=found, flops=flops, waiting=waiting)


def for_search_nested_shares(config: Settings, wildcards: Wildcards) -> Need:
    """Find the neighbors in every nested share; each key is compared once, few are kept more."""
    need = for_search_part(config, wildcards)
    search, shares = config["search"], config["shares"].get(wildcards["datastore"], [1.0])
    steps = zip([0, *shares], shares, strict=False)
    kept = sum((share - smaller) / share for smaller, share in steps)  # of k, of a query
    a_block = search["block_queries"] * search["k"] * (FP32 * len(shares) + 72 * kept)
    return replace(need, memory=3 * need.memory + a_block, disk=1.4 * kept * need.disk)


def for_search_fused_part(config: Settings, wildcards: Wildcards) -> Need:
    """Encode a part block by block, compare, and save the nearest so far after each block."""
    encoding = for_build_datastore_part(config, wildcards)
    search = for_search_part(config, wildcards)
    count, _, size = entries(config, wildcards)
    keys = FP32 * size.width * min(count, config["indexes"][wildcards["index"]]["block_keys"])
    return Need(
        gpu=True,
        memory=FP32 * size.parameters + search.memory + 1.5 * keys + 2 * search.disk,
        gpu_memory=encoding.gpu_memory + search.gpu_memory + keys * (config["scale"] != "cpu"),
        disk=2 * search.disk,
        flops=encoding.flops + search.flops,
    )


def for_search_neighbors(config: Settings, wildcards: Wildcards) -> Need:
    """Merge the neighbors of every part, block by block."""
    found, search = neighbors(config, wildcards), config["search"]
    block = min(found, search["block_queries"] * search["k"] * NEIGHBOR)
    return Need(memory=found + 10 * block, disk=found)


def for_find_train_distributions(config: Settings, wildcards: Wildcards) -> Need:
    """Find the neighbors of every entry among the others; keep the likeliest tokens of each."""
    settings, (count, stored, size) = config["search"], entries(config, wildcards)
    block = config["train_distributions"]["block_queries"]
    tile = min(FP32 * count * size.width, settings["keys_mib"] << 20)
    tile += block * (4 * 4096 + 72 * settings["k"])  # scores, and six lists
    on_gpu = (tile + 3 * (settings["scores_mib"] << 20)) * (config["scale"] != "cpu")
    return Need(
        gpu=True,
        memory=tile,
        gpu_memory=on_gpu,
        disk=2 * count * (8 * KEPT + 8),
        flops=2 * count**2 * size.width,
        waiting=5 + stored / DISK_RATE * count / block,
    )
