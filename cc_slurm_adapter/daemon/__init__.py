"""One run of the daemon: its parts are built, run and stopped here, and its status is shown."""
