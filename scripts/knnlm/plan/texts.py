"""Whether texts are long enough for what the settings ask of them, before any job starts."""

from itertools import product

from knnlm.plan.needs import Settings
from knnlm.plan.sizes import text_bytes
from knnlm.runtime.relations import tokens_needed, tokens_of_shares
from knnlm.runtime.settings import SettingsError


def require_bytes(config: Settings) -> None:
    """Check that no split has fewer bytes than tokens are asked of it, as far as sizes are known.

    Raises:
        SettingsError: naming the setting that asks for them, what it needs and what is there.
    """
    for corpus, tokenizer in product(config["corpora"], config["tokenizers"]):
        asked = tokens_needed(config, corpus, tokenizer)
        asked["train"] |= tokens_of_shares(config, corpus, tokenizer)
        for split, needed in asked.items():
            setting = max(needed, key=needed.__getitem__)
            there = text_bytes(config, corpus, split)
            if there < needed[setting]:
                raise SettingsError(
                    f"{setting}: expected at most as many tokens as the {split} split of "
                    f"{corpus!r} has bytes, {there:,.0f}, got {needed[setting]:,}; lower it, or "
                    "use more text"
                )
