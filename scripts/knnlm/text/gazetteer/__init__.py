"""The gazetteer: a generated encyclopedia of a town that never was."""
