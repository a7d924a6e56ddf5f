"""One module per experiment, named like its rule file."""
