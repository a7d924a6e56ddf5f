"""The library behind the workflow: plain arguments in, arrays and tables out."""
