"""config.json becomes a frozen Config, or a list of all that is wrong with it."""
