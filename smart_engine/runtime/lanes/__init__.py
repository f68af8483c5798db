"""How calls are carried other than one by one: by a provider's batches."""

__all__ = ()
