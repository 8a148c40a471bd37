"""Prose to chunks of whole sentences, section by section."""
