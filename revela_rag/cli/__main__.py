"""``python -m revela_rag.cli`` is ``revela``."""

from revela_rag.cli import main

main()
