"""LangChain models that answer as the reference would, for less."""
