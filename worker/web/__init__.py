"""What people and machines look at: status page, report, metrics."""
