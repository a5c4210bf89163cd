"""What is said about a trail; its question is ``contracts.trails.QUESTION``, its answer box that of mazes."""

# Before the latent block, in words a person reads in the stream of steps.
THOUGHT = "I follow the arrows."
