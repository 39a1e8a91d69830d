"""PostgreSQL: the copy, the books, and every statement that touches them."""
