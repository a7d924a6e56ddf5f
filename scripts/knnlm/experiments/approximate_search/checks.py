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
    block, name = settings[KEY], settings["baseline"]["datastore"]
    store = settings["datastores"][name]
    index = settings["indexes"][block["index"]]
    exact = settings["indexes"][block["exact"]]
    if block["shares"] != sorted(block["shares"]):
        raise SettingsError(f"{KEY}.shares: expected ascending shares, got {block['shares']}")
    if index["engine"] not in INVERTED_FILES or index["metric"] != "l2" or not index["rescore"]:
        raise SettingsError(
            f"{KEY}.index: expected an inverted file of the metric l2 with rescore: true, so that "
            f"both distances of a neighbor are kept, got {block['index']!r}: {index}"
        )
    if exact["engine"] in INVERTED_FILES or exact["metric"] != "l2":
        raise SettingsError(
            f"{KEY}.exact: expected an exact engine of the metric l2, for real masks and scores, "
            f"got {block['exact']!r}: {exact}"
        )
    if store["share"] != 1:
        raise SettingsError(
            f"{KEY}.shares: expected a whole datastore to take shares of, got the baseline's "
            f"{name!r} at a share of {store['share']}"
        )
    if store["queries"] and store["queries"] != block["queries"]:
        raise SettingsError(
            f"{KEY}.queries: expected {store['queries']}, the queries that are searched in the "
            f"datastore {name!r}, got {block['queries']}; set both to the same number, or "
            f"datastores.{name}.queries to null"
        )
    _entries(settings, store["corpus"], block["shares"][0])


def _entries(settings: Mapping[str, Any], corpus: str, share: float) -> None:
    """Check that the smallest share has k entries; a text has at most as many as bytes."""
    k, there = settings["search"]["k"], share * text_bytes(settings, corpus, "train")
    if there < k:
        raise SettingsError(
            f"{KEY}.shares: expected at least search.k = {k:,} entries in the smallest share, got "
            f"{share} of a text of {there / share:,.0f} bytes, {there:,.0f} entries at most; raise "
            "the share, lower search.k, use more text, or leave the experiment out of `experiments`"
        )
