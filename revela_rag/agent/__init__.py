r"""Tools for agents over the texts of an index, as plain Python and as an MCP server.

Example:
    >>> from revela_rag.agent import CorpusTools  # doctest: +SKIP
    >>> tools = CorpusTools("my-index")  # doctest: +SKIP
    >>> tools.grep(r"def parse_\w+", path="src/")  # doctest: +SKIP
"""

from revela_rag.agent.corpus_tools import CorpusTools
from revela_rag.agent.shown import shown
from revela_rag.agent.tools import AgentTool, agent_tools

__all__ = ["AgentTool", "CorpusTools", "agent_tools", "shown"]
