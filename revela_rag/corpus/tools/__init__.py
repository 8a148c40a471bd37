"""Tool definitions, as agents, services and functions write them, to documents."""
