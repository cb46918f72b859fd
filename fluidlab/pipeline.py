"""Prompt -> text features -> tokens -> image: the one place where all rooms meet.

`FluidPipeline` is a `diffusers.DiffusionPipeline`, so that moving, offloading, saving, sharing and watching it work as
users of diffusers know them. What to notice: below that surface it is still four lines (`__call__`): the text encoder
reads, `generate` draws tokens, the tokenizer decodes them, and nothing here knows of orders or heads.
"""

import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor, nn

from fluidlab.config import SampleConfig, check_choice, check_range, check_type
from fluidlab.device import usable_device
from fluidlab.model.fluid import Fluid
from fluidlab.model.noise import streams
from fluidlab.publish.arguments import check_fit, counted, generators, in_tokens
from fluidlab.publish.folder import check_saving, load_parts, read_index, read_training, write_folder
from fluidlab.publish.model import FluidModel, check_dtype
from fluidlab.publish.pictures import KINDS, decode_known, from_pixels, to_mask, to_pixels
from fluidlab.publish.remote import find_pipeline, upload
from fluidlab.sample.edit import canvases, forget, grow, inpaint, outpaint, paste, surround, token_mask
from fluidlab.sample.generate import Step, generate

SETTINGS = tuple(field.name for field in fields(SampleConfig))
OPTIONS = (*SETTINGS, "use_cache", "on_step", "callback_on_step_end", "callback_on_step_end_tensor_inputs")


@dataclass
class FluidOutput(BaseOutput):
    """images: pictures of the asked type. tokens: (B, N) or (B, N, C). pixels: (B, 3, H, W) float in [-1, 1]."""

    images: list[Image.Image] | Tensor
    tokens: Tensor
    pixels: Tensor | None = None


