"""Head = how a token enters (`embed`) and leaves (`loss`, `sample`). A fourth head is one file and one entry here.

All heads share one signature:
    token_kind                                              "discrete" or "continuous"
    blank(B, N, device)                                     tokens that say nothing, to be filled by sampling
    embed(tokens) -> (B, N, D)
    loss(z, tokens, generator) -> (B, N)                    z (B, N, D) is the backbone's output
    sample(z, z_null, guidance_scale, temperature, generator, num_denoising_steps, solver) -> (B, K) or (B, K, C)
"""

from fluidlab.model.heads.continuous import ContinuousHead
from fluidlab.model.heads.diffusion import CosineDiffusion
from fluidlab.model.heads.flow import RectifiedFlow
from fluidlab.model.heads.softmax import SoftmaxHead

HEADS = {
    "softmax":   SoftmaxHead,
    "diffusion": lambda config: ContinuousHead(config, CosineDiffusion(config.num_train_timesteps)),
    "flow":      lambda config: ContinuousHead(config, RectifiedFlow()),
}
