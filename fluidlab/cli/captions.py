"""Options for pictures with captions, and for real tokenizers and text encoders: what `cache` and `stats` share.

Without a data set they work on EmojiScenes with the shipped parts; with one, on real pictures with real parts.
"""

from fluidlab.cli.options import given

REAL_TOKENIZERS = ["stabilityai/sd-vae-ft-ema"]
SCENES = 320_000                                     # images that `cache` makes of EmojiScenes
PRECISIONS = ("float32", "bf16")


def add_captions(p, flag: str = "--dataset") -> None:
    """The options of a data set, its columns and its choice of captions."""
    p.add_argument(flag, dest="dataset", metavar="NAME_OR_FOLDER",
                   help="pictures with captions instead of EmojiScenes: a folder (pictures with metadata or text "
                        "files, parquet, webdataset shards, COCO as it is shipped), a file, a pattern, or a Hugging "
                        "Face id, @revision behind it to pin it")
    p.add_argument("--dataset-split", default="train", help="its own name: train, val2014, train[:1%%]")
    p.add_argument("--dataset-config", help="which of several data sets in one repository")
    p.add_argument("--image-column", help="default: what type and name tell")
    p.add_argument("--caption-column", help="default: what name and type tell; json.caption is a key in a column")
    p.add_argument("--caption-number", type=int, help="which of several captions; default: drawn by seed and epoch")
    p.add_argument("--epoch", type=int, default=0, help="another one draws other captions")
    p.add_argument("--streaming", action="store_true", help="read the data set without a copy on this disk")


def add_real_parts(p) -> None:
    """Where and how tokenizers and text encoders compute."""
    p.add_argument("--device", default="cpu", help="of tokenizers and text encoder: cpu, cuda, mps")
    p.add_argument("--precision", default="float32", choices=PRECISIONS,
                   help="bf16: tokenizers compute in it, the text encoder's weights are in it")
    p.add_argument("--max-batch", type=int, help="images at once in a tokenizer; default: by their size")


def add_cached_captions(p) -> None:
    """All of these for `fluidlab cache`, whose defaults then depend on whether there is a data set."""
    add_captions(p)
    add_real_parts(p)
    p.set_defaults(tokenizers=None, text_encoder=None, num_images=None, image_size=None)


def complete(args) -> None:
    """Fill in what was not given: the shipped parts for scenes, real ones for a data set."""
    from fluidlab.text.encoder import FOR_THE_WORLD
    from fluidlab.tokenizer import SHIPPED
    real = args.dataset is not None
    args.tokenizers = args.tokenizers or (REAL_TOKENIZERS if real else list(SHIPPED))
    args.text_encoder = args.text_encoder or (FOR_THE_WORLD if real else "scenes-t5")
    args.image_size = args.image_size or (256 if real else 64)
    if args.num_images is None and not real:
        args.num_images = SCENES


def open_source(args) -> tuple[object, dict]:
    """The source of images and captions, and the facts of it that a manifest keeps.

    Raises:
        ValueError: a stream without a length, or more images wanted than there are.
    """
    if args.dataset is None:
        from fluidlab.data.scenes import EmojiScenes
        return (EmojiScenes(args.split, args.image_size, args.data_seed, size=args.num_images),
                {"scenes": args.split, "image_size": args.image_size, "seed": args.data_seed})
    from fluidlab.data.captions_open import open_captions
    if args.streaming and args.num_images is None:
        raise ValueError("a stream has no length: say how many with --num-images.")
    source = open_captions(
        args.dataset, split=args.dataset_split, config=args.dataset_config, image_column=args.image_column,
        caption_column=args.caption_column, image_size=args.image_size, caption=args.caption_number,
        seed=args.data_seed, epoch=args.epoch, num_images=args.num_images, streaming=args.streaming)
    columns = source.reader.columns
    return source, {"dataset": str(args.dataset), "split": args.dataset_split, "image_size": args.image_size,
                    "columns": [columns.image, columns.caption], "seed": args.data_seed, "epoch": args.epoch,
                    **given(config=args.dataset_config, caption=args.caption_number)}


def precision(args):
    """The dtype of --precision."""
    import torch
    return {"float32": torch.float32, "bf16": torch.bfloat16}[args.precision]


def load_parts(args) -> tuple[dict, object]:
    """Tokenizers by name and the text encoder, as the options say."""
    from fluidlab.text import load_text_encoder
    from fluidlab.tokenizer import load_tokenizer
    tokenizers = {name: load_tokenizer(name, image_size=args.image_size, device=args.device, dtype=precision(args),
                                       max_batch=args.max_batch) for name in args.tokenizers}
    return tokenizers, load_text_encoder(args.text_encoder, precision(args), device=args.device)


def count_images(source, wanted: int | None) -> tuple[object, int]:
    """What to encode and how much of it: as many images as wanted, or every row that can be read.

    No picture is read for it. That there are enough good ones is only known when the last is wanted.

    Raises:
        ValueError: there are fewer, readable or not.
    """
    from fluidlab.data.captions_rows import EveryRow
    if wanted is None:
        return EveryRow(source), len(source.rows)
    if rows_at_most(source, wanted) < wanted:
        raise ValueError(f"{wanted} images were asked for, but there are {len(source)} ({source.report()}).")
    return source, wanted


def rows_at_most(source, wanted: int) -> int:
    """So many images, or as many as a data set has rows, if these are fewer."""
    from fluidlab.data.captions import CaptionedImages
    return min(wanted, len(source.rows)) if isinstance(source, CaptionedImages) else wanted


def report(source) -> str:
    """What was skipped, for the last line; "" for scenes, of which none can be broken."""
    return f"; {source.report()}" if hasattr(source, "report") else ""
