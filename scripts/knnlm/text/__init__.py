"""From raw or generated text to token streams."""
