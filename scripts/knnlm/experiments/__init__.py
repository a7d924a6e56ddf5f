"""One folder an experiment, named as its folder of rules."""
