"""PostgreSQL: the copy, the worker's state, and every statement that touches them."""
