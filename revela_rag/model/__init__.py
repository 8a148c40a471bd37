"""Find, open, read and write embedding models, and turn texts into vectors with them."""
