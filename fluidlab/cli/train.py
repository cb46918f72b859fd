"""`fluidlab cache`, `train` and `export`: from scenes to a folder that `FluidPipeline.from_pretrained` reads."""

import argparse
from contextlib import nullcontext
from pathlib import Path

from fluidlab.cli.captions import add_cached_captions, complete, count_images, load_parts, open_source, report
from fluidlab.cli.options import add_source, add_threads, given, use_threads


def add_cache(p) -> None:
    p.add_argument("folder", help="folder to write; with --measure also an address that fsspec knows")
    p.add_argument("--tokenizers", nargs="+", help="default: both shipped ones, or Stable Diffusion's for a data set")
    p.add_argument("--text-encoder", help="default: the shipped one, or flan-t5-base for a data set")
    p.add_argument("--batch-size", type=int, default=256)
    p.add_argument("--shard-size", type=int, default=8192, help="images in each file")
    p.add_argument("--part", type=int, default=0, help="which of --parts writing processes this is, from 0")
    p.add_argument("--parts", type=int, default=1)
    p.add_argument("--measure", action="store_true", help="write nothing: how many images a second are read from it?")
    p.add_argument("--stream", action="store_true", help="measure as a stream, as an address is always read")
    p.add_argument("--window", type=int, help="measure with the rows of so many shards mixed; default: all, a stream 4")
    add_source(p, 320_000)
    add_cached_captions(p)
    add_threads(p)


def run_cache(args) -> None:
    """Compute tokens and text features once and keep them for training; or measure how fast they are read."""
    use_threads(args)
    if args.measure:
        return measure_cache(args)
    from fluidlab.data.token_cache import missing_shards, what_is_missing, write_cache
    complete(args)
    source, description = open_source(args)
    source, num_images = count_images(source, args.num_images)
    folder = write_cache(args.folder, source, num_images, *load_parts(args), batch_size=args.batch_size,
                         shard_size=args.shard_size, part=args.part, parts=args.parts, description=description)
    missing = missing_shards(folder)
    print(f"{folder} holds {images_in(folder)} images{report(source)}" if not missing else
          f"{folder}: part {args.part} of {args.parts} is written, {what_is_missing(folder)}")


def images_in(folder: Path) -> int:
    """How many images a whole cache holds: no more than were planned, less those that cannot be read."""
    from fluidlab.data.token_cache import read_manifest
    manifest = read_manifest(folder)
    return sum(facts["rows"] for facts in manifest["shards"]) if "shards" in manifest else manifest["num_images"]


def measure_cache(args, seconds: float = 2.0) -> None:
    """Images a second for each tokenizer of a cache, in batches of 32, 128 and 512, on --threads; no model."""
    from fluidlab.data.prefetch import throughput
    from fluidlab.data.streaming import is_url
    from fluidlab.data.token_cache import TokenCache, read_manifest
    for name in read_manifest(args.folder)["tokenizers"]:
        data = TokenCache(args.folder, name, stream=args.stream or is_url(args.folder), window=args.window)
        for batch_size in (32, 128, 512):
            rate, of_a_core = throughput(data, batch_size, seconds)
            print(f"{name} batch_size {batch_size} images/s {rate:.0f} ({of_a_core:.0f} in a second of one core)",
                  flush=True)
        data.close()


