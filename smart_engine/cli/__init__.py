"""The command `smart`: one file a command; nothing loads LangChain before one runs."""

__all__ = ()
