"""`fluidlab verify-online`: try once, on a machine with a network, everything that is fetched or sent."""

from pathlib import Path


def add_verify_online(p) -> None:
    p.add_argument("--folder", type=Path, default=Path("runs/verify-online"),
                   help="for the report and for what is made; a later run skips what passed there")
    p.add_argument("--list", action="store_true", help="only list the steps")
    p.add_argument("--only", nargs="+", metavar="STEP", help="only these; some run only where they are named here")
    p.add_argument("--skip", nargs="+", metavar="STEP", help="all but these")
    p.add_argument("--push-to", metavar="USER/NAME", help="a repository of yours, made private if it is not there: "
                                                          "also try to send a pipeline, and a token cache to "
                                                          "USER/NAME-tokens; both stay until you delete them")


def run_verify_online(args) -> int:
    """Try what needs a network: real tokenizers, text encoders, data sets, FID's and GenEval's networks, the hub."""
    from fluidlab.checks.online import REPORT, STEPS, choose_steps, run_steps
    if args.list:
        print(listed(STEPS))
        return 0
    steps, outcomes = choose_steps(STEPS, args.only, args.skip, args.push_to), []
    megabytes = sum(step.megabytes for step in steps)
    print(f"{len(steps)} steps, about {megabytes / 1000:.1f} GB where nothing of it is here yet; report in "
          f"{args.folder / REPORT}", flush=True)
    for outcome in run_steps(steps, args.folder):
        outcomes.append(outcome)
        print(f"{state(outcome)} {outcome.step.name} ({took(outcome)}): {outcome.found}", flush=True)
    print("\n" + table(outcomes))
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def state(outcome) -> str:
    return "passed" if outcome.passed else "FAILED"


def took(outcome) -> str:
    return "before" if outcome.seconds is None else f"{outcome.seconds:.1f} s"


def listed(steps) -> str:
    lines = ["| step | address | MB, about | what |", "|---|---|---|---|"]
    for step in steps:
        lines.append(f"| {step.name} | {step.id} | {step.megabytes} | {step.what}"
                     f"{' (only where named with --only)' if step.asked_for else ''} |")
    return "\n".join(lines)


def table(outcomes) -> str:
    lines = ["| step | outcome | took | what |", "|---|---|---|---|"]
    lines += [f"| {o.step.name} | {state(o)} | {took(o)} | {o.step.what} |" for o in outcomes]
    return "\n".join([*lines, f"{sum(o.passed for o in outcomes)} of {len(outcomes)} steps passed"])
