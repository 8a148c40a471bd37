"""Files that are no text, or text in an envelope: documents, books, notebooks and mails to Markdown with places."""
