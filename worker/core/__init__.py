"""The pure core: time, windows, queries, and how a record becomes rows. No I/O, no clock, no driver."""
