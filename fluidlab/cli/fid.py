"""`fluidlab evaluate fid`: draw the captions of image-text pairs and measure FID against their images.

The paper's protocol is 30,000 pairs of MS-COCO 2014: `--reference val2014 --captions captions_val2014.json`. The
reference is measured once and kept under --out, for the next model too.
"""

from pathlib import Path

DEFAULT_MODEL = "random-diffusion-mini"
PAIRS_FILE = "metadata.jsonl"
RESIZED = "middle square, Lanczos"


def add_fid(p) -> None:
    p.add_argument("--reference", type=Path, help="fid: folder of the true pictures, or a .safetensors file of "
                                                  "statistics that an earlier run kept under its --out")
    p.add_argument("--captions", type=Path, help="fid: MS-COCO's captions_*.json, or lines of JSON with file_name and "
                                                 "caption; default: metadata.jsonl in the reference's folder")
    p.add_argument("--pairs-seed", type=int, default=0, help="fid: of the choice of pairs among all there are")
    p.add_argument("--whole-reference", action="store_true", help="fid: compare with every picture of the folder and "
                                                                  "not only with those of the chosen pairs")
    p.add_argument("--image-size", type=int, help="fid: side to which true pictures are cropped and resized; "
                                                  "default: of what is drawn")
    p.add_argument("--inception-weights", help="fid: file of torch-fidelity's Inception-v3; default: fetch it")
    p.add_argument("--batch-size", type=int, default=64, help="fid, geneval: images drawn at a time")
    p.add_argument("--images", type=Path, help="fid, geneval: a folder of pictures to measure instead of drawing")
    p.add_argument("--device", default="auto", help="fid, geneval: of the network that looks at pictures; auto = cuda "
                                                    "where there is one")


def fid(args) -> None:
    """FID of what models draw, or of pictures in a folder."""
    for name in ("reference", "out"):
        if getattr(args, name) is None:
            raise ValueError(f"evaluate fid needs --{name}: " + {
                "reference": "the folder of true pictures or the file of their statistics.",
                "out": "the folder where statistics are kept, to go on with."}[name])
    extractor = open_extractor(args)
    if args.images is not None:
        return print_fid(args.images.name, of_folder(args, extractor))
    from fluidlab.cli.evaluate import training_facts
    names, chosen = args.names or (DEFAULT_MODEL,), chosen_pairs(args)
    if args.results is not None:
        for name in names:  # complains before anything is drawn
            training_facts(name)
    for name in names:
        of_model(args, name, chosen, extractor)


def open_extractor(args):
    from fluidlab.evaluate.fid import InceptionFeatures
    return InceptionFeatures(args.inception_weights, pick_device(args.device))


def pick_device(name: str) -> str:
    """A torch device by name; "auto" is the first CUDA device, or the CPU."""
    import torch
    try:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used ({str(error).splitlines()[0]}); allowed are auto, cpu, cuda "
                         f"and others that this torch knows.") from error
    return str(device)


def chosen_pairs(args) -> list[tuple[str, str]]:
    """The files and captions that are drawn, and for a reference that is a folder: all of them are there."""
    from fluidlab.data.pairs import check_pictures, choose_pairs, read_captions
    captions = args.captions or args.reference / PAIRS_FILE
    if args.captions is None and args.reference.suffix == ".safetensors":
        raise ValueError(f"statistics ({args.reference.name}) know no captions to draw: give --captions.")
    chosen = choose_pairs(read_captions(captions), args.num_images, args.pairs_seed)
    if args.reference.suffix != ".safetensors":
        check_pictures(args.reference, [name for name, _ in chosen])
    return chosen


