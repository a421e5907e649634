"""The tasks, data and command line of training: the only rooms, beside the launchers, that know Lightning."""
