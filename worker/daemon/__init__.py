"""The daemon: when things run, and how to see that they do."""
