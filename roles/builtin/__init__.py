"""The built-in agent: a program of its own, on any model that LiteLLM reaches. ``agent.py`` has its loop."""