class FluidPipeline(DiffusionPipeline):
    """A model with the tokenizer and the text encoder that it was trained on.

    Args:
        model: a `Fluid`; it is held as a `FluidModel` of the same tensors.
        tokenizer: of the kind of the model's head.  text_encoder: with the model's text_dim.
        defaults: recommended settings, fields of `SampleConfig`, used where a call does not give its own.

    Raises:
        ValueError: parts that do not belong together, or defaults out of range.
    """

    model_cpu_offload_seq = "text_encoder->model->tokenizer"
    _callback_tensor_inputs = ["tokens", "unknown", "positions"]

    def __init__(self, model: Fluid | FluidModel, tokenizer, text_encoder, defaults: dict | None = None):
        super().__init__()
        check_type("model", model, Fluid, "a Fluid")
        check_fit(model.config, tokenizer, text_encoder)
        SampleConfig.from_dict(defaults or {})
        self.register_modules(model=FluidModel.of(model), tokenizer=tokenizer, text_encoder=text_encoder)
        self.register_to_config(defaults=dict(defaults or {}))
        self.training_facts, self._interrupt, self._num_timesteps = None, False, 0
        notebook = "ipykernel" in sys.modules                   # whose page would keep the bar of every call
        self.set_progress_bar_config(disable=True if notebook else None)        # None: shown in a terminal only

    @classmethod
    def from_pretrained(cls, name: str | Path, *, torch_dtype: torch.dtype | None = None,
                        dtype: torch.dtype | None = None, use_safetensors: bool = True, verify: bool = True,
                        model: Fluid | None = None, tokenizer=None, text_encoder=None, defaults: dict | None = None,
                        **download) -> "FluidPipeline":
        """A pipeline by shipped name ("random-diffusion-mini"), folder or Hub id ("owner/name").

        Args:
            torch_dtype, dtype: float32 or bfloat16, as in `to`; the text encoder is read in it: T5-XXL takes 9.5 GB in
                bfloat16 and twice that in float32.  use_safetensors: only True.
            verify: compare the weights with the sums that they were saved with.
            model, tokenizer, text_encoder, defaults: used in place of the folder's own.
            download: revision, cache_dir, token, force_download, local_files_only, for a Hub id.

        Raises:
            ValueError: nothing of that name (the sentence lists what is shipped), a file that is missing, broken or
                not as it was saved, or a part that the model was not trained with.
        """
        if use_safetensors is False:
            raise ValueError("use_safetensors must be True, got False: pickled weights are never read.")
        wanted = check_dtype(dtype or torch_dtype)
        folder = find_pipeline(name, **download)
        given = {"model": model, "tokenizer": tokenizer, "text_encoder": text_encoder}
        parts = load_parts(folder, {name: part for name, part in given.items() if part is not None}, verify,
                           wanted)
        pipe = cls(**parts, defaults=read_index(folder)["defaults"] if defaults is None else defaults)
        pipe.training_facts = read_training(folder)
        return pipe if dtype is torch_dtype is None else pipe.to(wanted)

    @classmethod
    def download(cls, name: str | Path, **options) -> Path:
        """The folder that `from_pretrained` would read; options as there."""
        return find_pipeline(name, **options)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32, *,
                        safe_serialization: bool = True, variant: str | None = None, push_to_hub: bool = False,
                        repo_id: str | None = None, **hub) -> Path:
        """Write everything that is needed to draw again, and a model card; safetensors, JSON and Markdown.

        Args:
            dtype: of the model's weights on the disk; they are float32 again when loaded.
            push_to_hub, repo_id, hub: upload the folder as well, under its own name if `repo_id` is None.
        """
        check_saving(safe_serialization, variant)
        folder = Path(folder)
        name = repo_id or folder.name
        self._write(folder, name, dtype)
        if push_to_hub:
            upload(folder, name, **{"commit_message": "Upload FluidPipeline", **hub})
        return folder

    def push_to_hub(self, repo_id: str, commit_message: str = "Upload FluidPipeline", private: bool | None = None,
                    token: str | None = None, create_pr: bool = False, safe_serialization: bool = True,
                    variant: str | None = None, subfolder: str | None = None) -> str:
        """Save to a temporary folder and upload it; a card that the Hub has already is kept. Returns the commit."""
        check_saving(safe_serialization, variant)
        with TemporaryDirectory() as folder:
            self._write(Path(folder), repo_id, torch.float32)
            return upload(Path(folder), repo_id, commit_message=commit_message, private=private, token=token,
                          create_pr=create_pr, subfolder=subfolder)

    def _write(self, folder: Path, name: str, dtype: torch.dtype) -> None:
        self.save_config(folder)                                # model_index.json: what diffusers knows a pipeline by
        write_folder(folder, name, self.model, self.tokenizer, self.text_encoder, dtype=dtype,
                     defaults=dict(self.config.defaults), training=self.training_facts)

    def to(self, *args, dtype: torch.dtype | None = None, **options) -> "FluidPipeline":
        """Move, as in diffusers: `to(device)`, `to(dtype)`, `to(device, dtype)`.

        bfloat16 is for the text encoder, the aligner and the backbone. The head, whose diffusion arithmetic is float32
        by rule, and the tokenizer stay float32, bit for bit.

        Raises:
            ValueError: a dtype that is neither float32 nor bfloat16, or two of them; a device that is not here.
        """
        dtypes = [a for a in args if isinstance(a, torch.dtype)] + ([] if dtype is None else [dtype])
        if len(dtypes) > 1:
            raise ValueError(f"to takes one dtype, got {len(dtypes)}: {', '.join(map(str, dtypes))}.")
        wanted = check_dtype(dtypes[0]) if dtypes else None
        places = [usable_device(a) if isinstance(a, str) else a for a in args if not isinstance(a, torch.dtype)]
        super().to(*places, **options)
        for part in (self.model, self.text_encoder):
            if wanted is not None and isinstance(part, nn.Module):
                part.to(wanted)
        return self

    def enable_sequential_cpu_offload(self, *args, **options) -> None:
        """Refused: it moves a layer when its `forward` runs, and Fluid reads weights elsewhere too (the mask token)."""
        raise ValueError("a FluidPipeline cannot be offloaded layer by layer; enable_model_cpu_offload works.")

    @property
    def interrupt(self) -> bool:
        """Set `pipe._interrupt = True` in a callback and the drawing ends after that step."""
        return self._interrupt

    @property
    def num_timesteps(self) -> int:
        """Steps over the sequence of the latest call."""
        return self._num_timesteps

    @torch.no_grad()
    def __call__(self, prompt: str | list[str], *, seed: int | list[int] | None = None, generator=None,
                 num_images_per_prompt: int = 1, images_at_once: int = 64, output_type: str = "pil",
                 return_dict: bool = True, **options) -> FluidOutput | tuple:
        """Draw images.

        Args:
            prompt: one text or a list. An empty text means "no text".
            seed: image i uses seed + i; or one seed per image. The same seed draws the same image in any batch.
            generator: instead of a seed, as in `generate`.
            num_images_per_prompt: each prompt that many times, with seeds of their own.
            images_at_once: more than these are drawn group after group, so that memory does not grow with their number;
                on_step and callbacks see one group at a time. The images are the same.
            output_type: "pil", "pt" (B, 3, H, W) in [0, 1], "np" (B, H, W, 3) in [0, 1], or "latent", the tokens.
            return_dict: False for a tuple with the images alone.
            options: guidance_scale, guidance_schedule, temperature, num_inference_steps, num_denoising_steps,
                on_step, use_cache: of `generate`. What is not given is the pipeline's default, or `generate`'s.
                callback_on_step_end: called as (pipe, step, step, tensors) after every step of the sequence, with those
                of tokens, unknown and positions that callback_on_step_end_tensor_inputs names (by default the tokens).
                Tokens in the dictionary that it returns take the place of those so far.
        """
        check_choice("output_type", output_type, (*KINDS, "latent"))
        check_type("prompt", prompt, (str, list, tuple), "a text or a list of texts")
        prompts = [p for p in ([prompt] if isinstance(prompt, str) else list(prompt))
                   for _ in range(counted(num_images_per_prompt))]
        check_range("images_at_once", images_at_once, 1, kind=int)
        generator = streams(generators(seed, generator, len(prompts)), len(prompts))
        groups = range(0, max(len(prompts), 1), images_at_once)
        with self._watched([self.model.config.seq_len] * len(groups), **options) as options:
            drawn = [self._draw(prompts[i:i + images_at_once], generator[i:i + images_at_once], options)
                     for i in groups]
        tokens = torch.cat(drawn)                                                       # (B, N) or (B, N, C)
        pixels = None if output_type == "latent" else self._decode(tokens)
        self.maybe_free_model_hooks()
        images = tokens if pixels is None else from_pixels(pixels, output_type)
        return FluidOutput(images, tokens, pixels) if return_dict else (images,)

    def _draw(self, prompts: list[str], generator: list[torch.Generator], options: dict) -> Tensor:
        features, mask = self.text_encoder(prompts)                                     # (B, S, E), (B, S)
        if self._interrupt:                                                             # in a group before this one
            return self.model.head.blank(len(prompts), self.model.config.seq_len, features.device)
        return generate(self._awake("model"), features, mask, generator=generator, **options)

    @torch.no_grad()
    def inpaint(self, image: Tensor | Image.Image, pixel_mask: Tensor | Image.Image, prompt: str, *,
                seed: int | list[int] | None = None, generator=None, num_images_per_prompt: int = 1, ring: int = 1,
                keep_pixels: bool = True, **options) -> FluidOutput:
        """Draw a part of a picture anew.

        Args:
            image: (3, H, W) float in [-1, 1] or a PIL picture, as large as the model's canvas.
            pixel_mask: (H, W) bool, True = may change; or a PIL picture, white = may change.
            prompt: of the whole picture.  ring: tokens that the mask grows by; all others never change.
            keep_pixels: paste the original over every pixel outside the mask.
            seed, generator, num_images_per_prompt, options: as in a call.
        """
        pixel_mask = to_mask(pixel_mask).to(self._execution_device)
        unknown = token_mask(pixel_mask, self.tokenizer.patch_size, ring)               # (N,)
        pixels = self._on_canvas(image)
        generator = generators(seed, generator, counted(num_images_per_prompt))
        tokens = self._redraw(pixels, unknown, prompt, generator, num_images_per_prompt, options)
        return self._edited(tokens, pixels, pixel_mask if keep_pixels else None)

    @torch.no_grad()
    def variation(self, image: Tensor | Image.Image, prompt: str, *, strength: float = 0.5,
                  pixel_mask: Tensor | Image.Image | None = None, seed: int | list[int] | None = None, generator=None,
                  num_images_per_prompt: int = 1, **options) -> FluidOutput:
        """Forget a random share of a picture's tokens and draw them anew, each image another share.

        Args:
            image, prompt, seed, generator, num_images_per_prompt, options: as in `inpaint`.
            strength: share of the tokens that is drawn anew, from above 0 to 1 (then nothing of the picture is left).
            pixel_mask: as in `inpaint`, without a ring: only tokens that it touches are forgotten; None = all may be.
        """
        pixels, N = self._on_canvas(image), self.model.config.seq_len
        allowed = (torch.ones(N, dtype=torch.bool) if pixel_mask is None
                   else token_mask(to_mask(pixel_mask), self.tokenizer.patch_size, ring=0)).to(pixels.device)
        generator = generators(seed, generator, counted(num_images_per_prompt))
        unknown = forget(strength, allowed, num_images_per_prompt, generator)           # (B, N)
        return self._edited(self._redraw(pixels, unknown, prompt, generator, num_images_per_prompt, options), pixels)

    @torch.no_grad()
    def outpaint(self, image: Tensor | Image.Image, prompt: str, *, top: int = 0, bottom: int = 0, left: int = 0,
                 right: int = 0, ring: int = 0, keep_pixels: bool = True, seed: int | list[int] | None = None,
                 generator=None, num_images_per_prompt: int = 1, **options) -> FluidOutput:
        """Draw around a picture: the result is larger by the margins.

        Positions are learned for one canvas, so the canvas moves: half on what is known, half on what is not, and so
        on until the margins are full. What is further away than a canvas is forgotten; the prompt is the same for all.

        Args:
            image: (3, h, w) float in [-1, 1] or a PIL picture, sides multiples of 16; with its margins at least as
                large as the canvas, so a smaller picture can be completed to one canvas.
            top, bottom, left, right: pixels to add, multiples of 16.
            ring: tokens at the picture's border that are drawn anew too; all others never change.
            prompt, keep_pixels, seed, generator, num_images_per_prompt, options: as in `inpaint`.
        """
        patch, pixels = self.tokenizer.patch_size, to_pixels(image).to(self._execution_device)
        margins = in_tokens(patch, top=top, bottom=bottom, left=left, right=right)
        check_range("ring", ring, 0, kind=int)
        generator = generators(seed, generator, counted(num_images_per_prompt))
        known = self._awake("tokenizer").encode(pixels)                                 # (1, h w) or (1, h w, C)
        known = known.unflatten(1, (pixels.shape[-2] // patch, -1))                     # (1, h, w) or (1, h, w, C)
        H, W = known.shape[1] + sum(margins[:2]), known.shape[2] + sum(margins[2:])
        blank = self.model.head.blank(num_images_per_prompt, H * W, known.device)
        tokens, outside = surround(known, margins, blank)                               # (B, H, W[, C]), (H, W)
        unknown = grow(outside, ring)
        holes = [number for _, _, number in canvases(unknown, self.model.config.grid)]
        features, mask = self.text_encoder([prompt] * num_images_per_prompt)
        with self._watched(holes, **options) as options:
            tokens = outpaint(self._awake("model"), tokens, unknown, features, mask, generator=generator, **options)
        larger = nn.functional.pad(pixels, (left, right, top, bottom))                  # (1, 3, 16 H, 16 W)
        may_change = outside.repeat_interleave(patch, 0).repeat_interleave(patch, 1)    # (16 H, 16 W)
        return self._edited(tokens.flatten(1, 2), larger, may_change if keep_pixels else None, (H, W))

    def _redraw(self, pixels: Tensor, unknown: Tensor, prompt: str, generator, number: int, options: dict) -> Tensor:
        tokens = self._awake("tokenizer").encode(pixels)
        tokens = torch.cat([tokens] * number)                                           # (B, N) or (B, N, C)
        features, mask = self.text_encoder([prompt] * number)
        with self._watched([int(unknown.sum(dim=-1).max())], **options) as options:
            return inpaint(self._awake("model"), tokens, unknown, features, mask, generator=generator, **options)

    def _edited(self, tokens: Tensor, original: Tensor, pixel_mask: Tensor | None = None,
                grid: tuple[int, int] | None = None) -> FluidOutput:
        pixels = self._decode(tokens, grid)
        self.maybe_free_model_hooks()
        if pixel_mask is not None:
            pixels = paste(original, pixels, pixel_mask)
        return FluidOutput(from_pixels(pixels), tokens, pixels)

    @contextmanager
    def _watched(self, holes: list[int], *, on_step=None, callback_on_step_end=None,
                 callback_on_step_end_tensor_inputs=("tokens",), **options):
        """The options of `generate`, with an `on_step` that serves the bar, the callback and an interruption.

        Args:
            holes: how many tokens are unknown, for every time that `generate` will be called.
        """
        for name in options:
            check_choice("an option", name, OPTIONS)
        for name, function in (("on_step", on_step), ("callback_on_step_end", callback_on_step_end)):
            check_type(name, function, Callable | None, "a function")
        options = {**self.config.defaults, **options}
        steps = SampleConfig(**{name: options[name] for name in SETTINGS if name in options}).num_inference_steps
        names = getattr(callback_on_step_end, "tensor_inputs", callback_on_step_end_tensor_inputs)
        for name in names:
            check_choice("callback_on_step_end_tensor_inputs", name, self._callback_tensor_inputs)
        self._num_timesteps = sum(len(self.model.order.chunk_sizes(hole, steps)) for hole in holes if hole)
        self._interrupt = False

        def watch(step: Step) -> bool:
            if callback_on_step_end is not None:
                self._tell(callback_on_step_end, names, step)
            bar.update()
            self._interrupt = (on_step is not None and on_step(step) is False) or self._interrupt
            return not self._interrupt

        with self.progress_bar(total=self._num_timesteps) as bar:
            yield {**options, "on_step": watch}

    def _tell(self, callback, names, step: Step) -> None:
        answer = callback(self, step.index, step.index, {name: getattr(step, name) for name in names}) or {}
        tokens = answer.get("tokens", step.tokens)
        if tokens.shape != step.tokens.shape:
            raise ValueError(f"a callback must return tokens of shape {tuple(step.tokens.shape)}, got "
                             f"{tuple(tokens.shape)}.")
        if tokens is not step.tokens:
            step.tokens.copy_(tokens)

    def _awake(self, name: str):
        """A part, moved to the accelerator if it was offloaded: the hook only knows of `forward`, so it is asked."""
        part = getattr(self, name)
        hook = getattr(part, "_hf_hook", None)
        if hook is not None:
            hook.pre_forward(part)
        return part

    def _decode(self, tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Pixels (B, 3, H, W); tokens that an interrupted drawing left blank become grey squares."""
        blank = self.model.head.blank(*tokens.shape[:2], tokens.device)                 # (B, N) or (B, N, C)
        return decode_known(self._awake("tokenizer"), tokens, blank, grid or self.model.config.grid)

    def _on_canvas(self, image: Tensor | Image.Image) -> Tensor:
        pixels = to_pixels(image).to(self._execution_device)
        H, W = (side * self.tokenizer.patch_size for side in self.model.config.grid)
        if tuple(pixels.shape[-2:]) != (H, W):
            raise ValueError(f"the picture must be as large as the model's canvas, {H}x{W} pixels, got "
                             f"{pixels.shape[-2]}x{pixels.shape[-1]}.")
        return pixels
