"""Text to vectors: the Embedder protocol, the model profiles, and the providers behind it.

What belongs here: everything that depends on the embedding model or its server (dimension, limits, retries,
refusals). What does not: which texts are embedded and when (`sync/`), and where vectors are kept (`stores/`).
"""
