"""The figure of conversational_hosted: the losses that the service measured, over epochs."""

from knnlm.experiments.shared.chat_figure import draw

__all__ = ["draw"]
