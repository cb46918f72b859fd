"""`fluidlab plan`: what a sharded run of a size would need, before anything is started."""


def add_plan(p) -> None:
    p.add_argument("--preset", default="369m", help="size, a name of `presets.py`")
    p.add_argument("--order", default="random")
    p.add_argument("--head", default="diffusion")
    p.add_argument("--devices", type=int, default=1)
    p.add_argument("--device", help="a kind of accelerator whose memory and peak are known: v5e, v5p, v6e, a100, h100, "
                                    "h200")
    p.add_argument("--device-memory", help="of one device, such as 32GB or 80GiB, instead of --device")
    p.add_argument("--peak", type=float, help="operations a second of one device, such as 197e12, instead of --device")
    p.add_argument("--batch-size", type=int, default=2048, help="images of one step, over all devices")
    p.add_argument("--shards", type=int, help="devices that share one copy of the state; default all")
    p.add_argument("--micro-batch", type=int, help="images that a device computes at once; default its whole share")
    p.add_argument("--checkpointing", action="store_true", help="recompute the backbone's blocks in the backward pass")
    p.add_argument("--precision", default="bf16")
    p.add_argument("--text-tokens", type=int, default=128)
    p.add_argument("--utilisation", type=float, default=0.4, help="share of the peak that does the model's work")
    p.add_argument("--steps", type=int, default=1_000_000, help="of the whole run")


def run_plan(args) -> int:
    """Memory and time of a sharded run, counted without starting it."""
    from fluidlab.config import check_choice, check_range
    from fluidlab.presets import preset
    from fluidlab.train.plan import DEVICES, SECONDS_A_DAY, USABLE, describe, fits, parse_bytes, plan, smallest_change
    if args.device is not None:
        check_choice("device", args.device, tuple(DEVICES))
    known = DEVICES.get(args.device)
    if known is None and args.device_memory is None:
        raise ValueError(f"plan needs --device (one of {', '.join(DEVICES)}) or --device-memory, got neither.")
    memory = parse_bytes(args.device_memory) if args.device_memory else known.memory
    peak = args.peak if args.peak is not None else known and known.peak
    check_range("utilisation", args.utilisation, 0.01, 1.0)
    check_range("steps", args.steps, 1, kind=int)
    if peak is not None:
        check_range("peak", peak, 1.0)
    found = plan(preset(args.preset, order=args.order, head=args.head), devices=args.devices,
                 batch_size=args.batch_size, shards=args.shards, micro_batch=args.micro_batch,
                 checkpointing=args.checkpointing, precision=args.precision, text_tokens=args.text_tokens)
    print(f"{args.order} + {args.head}, {args.preset}: {found.parameters:,} parameters; {found.devices} devices, "
          f"{found.shards} to a copy; {found.micro_batch} images at once, {found.accumulation} times a step")
    for name, size in describe(found).items():
        print(f"  {name:<12} {size / 1e9:10.3f} GB a device")
    print(f"  of memory    {memory / 1e9:10.3f} GB, of which {USABLE:.0%} may be used")
    print(f"  {found.flops:.3e} floating-point operations a step")
    if peak is None:
        print("  steps a day: name --device or --peak")
    else:
        seconds = found.seconds_per_step(peak, args.utilisation)
        print(f"  {SECONDS_A_DAY / seconds:,.0f} steps a day at {args.utilisation:.0%} of {peak:.3g} operations a "
              f"second; {args.steps:,} steps take {args.steps * seconds / SECONDS_A_DAY:,.1f} days")
    if fits(found, memory):
        return 0
    change = smallest_change(found, memory)
    advice = ("nothing tried makes it fit: take a smaller preset or devices with more memory" if change is None else
              f"it fits with {change[0]}, {change[1].total / 1e9:.3f} GB a device")
    raise ValueError(f"a device needs {found.total / 1e9:.3f} GB and may use {USABLE * memory / 1e9:.3f}; {advice}.")
