"""From a config to the parts of a run. The only folder that reads a config."""
