"""The error for everything a user can get wrong about a model: `raise ModelError("unknown head ...")`."""


class ModelError(ValueError):
    """A model cannot be built, saved or loaded as asked; the message names the key or file and the fix."""
