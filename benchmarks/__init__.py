"""Measurements, and what they need; see README.md beside this file."""
