"""Speed of decoding on a CPU: text and latent steps of the served engine, and what they are compared with."""
