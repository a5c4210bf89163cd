"""Ablations: what is fed back in a latent block instead of the model's own hidden state.

A critic asks whether an answer depends on its latents at all; the reply is to feed something else and look. ``zero``
feeds zeros, ``noise`` a random vector of the same length, ``swap`` the latents of another sample. The mode is fixed for
the life of an engine, and with ``none`` no code of this package runs.

``feedback`` has the vectors (torch), ``samples`` says what a sample is and which samples lend their latents,
``donors`` pairs requests with them. Both engines use all three, and so give the same answers.
"""
