"""OpenAI's shapes over the same admission, broker and streams as ``/v1/reason``."""
