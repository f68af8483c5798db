"""What draws show: acceptance carries the promise; the rest makes it cheap."""

__all__ = ()
