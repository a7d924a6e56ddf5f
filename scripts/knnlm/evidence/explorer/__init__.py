"""The neighbor explorer as one page."""
