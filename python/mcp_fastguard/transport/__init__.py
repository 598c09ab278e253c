"""Carries decisions to the wire: ASGI, the MCP SDK, FastMCP, standard input and output."""
