"""The names that conversational and conversational_hosted share, in trainings, tables, figures."""

# What is scored after each epoch, by what the model is trained on.
SCORED = {"train": ("train", "validation", "test"), "test": ("test",)}

METHODS = {"train": "trained on over-specified questions", "test": "trained on test questions"}
LOSS, NAME = "loss_per_answer_token", "child_log_likelihood"  # metrics
