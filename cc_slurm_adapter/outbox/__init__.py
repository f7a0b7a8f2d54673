"""The pending messages, which are stored on disk, and the threads that send them."""
