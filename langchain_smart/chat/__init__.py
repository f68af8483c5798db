"""Chat models behind `SmartChatModel`: how each is called, and what it costs."""

__all__ = ()
