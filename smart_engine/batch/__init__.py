"""A batch: its session, what is known of it, and the certificate at its end."""

__all__ = ()
