"""Photos in, photos out (being written)."""
