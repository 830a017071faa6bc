"""From a config to an experiment. The only folder that reads a config."""
