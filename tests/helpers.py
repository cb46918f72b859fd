"""Small models and batches that many tests share. Nothing here is random beyond a seed."""

import itertools
import sys
import types

import torch

from fluidlab.model.fluid import Fluid
from fluidlab.model.heads import HEADS
from fluidlab.model.orders import ORDERS
from fluidlab.presets import preset

VARIANTS = list(itertools.product(ORDERS, HEADS))
V = 64


def variant(order: str, head: str, **changes) -> Fluid:
    """A nano model that is awake: a zero-initialised output would hide every leak and every cache error."""
    torch.manual_seed(0)
    model = Fluid(preset("nano", order=order, head=head, **{"codebook_size": V, **changes}))
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1 and p.std() < 0.05:
                p.add_(torch.randn_like(p) * 0.1)
    return model.eval()


def batch(model: Fluid, B: int = 4, S: int = 6, seed: int = 0):
    """Tokens of the model's kind, features and a mask with padding in every row but the first."""
    g, c = torch.Generator().manual_seed(seed), model.config
    if model.head.token_kind == "discrete":
        tokens = torch.randint(0, c.codebook_size, (B, c.seq_len), generator=g)
    else:
        tokens = torch.randn(B, c.seq_len, c.token_dim, generator=g)
    features = torch.randn(B, S, c.text_dim, generator=g)
    mask = torch.arange(S) < torch.tensor([S] + [1 + i % (S - 1) for i in range(1, B)])[:, None]
    return tokens, features, mask


def broken_png(how: str) -> bytes:
    """A PNG that makes Pillow raise something other than an OSError: "bomb" claims 60,000 x 60,000 pixels, "chunk" says
    a wrong length of its data, which is a SyntaxError."""
    import io
    import struct
    import zlib

    from PIL import Image
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "PNG")
    data = bytearray(file.getvalue())
    if how == "bomb":
        data[16:24] = struct.pack(">II", 60_000, 60_000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    else:
        place = data.index(b"IDAT")
        data[place - 4:place] = struct.pack(">I", 3)
    return bytes(data)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_judge(folder, favourite: str = "cat"):
    """GenEval's two networks, real classes with small random weights, in `folder/detector` and `folder/clip`.

    The detector's last layer leans to one class, because random weights are never sure of anything.
    """
    import json

    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPConfig, CLIPModel, Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    from fluidlab.evaluate.geneval_prompts import CLASSES
    torch.manual_seed(0)
    swin = SwinConfig(image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
                      out_features=["stage1", "stage2", "stage3", "stage4"])
    config = Mask2FormerConfig(
        backbone_config=swin, hidden_dim=32, feature_size=32, mask_feature_size=32, encoder_layers=1, decoder_layers=2,
        num_attention_heads=2, dim_feedforward=32, encoder_feedforward_dim=32, num_queries=6,
        id2label=dict(enumerate(CLASSES)), label2id={name: i for i, name in enumerate(CLASSES)})
    detector = Mask2FormerForUniversalSegmentation(config)
    with torch.no_grad():
        detector.class_predictor.bias[CLASSES.index(favourite)] = 8.0
        for p in detector.model.transformer_module.decoder.mask_predictor.parameters():
            p.mul_(8)                                                     # masks of both signs, with edges
    detector.save_pretrained(folder / "detector")
    sizes = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    text = dict(sizes, vocab_size=514, max_position_embeddings=77, bos_token_id=512, eos_token_id=513, pad_token_id=513)
    vision = dict(sizes, image_size=32, patch_size=8)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder / "clip")
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "clip" / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "clip" / "merges.txt").write_text("#version: 0.2\n")
    return folder


class SmallNetwork(torch.nn.Module):
    """In the place of torch-fidelity's network: the same way to be built, one layer instead of ninety."""

    def __init__(self, name, layers, weights):
        super().__init__()
        assert (name, layers) == ("inception-v3-compat", ["2048"])
        self.layer = torch.nn.Linear(3, 2048)
        self.load_state_dict(torch.load(weights, weights_only=True))

    def forward(self, images):
        return (self.layer(images.float().mean((2, 3))),)


def small_inception(monkeypatch):
    """Put a small network in the place of torch-fidelity's, and an address that does not exist in that of its weights.
    """
    package, module = types.ModuleType("torch_fidelity"), types.ModuleType("feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3, module.URL_INCEPTION_V3 = SmallNetwork, "https://weights.invalid/w-12345678.pth"
    package.feature_extractor_inceptionv3 = module
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)
