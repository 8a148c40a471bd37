"""Source code to chunks at its definitions, with what their documentation says."""
