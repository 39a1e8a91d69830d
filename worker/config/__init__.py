"""The configuration: what there is to set, where it comes from, how it is shown."""
