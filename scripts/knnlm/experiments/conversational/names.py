"""The names that the fine-tunings, the tables and the figure of conversational share."""

from knnlm.text.macondo.town import SPLITS

KIND = "conversational_fine_tuning"  # of the artifact
FACTS = "facts.json"
# What is scored after each epoch, by what the model is trained on.
SCORED = {"train": SPLITS, "test": ("test",)}

METHODS = {"train": "trained on over-specified questions", "test": "trained on test questions"}
LOSS, NAME = "loss_per_answer_token", "child_log_likelihood"  # metrics
