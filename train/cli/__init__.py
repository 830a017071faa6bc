"""What every command shares: one way to start and end, and the arguments that several of them take."""
