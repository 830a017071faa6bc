"""The run's configuration: the schema, its loading from YAML and `key=value`, and messages that name the fix."""
