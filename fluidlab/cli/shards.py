"""`fluidlab shards`: who holds which rows of a sharded model, and what a step gathers when, looked at while it runs."""

from pathlib import Path

from fluidlab.cli.options import add_threads, use_threads


def add_shards(p) -> None:
    p.add_argument("--order", default="random")
    p.add_argument("--head", default="diffusion")
    p.add_argument("--preset", default="nano")
    p.add_argument("--cache", type=Path, required=True, help="folder of `fluidlab cache`")
    p.add_argument("--batch-size", type=int, default=16, help="images of the step, over all processes")
    p.add_argument("--shards", type=int, default=0, help="processes that share one copy of the state; 0 = all")
    p.add_argument("--device", help="cpu, cuda ...; default: the accelerator that PyTorch finds")
    p.add_argument("--out", type=Path, required=True, help="JSON file to write")
    add_threads(p)


def run_shards(args) -> None:
    """Look at one real training step: what each process holds, gathers and sends. Under torchrun, sharded."""
    from fluidlab.cli.train import make_trainer
    from fluidlab.config import TOKEN_KINDS, TrainConfig, check_choice
    from fluidlab.data.token_cache import TokenCache, cache_tokenizer
    from fluidlab.train.parallel import start
    from fluidlab.train.shards import look_at_step
    from fluidlab.whole import write_json
    use_threads(args)
    check_choice("head", args.head, tuple(TOKEN_KINDS))
    data = TokenCache(args.cache, cache_tokenizer(args.cache, TOKEN_KINDS[args.head]))
    recipe = TrainConfig(steps=2, batch_size=args.batch_size, shards=args.shards)
    world = start(args.device, shards=args.shards, engine="fsdp")
    try:
        facts = look_at_step(make_trainer(recipe, data, None, args.preset, world=world, order=args.order,
                                          head=args.head))
        if world.rank == 0:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            write_json(args.out, {"preset": args.preset, "order": args.order, "head": args.head,
                                  "batch_size": args.batch_size, **facts})
            print(in_words(facts))
    finally:
        world.close()


def in_words(facts: dict) -> str:
    """The main numbers: a line for each process, and one for the step if there are several."""
    total = sum(p["bytes"] for p in facts["parameters"])
    lines = [f"process {rank} holds {held:,} of {total:,} bytes of weights"
             for rank, held in enumerate(facts["held"]["weights"])]
    if not facts["units"]:
        return "\n".join(lines)
    sent = sum(m["bytes"] for m in facts["messages"])
    gathers = sum(len(unit["gathered"]) for unit in facts["units"])
    return "\n".join([*lines, f"process 0: {gathers} gathers of {len(facts['units'])} units in a step, at most "
                              f"{max(facts['bytes']['gathered']):,} bytes whole at once; {sent:,} bytes in messages"])