def add_train(p) -> None:
    import dataclasses

    from fluidlab.config import TrainConfig
    p.add_argument("--order", default="random")
    p.add_argument("--head", default="diffusion")
    p.add_argument("--preset", default="mini")
    p.add_argument("--cache", required=True, help="folder of `fluidlab cache`, or an address of one that fsspec knows")
    p.add_argument("--stream", action="store_true", help="fetch the cache's shards while training, as from an address")
    p.add_argument("--window", type=int, help="mix the rows of so many shards at a time; default: all, a stream 4")
    p.add_argument("--validation", type=Path, help="another cache, of the validation split")
    p.add_argument("--tokenizer", help="which of the cache's tokens; default: the one of the head's kind")
    p.add_argument("--head-repeats", type=int, default=1)
    p.add_argument("--out", type=Path, required=True, help="folder of the run")
    p.add_argument("--resume", action="store_true")
    for field in dataclasses.fields(TrainConfig):
        option = f"--{field.name.replace('_', '-')}"
        if isinstance(field.default, bool):
            p.add_argument(option, action=argparse.BooleanOptionalAction, default=field.default)
        elif field.name != "betas":
            p.add_argument(option, type=type(field.default), default=field.default)
    p.add_argument("--init-from", type=Path, help="folder of an exported model whose weights to begin with")
    p.add_argument("--device", help="cpu, cuda ...; default: the accelerator that PyTorch finds")
    p.add_argument("--engine", default="auto", choices=("auto", "fsdp", "xla"), help="xla: torch_xla, as Colab has it")
    p.add_argument("--timeout", type=float, default=600.0, help="seconds after which a lost process is given up")
    add_threads(p)


def make_trainer(config, data, held_out, size: str, *, world=None, **variant):
    """A trainer for a size and variant on a cache, validated on another (or None), with weights from config.seed.

    With a world the model is sharded over its processes.

    Raises:
        ValueError: the two caches were made by different tokenizers or text encoders.
    """
    from fluidlab.evaluate.loss import validator
    from fluidlab.presets import preset
    from fluidlab.train.parallel import build
    from fluidlab.train.trainer import Trainer
    validate = None
    if held_out is not None:
        for part, made_by in data.fingerprints().items():
            if held_out.fingerprints()[part] != made_by:
                raise ValueError(f"the validation cache was made by another {part} than the training cache: "
                                 f"fingerprint {held_out.fingerprints()[part][:12]}, not {made_by[:12]}.")
        validate = validator(held_out, min(config.validate_images, len(held_out)))
    model = build(preset(size, **variant, **data.model_facts()), config, world)
    return Trainer(model, data, config, validate, world)


def run_train(args) -> None:
    """Train one variant on a cache; --resume continues a run that was stopped. Under torchrun, sharded over devices."""
    import dataclasses

    from fluidlab.config import TOKEN_KINDS, TrainConfig, check_choice
    from fluidlab.data.prefetch import Prefetcher
    from fluidlab.data.streaming import is_url
    from fluidlab.data.token_cache import WINDOW, TokenCache, cache_tokenizer
    from fluidlab.evaluate.results import provenance
    from fluidlab.train.loop import train
    from fluidlab.train.parallel import start
    use_threads(args)
    check_choice("head", args.head, tuple(TOKEN_KINDS))
    names = [f.name for f in dataclasses.fields(TrainConfig) if f.name != "betas"]
    config = TrainConfig(**{name: getattr(args, name) for name in names})
    tokenizer = args.tokenizer or cache_tokenizer(args.cache, TOKEN_KINDS[args.head])
    streamed = args.stream or is_url(args.cache)
    data = TokenCache(args.cache, tokenizer, stream=streamed, window=args.window,
                      ahead=(args.window or WINDOW) if streamed else 0)
    if data.kind != TOKEN_KINDS[args.head]:
        raise ValueError(f"head {args.head!r} needs {TOKEN_KINDS[args.head]} tokens, those of {tokenizer} are "
                         f"{data.kind}.")
    held_out = None if args.validation is None else TokenCache(args.validation, tokenizer)
    world = start(args.device, shards=config.shards, timeout=args.timeout, engine=args.engine)
    try:
        trainer = make_trainer(config, data, held_out, args.preset, world=world, order=args.order, head=args.head,
                               head_repeats=args.head_repeats)
        if args.init_from is not None:
            trainer.begin_with(args.init_from)
        if world.rank == 0:
            print(f"{args.order} + {args.head}, {args.preset}: {trainer.model.count_parameters()}, {len(data)} images, "
                  f"{world.describe()}")
        facts = {"preset": args.preset, **provenance(), **facts_of(data, held_out)}
        # on a CPU alone reading takes a thousandth of a step, and a thread would take its core away
        with nullcontext(data) if world.device.type == "cpu" and not streamed else Prefetcher(data) as trainer.data:
            train(trainer, args.out, resume=args.resume, facts=facts)
    finally:
        data.close()
        world.close()


