"""/mcp: searching, reading and adding for assistants that speak the Model Context Protocol."""
