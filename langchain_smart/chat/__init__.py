"""Chat models behind `SmartChatModel`: how each is asked, and what it costs."""

__all__ = ()
