"""The names that the trainings, the tables and the figure of mlp_hurdle share."""

KIND = "mlp_hurdle_curves"  # of the artifact

FULL = "full"
WITHOUT_LAST = "without_last_mlp"
WITHOUT_MIDDLE = "without_middle_mlp"
MATCHED = "matched_parameters"  # no last MLP, the others wider: as many parameters as `full`
VARIANTS = (FULL, WITHOUT_LAST, WITHOUT_MIDDLE, MATCHED)

LIKELIHOOD = "child_log_likelihood"  # nats; followed on Macondo
LOSS = "training_loss"  # nats per token; followed on text
