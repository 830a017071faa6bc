"""Charts as SVG text, with nothing to load."""
