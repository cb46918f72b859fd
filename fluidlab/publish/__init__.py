"""What diffusers and the Hugging Face Hub ask of a pipeline beyond drawing: a model class, a folder, a card.

The only room besides `pipeline` that knows diffusers' mixins; `Fluid` itself is free of them.
"""
