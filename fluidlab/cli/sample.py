"""`fluidlab sample`."""

from pathlib import Path

from fluidlab.cli.options import add_threads, use_threads


def add_sample(p) -> None:
    p.add_argument("prompt", nargs="+")
    p.add_argument("--model", default="random-diffusion-mini", help="shipped name or folder")
    p.add_argument("--out", type=Path, default=Path("sample.png"))
    p.add_argument("--num-images-per-prompt", type=int, default=1)
    p.add_argument("--guidance-scale", type=float, default=3.0)
    p.add_argument("--guidance-schedule", default="constant")
    p.add_argument("--temperature", type=float, default=1.0)
    p.add_argument("--num-inference-steps", type=int, default=None)
    p.add_argument("--num-denoising-steps", type=int, default=25)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--scale", type=int, default=4, help="how many times larger the picture is written")
    add_threads(p)


def run_sample(args) -> None:
    """Draw pictures from prompts, side by side in one file."""
    from fluidlab.pipeline import FluidPipeline
    from fluidlab.viz.show import image_grid
    use_threads(args)
    if args.scale < 1:
        raise ValueError(f"scale must be at least 1, got {args.scale}.")
    names = ("seed", "num_images_per_prompt", "guidance_scale", "guidance_schedule", "temperature",
             "num_inference_steps", "num_denoising_steps")
    output = FluidPipeline.from_pretrained(args.model)(args.prompt, **{n: getattr(args, n) for n in names})
    image_grid(output.pixels, columns=args.num_images_per_prompt, scale=args.scale).save(args.out)
    print(f"{args.out}: {len(output.images)} images")
