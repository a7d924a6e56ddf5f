"""Sizes in which jobs work and the plan counts; fingerprints of jobs depend on no more of it."""

INVERTED_FILES = ("ivf_flat", "ivfpq")  # the engines with an index on disk
SLICE_BYTES = 512 << 20  # of keys in fp32 that a reader of a datastore holds
TOKENS_A_BATCH = 8192  # that the encoder of a datastore reads in one forward pass, in whole windows
