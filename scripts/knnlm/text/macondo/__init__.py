"""Macondo: the town of Chiang et al. (2024), as sentences and as conversations."""
