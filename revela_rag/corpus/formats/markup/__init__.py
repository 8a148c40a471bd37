"""Markup to text with its headings and code where they stand."""
