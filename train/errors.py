"""What can go wrong in a run, in words for the user. Light to import: a bad config is told before torch is loaded."""


class ConfigError(ValueError):
    """The configuration cannot be used; the message is for the user."""


class CommError(RuntimeError):
    """The launcher and Horovod disagree, or Horovod cannot be used."""


class RankLost(RuntimeError):
    """A collective failed because another rank is gone."""


class RanksDiverged(RuntimeError):
    """Ranks asked for different sums; the message names them."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used; the message names the file and the reason."""


class NumbersExploded(RuntimeError):
    """The training has no finite numbers any more; the message says what broke first and what to try."""
