"""What was done before, and what must rest because of it."""
