"""What a file holds: bytes to text, markup to text with headings and code, within a budget."""
