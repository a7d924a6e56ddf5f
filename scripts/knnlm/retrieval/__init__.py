"""Datastores, nearest neighbors and what is computed from them."""
