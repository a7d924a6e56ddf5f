"""What the settings of approximate_search must say together. Read in every job: no torch."""

from collections.abc import Mapping
from typing import Any

from knnlm.plan.sizes import INVERTED_FILES, text_bytes
from knnlm.runtime.settings import SettingsError

KEY = "approximate_search"


def check(settings: Mapping[str, Any]) -> None:
    """Check that shares, index and queries fit what the baseline has.

    Raises:
        SettingsError: naming the key, what was expected and what was given.
    """
    block, baseline = settings[KEY], settings["baseline"]
    store = settings["datastores"][baseline["datastore"]]
    index = settings["indexes"][block["index"]]
    exact = settings["indexes"][baseline["index"]]
    if block["shares"] != sorted(block["shares"]):
        raise SettingsError(f"{KEY}.shares: expected ascending shares, got {block['shares']}")
    if index["engine"] not in INVERTED_FILES or index["metric"] != "l2" or not index["rescore"]:
        raise SettingsError(
            f"{KEY}.index: expected an inverted file of the metric l2 with rescore: true, so that "
            f"both distances of a neighbor are kept, got {block['index']!r}: {index}"
        )
    if exact["engine"] in INVERTED_FILES or exact["metric"] != "l2":
        raise SettingsError(
            f"{KEY}: expected baseline.index to be exact and of the metric l2, for real masks and "
            f"scores, got {baseline['index']!r}: {exact}"
        )
    if store["share"] != 1:
        raise SettingsError(
            f"{KEY}.shares: expected a whole datastore to take shares of, got the baseline's "
            f"{baseline['datastore']!r} at a share of {store['share']}"
        )
    if exact["engine"] == "fused":
        raise SettingsError(
            f"{KEY}: expected a datastore on disk to take shares of, got the baseline's index "
            f"{baseline['index']!r}, which stores none; leave the experiment out, or take an "
            "exact one"
        )
    _entries(settings, store["corpus"], block["shares"][0])


def _entries(settings: Mapping[str, Any], corpus: str, share: float) -> None:
    """Check that the smallest share has k entries; a text has at most as many as bytes."""
    k, there = settings["search"]["k"], share * text_bytes(settings, corpus, "train")
    if there < k:
        raise SettingsError(
            f"{KEY}.shares: expected at least search.k = {k:,} entries in the smallest share, got "
            f"{share} of a text of {there / share:,.0f} bytes, {there:,.0f} entries at most; raise "
            "the share, lower search.k, or use more text"
        )
