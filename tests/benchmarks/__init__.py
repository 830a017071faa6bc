"""Speed and memory against stock pipelines, measured side by side: `make bench`, or `make bench ONLY=loader`."""
