"""`fluidlab cache`, `train` and `export`: from scenes to a folder that `FluidPipeline.from_pretrained` reads."""

from pathlib import Path

from fluidlab.cli.captions import add_cached_captions, complete, count_images, load_parts, open_source, report
from fluidlab.cli.options import add_source, add_threads, use_threads


def add_cache(p) -> None:
    p.add_argument("folder", type=Path)
    p.add_argument("--tokenizers", nargs="+", help="default: both shipped ones, or Stable Diffusion's for a data set")
    p.add_argument("--text-encoder", help="default: the shipped one, or flan-t5-base for a data set")
    p.add_argument("--batch-size", type=int, default=256)
    add_source(p, 320_000)
    add_cached_captions(p)
    add_threads(p)


def run_cache(args) -> None:
    """Compute tokens and text features once and keep them for training."""
    from fluidlab.data.token_cache import write_cache
    use_threads(args)
    complete(args)
    source, description = open_source(args)
    num_images = count_images(source, args.num_images)
    write_cache(args.folder, source, num_images, *load_parts(args), batch_size=args.batch_size, description=description)
    print(f"{args.folder} holds {num_images} images{report(source)}")


def add_train(p) -> None:
    import dataclasses

    from fluidlab.config import TrainConfig
    p.add_argument("--order", default="random")
    p.add_argument("--head", default="diffusion")
    p.add_argument("--preset", default="mini")
    p.add_argument("--cache", type=Path, required=True, help="folder of `fluidlab cache`")
    p.add_argument("--validation", type=Path, help="another cache, of the validation split")
    p.add_argument("--tokenizer", help="which of the cache's tokens; default: the one of the head's kind")
    p.add_argument("--head-repeats", type=int, default=1)
    p.add_argument("--out", type=Path, required=True, help="folder of the run")
    p.add_argument("--resume", action="store_true")
    for field in dataclasses.fields(TrainConfig):
        if field.name != "betas":
            p.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    add_threads(p)


def make_trainer(config, data, held_out, size: str, **variant):
    """A trainer for a size and variant on a cache, validated on another (or None), with weights from config.seed.

    Raises:
        ValueError: the two caches were made by different tokenizers or text encoders.
    """
    import torch

    from fluidlab.evaluate.loss import validator
    from fluidlab.model.fluid import Fluid
    from fluidlab.presets import preset
    from fluidlab.train.loop import Trainer
    validate = None
    if held_out is not None:
        for part, made_by in data.fingerprints().items():
            if held_out.fingerprints()[part] != made_by:
                raise ValueError(f"the validation cache was made by another {part} than the training cache: "
                                 f"fingerprint {held_out.fingerprints()[part][:12]}, not {made_by[:12]}.")
        validate = validator(held_out, min(config.validate_images, len(held_out)))
    torch.manual_seed(config.seed)
    return Trainer(Fluid(preset(size, **variant, **data.model_facts())), data, config, validate)


def run_train(args) -> None:
    """Train one variant on a cache; --resume continues a run that was stopped."""
    import dataclasses

    from fluidlab.config import TOKEN_KINDS, TrainConfig, check_choice
    from fluidlab.data.token_cache import TokenCache, cache_tokenizer
    from fluidlab.evaluate.results import provenance
    from fluidlab.train.loop import train
    use_threads(args)
    check_choice("head", args.head, tuple(TOKEN_KINDS))
    names = [f.name for f in dataclasses.fields(TrainConfig) if f.name != "betas"]
    config = TrainConfig(**{name: getattr(args, name) for name in names})
    tokenizer = args.tokenizer or cache_tokenizer(args.cache, TOKEN_KINDS[args.head])
    data = TokenCache(args.cache, tokenizer)
    if data.kind != TOKEN_KINDS[args.head]:
        raise ValueError(f"head {args.head!r} needs {TOKEN_KINDS[args.head]} tokens, those of {tokenizer} are "
                         f"{data.kind}.")
    held_out = None if args.validation is None else TokenCache(args.validation, tokenizer)
    trainer = make_trainer(config, data, held_out, args.preset, order=args.order, head=args.head,
                           head_repeats=args.head_repeats)
    print(f"{args.order} + {args.head}, {args.preset}: {trainer.model.count_parameters()}, {len(data)} images")
    facts = {"preset": args.preset, **provenance(), **facts_of(data, held_out)}
    train(trainer, args.out, resume=args.resume, facts=facts)


