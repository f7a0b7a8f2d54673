"""What is pending, on disk, and the threads that send it."""
