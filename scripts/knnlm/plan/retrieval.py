"""The needs of retrieval: datastore, index and search, part by part, and the merge of neighbors.

What joins parts without reading them (build_datastore, build_index) needs nothing. Standard
library only: the Snakefile imports this module, in every job.
"""

import math

from knnlm.plan.models import activations, forward
from knnlm.plan.needs import Config, Need, Wildcards, models
from knnlm.plan.sizes import parameters, queries, tokens, vocabulary
from knnlm.plan.work import Work, product

INVERTED_FILES = ("ivf_flat", "ivfpq")  # the engines with an index on disk
ID, DISTANCE, VALUE = 8, 4, 4  # bytes of a stored neighbor
SLICE_BYTES = 512 << 20  # of keys in fp32 that a reader holds
KMEANS_ROUNDS = {"coarse": 10, "codes": 25}  # of faiss
# A visited key of an inverted file comes from memory, not from the cache, or is looked up in
# tables, and may enter a heap: as long as moving these bytes takes (faiss, 400,000 random keys).
VISITED = {"key": 640, "dimension": 10, "code_byte": 28}
CODES = 256  # centroids of each byte of a code
GROWN_LISTS = 1.5  # memory of a list that grew by doubling, over what it holds
TOKENS_A_BATCH = 8192  # read by one forward pass


def keys_of(config: Config, datastore: str) -> tuple[float, int, int]:
    """Return entries, width and bytes a number of a datastore."""
    block = config["datastores"][datastore]
    width = config["models"][block["model"]]["width"]
    return tokens(config, "train") - 1, width, 2 if block["dtype"] == "float16" else 4


def entry_bytes(config: Config, datastore: str) -> int:
    """Return the bytes of an entry of a datastore: its key, and its value in 2 or 4 bytes."""
    _, width, number = keys_of(config, datastore)
    return width * number + (2 if vocabulary(config) <= 1 << 16 else 4)


def store_bytes(config: Config, datastore: str) -> float:
    """Return the bytes of a datastore."""
    return keys_of(config, datastore)[0] * entry_bytes(config, datastore)


