"""What turns prompts into token ids: one Protocol, two implementations (vLLM, and plain transformers as reference)."""
