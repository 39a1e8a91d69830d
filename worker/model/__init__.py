"""The pure heart: times, records, rows and what to decide of them; no input, no output."""
