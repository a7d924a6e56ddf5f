"""Language models: anatomy, training, scoring."""
