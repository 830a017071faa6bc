"""What a launch cannot go on with, for the user to read.

raise LaunchError("--interface eth9: this host has eth0, lo")
"""


class LaunchError(ValueError):
    """An argument, a variable of the scheduler or the network is wrong; the message names it and the fix."""
