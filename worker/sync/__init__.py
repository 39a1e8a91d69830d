"""The algorithms: draining a window, and what incremental, backfill, reconcile and refresh make of it."""
