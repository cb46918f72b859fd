"""Text: from a prompt to what the backbone attends to."""

from fluidlab.text.encoder import TextEncoder, load_text_encoder

__all__ = ["TextEncoder", "load_text_encoder"]