def facts_of(data, held_out) -> dict:
    """What a run remembers of its caches, and what a resumed run must find again."""
    return {"fingerprints": data.fingerprints(), "data": data.facts(),
            **({} if held_out is None else {"validation": held_out.facts()})}


def add_export(p) -> None:
    p.add_argument("trained", type=Path, metavar="run", help="folder of `fluidlab train`")
    p.add_argument("out", type=Path, help="folder to write, for `FluidPipeline.from_pretrained`")
    p.add_argument("--tokenizer", required=True, help="shipped name or folder of the tokenizer it was trained on")
    p.add_argument("--text-encoder", default="scenes-t5")
    p.add_argument("--results", type=Path, help="add the run's loss curve to this results.csv")


def run_export(args) -> None:
    """Turn a run's last checkpoint into a pipeline folder (half precision), and its log into rows of results.csv."""
    import json

    import torch

    from fluidlab.config import TrainConfig
    from fluidlab.data.token_cache import tokens_fingerprint
    from fluidlab.evaluate.results import append_results, provenance
    from fluidlab.model.files import save_model, write_json
    from fluidlab.text import load_text_encoder
    from fluidlab.tokenizer import SHIPPED, load_tokenizer
    from fluidlab.train.checkpoint import averaged_model
    model, steps = averaged_model(args.trained)
    facts = json.loads((args.trained / "run.json").read_text(encoding="utf-8"))
    config = TrainConfig.from_dict(facts["train"])
    tokenizer, text_encoder = load_tokenizer(args.tokenizer), load_text_encoder(args.text_encoder)
    found = {"tokenizer": tokens_fingerprint(tokenizer), "text_encoder": text_encoder.fingerprint()}
    rounded = text_encoder.fingerprint(torch.bfloat16)     # as it was in a cache made with --precision bf16
    if facts.get("fingerprints", {}).get("text_encoder") == rounded:
        found["text_encoder"] = rounded
    for part, made_with in facts.setdefault("fingerprints", found).items():
        if found[part] != made_with:
            raise ValueError(f"the run was trained with another {part} than {getattr(args, part)}: fingerprint "
                             f"{made_with[:12]}, it has {found[part][:12]}.")
    save_model(model, args.out, dtype=torch.float16)
    shipped = args.tokenizer in SHIPPED
    if not shipped:                # with the statistics that its tokens were scaled by, which are this machine's alone
        tokenizer.save_pretrained(args.out / "tokenizer")
    write_json(args.out / "pipeline.json", {"tokenizer": args.tokenizer if shipped else "tokenizer",
                                            "text_encoder": args.text_encoder})
    write_json(args.out / "training.json", {**facts, "steps": steps, "images": steps * config.batch_size})
    if args.results is not None:
        log = [json.loads(line) for line in (args.trained / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        base = {"order": model.config.order, "head": model.config.head, "preset": facts["preset"],
                "params": model.count_parameters()["total"], "seed": config.seed,
                **{key: facts.get(key, value) for key, value in provenance().items()}}       # of the training
        rows = [{**base, "steps": r["step"], "metric": metric, "value": round(r[key], 6)}
                for r in log if r["step"] <= steps for key, metric in (("loss", "train_loss"), ("val_loss", "val_loss"))
                if r[key] is not None]
        append_results(rows, args.results)
    print(f"{args.out}: {model.config.order} + {model.config.head}, {steps * config.batch_size} images seen")
