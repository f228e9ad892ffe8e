"""The server: our plugin in vLLM that routes, limits and loads adapters."""
