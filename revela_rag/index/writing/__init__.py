"""Write an index: what is embedded, staged and kept, and generations that appear whole or not at all."""