def facts_of(data, held_out) -> dict:
    """What a run remembers of its caches, and what a resumed run must find again."""
    return {"fingerprints": data.fingerprints(), "data": data.facts(),
            **({} if held_out is None else {"validation": held_out.facts()})}


def add_export(p) -> None:
    p.add_argument("trained", type=Path, metavar="run", help="folder of `fluidlab train`")
    p.add_argument("out", type=Path, help="folder to write, for `FluidPipeline.from_pretrained`")
    p.add_argument("--tokenizer", required=True, help="shipped name or folder of the tokenizer it was trained on")
    p.add_argument("--text-encoder", default="scenes-t5")
    p.add_argument("--guidance-scale", type=float, help="what the pipeline recommends and uses by itself")
    p.add_argument("--temperature", type=float, help="what the pipeline recommends and uses by itself")
    p.add_argument("--results", type=Path, help="add the run's loss curve to this results.csv")


def run_export(args) -> None:
    """Turn a run's last checkpoint into a pipeline folder (half precision), and its log into rows of results.csv."""
    import torch

    from fluidlab.config import SampleConfig, TrainConfig
    from fluidlab.data.token_cache import tokens_fingerprint
    from fluidlab.evaluate.results import append_results, provenance
    from fluidlab.model.files import save_model
    from fluidlab.text import load_text_encoder
    from fluidlab.tokenizer import SHIPPED, load_tokenizer
    from fluidlab.train.checkpoint import averaged_model
    from fluidlab.train.loop import read_log
    from fluidlab.whole import read_json, write_json
    defaults = given(guidance_scale=args.guidance_scale, temperature=args.temperature)
    SampleConfig(**defaults)
    model, steps = averaged_model(args.trained)
    facts = read_json(args.trained / "run.json", "train", "preset")
    config = TrainConfig.from_dict(facts["train"])
    tokenizer, text_encoder = load_tokenizer(args.tokenizer), load_text_encoder(args.text_encoder)
    found, made = {"tokenizer": tokens_fingerprint(tokenizer)}, facts.get("fingerprints", {}).get("text_encoder")
    found["text_encoder"] = made if made and text_encoder.made(made) else text_encoder.fingerprint()
    for part, made_with in facts.setdefault("fingerprints", found).items():
        if found[part] != made_with:
            raise ValueError(f"the run was trained with another {part} than {getattr(args, part)}: fingerprint "
                             f"{made_with[:12]}, it has {found[part][:12]}.")
    save_model(model, args.out, dtype=torch.float16)
    shipped = args.tokenizer in SHIPPED
    if not shipped:                # with the statistics that its tokens were scaled by, which are this machine's alone
        tokenizer.save_pretrained(args.out / "tokenizer")
    write_json(args.out / "pipeline.json", {"tokenizer": args.tokenizer if shipped else "tokenizer",
                                            "text_encoder": args.text_encoder,
                                            **({"defaults": defaults} if defaults else {})})
    write_json(args.out / "training.json", {**facts, "steps": steps, "images": steps * config.batch_size})
    if args.results is not None:
        base = {"order": model.config.order, "head": model.config.head, "preset": facts["preset"],
                "params": model.count_parameters()["total"], "seed": config.seed,
                **{key: facts.get(key, value) for key, value in provenance().items()}}       # of the training
        rows = [{**base, "steps": r["step"], "metric": metric, "value": round(r[key], 6)}
                for r in read_log(args.trained / "log.jsonl") if r["step"] <= steps
                for key, metric in (("loss", "train_loss"), ("val_loss", "val_loss"))
                if r[key] is not None]
        append_results(rows, args.results)
    print(f"{args.out}: {model.config.order} + {model.config.head}, {steps * config.batch_size} images seen")
