"""Turns config.json into a frozen Config, or into a list of everything that is wrong with it."""