def of_model(args, name: str, chosen: list[tuple[str, str]], extractor) -> None:
    """Draw the captions, and print, keep and if asked for add to the results how far they are from the reference."""
    from fluidlab.cli.evaluate import rows_of
    from fluidlab.evaluate.frechet import frechet_between
    from fluidlab.evaluate.moments import stream_statistics, to_bytes
    from fluidlab.evaluate.results import append_results
    from fluidlab.evaluate.resume import digest_of, made_by
    from fluidlab.pipeline import FluidPipeline
    pipe, folder = FluidPipeline.from_pretrained(name), args.out / Path(name).name
    settings, captions = drawing_settings(args), [caption for _, caption in chosen]
    size = args.image_size or pipe.model.config.grid[0] * pipe.tokenizer.patch_size
    begun, reference = made_by(folder), measure_reference(args, [file for file, _ in chosen], size, extractor)

    def draw(start: int, stop: int):
        seeds = [args.seed * 1_000_003 + i for i in range(start, stop)]
        return to_bytes(pipe(captions[start:stop], seed=seeds, **settings).pixels)

    facts = {**pipeline_fingerprints(pipe), **settings, "seed": args.seed, "captions": digest_of(captions)}
    drawn = stream_statistics(draw, len(captions), extractor, folder / "drawn", facts, batch_size=args.batch_size,
                              label=f"draw {name}")
    measured = {"fid": frechet_between(drawn, reference)}
    print_fid(name, {**measured, "num_images": drawn.count, "reference_images": reference.count, **settings})
    keep(folder, {**measured, "num_images": drawn.count, "reference_images": reference.count, "image_size": size,
                  **facts, "made_by": begun})
    if args.results is not None:
        append_results(rows_of(name, pipe, measured, begun), args.results)


def drawing_settings(args) -> dict:
    return {name: getattr(args, name) for name in ("guidance_scale", "temperature", "num_inference_steps",
                                                   "num_denoising_steps")}


def pipeline_fingerprints(pipe) -> dict[str, str]:
    """Of everything of a pipeline that a picture depends on."""
    from fluidlab.data.token_cache import weights_fingerprint
    return {"model": weights_fingerprint(pipe.model), "tokenizer": weights_fingerprint(pipe.tokenizer),
            "text_encoder": pipe.text_encoder.fingerprint()}


def measure_reference(args, files: list[str], size: int, extractor):
    """Statistics of the true pictures, from their file or, once, from the pictures."""
    from fluidlab.data.pairs import find_pictures
    from fluidlab.evaluate.moments import load_statistics
    if args.reference.suffix == ".safetensors":
        return load_statistics(args.reference, extractor.fingerprint)
    paths = find_pictures(args.reference) if args.whole_reference else [args.reference / file for file in files]
    return folder_statistics(paths, size, extractor, args)


def folder_statistics(paths: list[Path], size: int, extractor, args):
    """Statistics of pictures, kept by what is in the files: the same pictures are never looked at twice."""
    import torch

    from fluidlab.data.photos import image_to_tensor
    from fluidlab.evaluate.moments import stream_statistics
    from fluidlab.evaluate.resume import digest_of, digest_of_files
    facts = {"pictures": digest_of_files(paths), "image_size": size, "resized": RESIZED}
    stem = args.out / "statistics" / digest_of([facts, extractor.fingerprint])[:16]

    def read(start: int, stop: int):
        return torch.stack([image_to_tensor(path, size) for path in paths[start:stop]])

    found = stream_statistics(read, len(paths), extractor, stem, facts, batch_size=args.batch_size, label="pictures")
    print(f"statistics of {found.count:,} pictures: {stem}.safetensors", flush=True)
    return found


def of_folder(args, extractor) -> dict:
    """FID of the pictures in --images against every picture of the reference."""
    from PIL import Image

    from fluidlab.data.pairs import find_pictures
    from fluidlab.evaluate.frechet import frechet_between
    from fluidlab.evaluate.moments import load_statistics
    paths = find_pictures(args.images)
    with Image.open(paths[0]) as first:
        size = args.image_size or min(first.size)
    if args.reference.suffix == ".safetensors":
        reference = load_statistics(args.reference, extractor.fingerprint)
    else:
        reference = folder_statistics(find_pictures(args.reference), size, extractor, args)
    pictures = folder_statistics(paths, size, extractor, args)
    return {"fid": frechet_between(pictures, reference), "num_images": pictures.count,
            "reference_images": reference.count}


def print_fid(name: str, measured: dict) -> None:
    from fluidlab.evaluate.fid import PAPER_IMAGES
    settings = ", ".join(f"{key} {value}" for key, value in measured.items()
                         if key not in ("fid", "num_images", "reference_images"))
    print(f"{name}: FID {measured['fid']:.4f} of {measured['num_images']:,} images against "
          f"{measured['reference_images']:,}{f', {settings}' if settings else ''}", flush=True)
    if measured["num_images"] < PAPER_IMAGES:
        print(f"  fewer images than the paper's {PAPER_IMAGES:,} make it too large: compare only equal numbers")


def keep(folder: Path, measured: dict) -> None:
    """`fid.json` beside the statistics: the number and all that it depends on."""
    from fluidlab.whole import write_json
    write_json(folder / "fid.json", measured)
    print(f"  {folder / 'fid.json'}")
