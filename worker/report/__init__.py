"""What people see of the work: log lines and progress."""
