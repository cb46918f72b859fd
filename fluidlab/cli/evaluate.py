"""`fluidlab evaluate`."""

from fluidlab.cli.options import add_threads, use_threads


def add_evaluate(p) -> None:
    p.add_argument("what", choices=("tokenizers",))
    p.add_argument("names", nargs="*", default=["scenes-vae", "scenes-vq"], help="shipped names or folders")
    p.add_argument("--num-images", type=int, default=512, help="scenes and crops; the three photographs are always all")
    add_threads(p)


def run_evaluate(args) -> None:
    """Measure tokenizers on scenes and photographs that they have never seen."""
    import torch

    from fluidlab.data.photos import PHOTOS_HELDOUT, PhotoCrops, load_photo
    from fluidlab.data.scenes import EmojiScenes
    from fluidlab.tokenizer import load_tokenizer
    from fluidlab.tokenizer.metrics import evaluate_tokenizer
    use_threads(args)
    if args.num_images < 1:
        raise ValueError(f"num_images must be at least 1, got {args.num_images}.")
    indices = range(args.num_images)
    sets = {"held-out scenes, 64 px": EmojiScenes("test", 64).batch(indices)[0],
            "held-out photograph crops, 64 px": PhotoCrops("test", 64).batch(indices),
            "held-out photographs, 256 px": torch.stack([load_photo(name, 256) for name in PHOTOS_HELDOUT])}
    print("| images | tokenizer | PSNR dB | SSIM | bits an image | more |\n|---|---|---|---|---|---|")
    for title, images in sets.items():
        for name in args.names:
            result = evaluate_tokenizer(load_tokenizer(name), images.float() / 127.5 - 1, 32)
            psnr, ssim, bits = (result.pop(key) for key in ("psnr", "ssim", "bits_per_image"))
            more = ", ".join(f"{key} {value:.4g}" for key, value in result.items())
            print(f"| {title} | {name} | {psnr:.2f} | {ssim:.3f} | {bits:.0f} | {more} |", flush=True)
