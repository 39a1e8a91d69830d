"""Telling people: which events go to whom, what the messages say, and getting them there."""
