"""The figure of conversational: loss and likelihood of the child's name over epochs."""

from knnlm.experiments.shared.chat_figure import draw

__all__ = ["draw"]
