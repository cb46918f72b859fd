"""`fluidlab stats`: mean and deviation of a VAE's latents over your images, measured and kept."""

from fluidlab.cli.captions import add_captions, add_real_parts, open_source, precision, report, rows_at_most
from fluidlab.cli.options import add_source, add_threads, use_threads


def add_stats(p) -> None:
    p.add_argument("tokenizer", help="folder or Hugging Face address of an AutoencoderKL")
    p.add_argument("--batch-size", type=int, default=32)
    p.add_argument("--dry-run", action="store_true", help="print, but keep nothing")
    add_source(p, 2048)
    add_captions(p, "--data")
    add_real_parts(p)
    add_threads(p)
    p.set_defaults(image_size=None)


def run_stats(args) -> None:
    """Measure mean and deviation of a VAE's latents over images, and keep them for `load_tokenizer`."""
    from fluidlab.config import check_range
    from fluidlab.tokenizer import load_tokenizer
    from fluidlab.tokenizer.statistics import measure_statistics
    use_threads(args)
    check_range("num_images", args.num_images, 1, kind=int)
    check_range("batch_size", args.batch_size, 1, kind=int)
    tokenizer = load_tokenizer(args.tokenizer, image_size=args.image_size, device=args.device, dtype=precision(args),
                               max_batch=args.max_batch, statistics=False)
    args.image_size = tokenizer.grid[0] * tokenizer.patch_size
    source, facts = open_source(args)
    what = facts.get("dataset") or f"EmojiScenes {facts['scenes']}"
    found = measure_statistics(tokenizer, batches(source, rows_at_most(source, args.num_images), args.batch_size),
                               what)
    print(f"{args.tokenizer} on {found.images} images of {what}, {found.image_size} pixels{report(source)}")
    print(table(found, tokenizer))
    print(keep(found, tokenizer) if not args.dry_run else "nothing kept")


def batches(source, num_images: int, batch_size: int):
    """The first images of a source, or all where there are fewer, in [-1, 1]."""
    from tqdm.auto import tqdm

    from fluidlab.data.captions import NoSuchPicture
    for start in tqdm(range(0, num_images, batch_size), desc="statistics", unit="batch", leave=False):
        stop = min(start + batch_size, num_images)
        try:
            images, _ = source.batch(range(start, stop))
        except NoSuchPicture:                                  # all are read by now, so how many there are is known
            stop = num_images = len(source)
            if start >= stop:
                return
            images, _ = source.batch(range(start, stop))
        yield images.float() / 127.5 - 1                                                      # (B, 3, H, W)
        if stop == num_images:
            return


def table(found, tokenizer) -> str:
    """One line a channel: what was measured, and what the scale in use makes of it."""
    lines = ["| channel | mean | deviation | deviation of a token now |", "|---|---|---|---|"]
    for channel, (mean, std) in enumerate(zip(found.mean, found.std, strict=True)):
        lines.append(f"| {channel} | {mean:.4f} | {std:.4f} | {std / float(tokenizer.latent_std[channel]):.4f} |")
    return "\n".join(lines)


def keep(found, tokenizer) -> str:
    """Keep the statistics of one of diffusers' autoencoders; ours brought their own from training."""
    from fluidlab.tokenizer.statistics import keep_statistics
    if not hasattr(tokenizer, "pixel_range"):
        return "nothing kept: this tokenizer's scale was measured when it was trained, and belongs to its weights"
    path = keep_statistics(found, tokenizer.model, tokenizer.pixel_range)
    return f"kept in {path}: load_tokenizer uses it from now on; statistics=False leaves it"
