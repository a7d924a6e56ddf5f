"""What the counting of n-grams needs."""

from knnlm.plan.needs import Need, Settings, Wildcards
from knnlm.plan.sizes import tokens

TOKEN_BYTES = 200  # held for each token of train: its n-gram, two levels of them, and a sort
TOKEN_FLOPS = 40_000  # in the time that sorting takes, a token and order


def for_score_ngrams(config: Settings, wildcards: Wildcards) -> Need:
    """Sort the n-grams of the train split once for each order up to the highest."""
    orders = config["ngram_interpolation"]["orders"]
    store = config["baseline"]["datastore"]
    block = config["datastores"][store]
    tokenizer = config["models"][block["model"]]["tokenizer"]
    counted = tokens(config, block["corpus"], tokenizer, "train")
    scored = sum(
        tokens(config, wildcards["corpus"], tokenizer, split) for split in ("validation", "test")
    )
    return Need(
        memory=TOKEN_BYTES * counted + 8 * (len(orders) + 6) * scored,
        disk=8 * len(orders) * scored,
        flops=TOKEN_FLOPS * max(orders) * (counted + scored),
    )
