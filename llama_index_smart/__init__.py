"""The LlamaIndex adapter's room. It is empty so far: use `smart_engine` meanwhile."""
