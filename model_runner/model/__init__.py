"""The vLLM side: the model class with its latent state, the worker that wires it up, the plugin entry."""