def rows_of(config: Config, wildcards: Wildcards) -> float:
    """Return the entries of a part: whole shards, or whole blocks of the fused engine."""
    block = config["datastores"][wildcards["datastore"]]
    entries, width, number = keys_of(config, wildcards["datastore"])
    shard = 1 << int(math.log2((block["shard_mib"] << 20) // (width * number)))
    unit = config["indexes"].get(wildcards.get("index"), {}).get("block_keys", shard)
    units, part = math.ceil(entries / unit), int(wildcards["part"])
    first, stop = (units * i // block["parts"] * unit for i in (part, part + 1))
    return min(stop, entries) - min(first, entries)


def encoding(config: Config, datastore: str, rows: float) -> Work:
    """Return the work of reading the windows of some entries for their keys."""
    block = config["datastores"][datastore]
    model, size = config["models"][block["model"]], vocabulary(config)
    n_read = rows * model["context"] / min(block["stride"], model["context"])
    return forward(model, size, n_read, scored=0, passes=max(1, n_read / TOKENS_A_BATCH))


def encoder_bytes(config: Config, datastore: str) -> tuple[float, float]:
    """Return the bytes of the model's weights, and of what one forward pass takes beside them."""
    model = config["models"][config["datastores"][datastore]["model"]]
    size = vocabulary(config)
    return 4 * parameters(model, size), activations(model, size, TOKENS_A_BATCH, scored=0)


@models("build_datastore_part")
def build_datastore_part(config: Config, wildcards: Wildcards) -> Need:
    """Read a part of the train split in overlapping windows; write the keys."""
    datastore, rows = wildcards["datastore"], rows_of(config, wildcards)
    disk = rows * entry_bytes(config, datastore)
    weights, device = encoder_bytes(config, datastore)
    shard = config["datastores"][datastore]["shard_mib"] << 20
    return Need(
        work=encoding(config, datastore, rows) + Work(moved=3 * disk, written=disk),
        memory=weights + 4 * shard,
        device=device,
        disk=disk,
        threads="encode",
        gpu=True,
    )


def code_bytes(config: Config, datastore: str, index: str) -> float:
    """Return the bytes of a key in an index, without the number of its cluster or its id."""
    block = config["indexes"][index]
    if block["engine"] not in INVERTED_FILES:
        return 0
    return block.get("code_bytes", 4 * keys_of(config, datastore)[1])


@models("train_index")
def train_index(config: Config, wildcards: Wildcards) -> Need:
    """Cluster a sample of keys, and the parts of their codes."""
    datastore, block = wildcards["datastore"], config["indexes"][wildcards["index"]]
    entries, width, number = keys_of(config, datastore)
    sample, centroids = min(block["train_keys"], entries), block["n_centroids"]
    work = compare(sample, centroids, width) * KMEANS_ROUNDS["coarse"]
    if block["engine"] == "ivfpq":
        rounds = min(sample, CODES * CODES) * KMEANS_ROUNDS["codes"]
        work = work + compare(1, CODES, width / block["code_bytes"]) * block["code_bytes"] * rounds
    read = min(sample * max(4096, width * number), entries * width * number)
    return Need(
        work=work + Work(read=read, torch=True),
        memory=3 * 4 * sample * width,
        disk=4 * width * (centroids + CODES),
        threads="search",
    )


@models("encode_index_part")
def encode_index_part(config: Config, wildcards: Wildcards) -> Need:
    """Find the cluster of every key of a part, and its code."""
    datastore, block = wildcards["datastore"], config["indexes"][wildcards["index"]]
    rows, (_, width, number) = rows_of(config, wildcards), keys_of(config, datastore)
    work = compare(rows, block["n_centroids"], width)
    if block["engine"] == "ivfpq":
        work = work + compare(1, CODES, width / block["code_bytes"]) * block["code_bytes"] * rows
    cluster = math.ceil(math.log2(max(2, block["n_centroids"])) / 8)
    disk = rows * (code_bytes(config, datastore, wildcards["index"]) + cluster)
    return Need(
        work=work + Work(read=rows * width * number, written=disk, torch=True),
        memory=3 * min(SLICE_BYTES, 4 * rows * width) + 4 * width * block["n_centroids"],
        disk=disk,
        threads="search",
    )


def compare(n_queries: float, n_keys: float, width: float) -> Work:
    """Return the work of squared distances of every query to every key, each looked at twice."""
    scores = n_queries * n_keys
    return product(n_queries, width, n_keys, side=width) + Work(moved=8 * scores)


def search_work(config: Config, datastore: str, n_queries: float, rows: float) -> Work:
    """Return the work of exact search: candidates, direct distances of them, and a sort."""
    _, width, number = keys_of(config, datastore)
    settings = config["search"]
    blocks = max(1, n_queries / settings["block_queries"])
    slices = max(1, 4 * rows * width / (settings["keys_mib"] << 20))
    again = blocks if slices > 1 else 1  # one slice is converted once for all blocks
    merged = n_queries * (settings["k"] + 32) * min(slices, 4)  # later slices add little
    return compare(n_queries, rows, width) + Work(
        moved=again * rows * width * (number + 4) + merged * (4 * width + 20 * (ID + DISTANCE)),
        read=again * rows * width * number,
        torch=True,
    )


def approximate_work(config: Config, wildcards: Wildcards, count: float, rows: float) -> Work:
    """Return the work of a search of some clusters, and of exact search for its recall."""
    datastore, block = wildcards["datastore"], config["indexes"][wildcards["index"]]
    width, settings = keys_of(config, datastore)[1], config["search"]
    visited = count * rows * block["n_probes"] / block["n_centroids"]
    codes = block["engine"] == "ivfpq"
    work = search_work(config, datastore, min(count, settings["recall_sample"]), rows)
    each = VISITED["code_byte"] * block["code_bytes"] if codes else VISITED["dimension"] * width
    work = work + Work(moved=visited * (VISITED["key"] + each))
    if block["rescore"]:
        work = work + Work(moved=count * settings["k"] * (4 * width + 60))
    return work


def found_bytes(config: Config, split: str) -> float:
    """Return the bytes of the neighbors of a split."""
    return queries(config, split) * config["search"]["k"] * (ID + DISTANCE + VALUE)


def tile_bytes(config: Config, datastore: str, rows: float) -> tuple[float, float]:
    """Return the bytes of exact search in memory, and those on a GPU where there is one.

    `rows` are the keys that are compared at a time.
    """
    _, width, number = keys_of(config, datastore)
    settings, keys = config["search"], 4 * rows * width
    scores = 4 * settings["block_queries"] * 4096  # of a tile of faiss
    found = settings["block_queries"] * settings["k"] * 6 * (ID + DISTANCE)
    on_gpu = keys * number / 4 + 3 * (settings["scores_mib"] << 20) + found
    return keys + scores + found, on_gpu if config["scale"] != "cpu" else 0.0


@models("search_part")
def search_part(config: Config, wildcards: Wildcards) -> Need:
    """Find the neighbors of every query in a part, and exact ones of a sample for the recall."""
    datastore, index = wildcards["datastore"], wildcards["index"]
    exact = config["indexes"][index]["engine"] not in INVERTED_FILES
    count, rows = queries(config, wildcards["split"]), rows_of(config, wildcards)
    found, in_use = found_bytes(config, wildcards["split"]), 0.0
    if exact:
        work = search_work(config, datastore, count, rows)
    else:
        work = approximate_work(config, wildcards, count, rows)
        in_use = GROWN_LISTS * rows * (code_bytes(config, datastore, index) + ID)
        work = work + Work(read=rows * code_bytes(config, datastore, index))
    slice_rows = (config["search"]["keys_mib"] << 20) / (4 * keys_of(config, datastore)[1])
    memory, device = tile_bytes(config, datastore, min(rows, slice_rows))
    return Need(
        # Every byte is compared with its checksum before the search.
        work=work + Work(read=rows * entry_bytes(config, datastore), written=found),
        memory=memory + in_use,
        device=device if exact else 0.0,
        scratch=2 * found,  # the parts of neighbors are removed when they are merged
        threads="search",
        gpu=exact,
    )


@models("search_fused_part")
def search_fused_part(config: Config, wildcards: Wildcards) -> Need:
    """Encode a part block by block, compare, and save the nearest so far after each block."""
    datastore, block = wildcards["datastore"], config["indexes"][wildcards["index"]]
    rows, (_, width, number) = rows_of(config, wildcards), keys_of(config, datastore)
    count, found = queries(config, wildcards["split"]), found_bytes(config, wildcards["split"])
    weights, device = encoder_bytes(config, datastore)
    memory, on_gpu = tile_bytes(config, datastore, min(rows, block["block_keys"]))
    states = math.ceil(rows / block["block_keys"])
    work = encoding(config, datastore, rows) + search_work(config, datastore, count, rows)
    return Need(
        work=work + Work(written=found * (states + 1)),
        memory=weights + memory + min(rows, block["block_keys"]) * width * number + 2 * found,
        device=device + on_gpu,
        scratch=3 * found,
        threads="search",
        gpu=True,
    )


@models("search_neighbors")
def search_neighbors(config: Config, wildcards: Wildcards) -> Need:
    """Merge the neighbors of every part, block by block; those of a single part are linked."""
    found, parts = found_bytes(config, wildcards["split"]), _parts(config, wildcards)
    blocks = queries(config, wildcards["split"]) / config["search"]["block_queries"]
    merged = found * parts if parts > 1 else 0.0
    return Need(
        work=Work(
            read=found + merged,
            written=found,
            moved=10 * merged,
            steps=30 * queries(config, wildcards["split"]) * (parts > 1),
        ),
        memory=found + (10 * found / max(1, blocks) if parts > 1 else 0.0),
        disk=found,
    )


def _parts(config: Config, wildcards: Wildcards) -> int:
    return config["datastores"][wildcards["datastore"]]["parts"]
