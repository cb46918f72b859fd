"""The command `fluidlab`; `fluidlab --help` lists what it can do.

Every command is two functions in a file of this folder: one that adds its options, one that runs it. Mistakes are one
sentence on stderr and exit code 2, and so is a lack of memory; Ctrl-C is exit code 130 after the state has been saved.
"""

import argparse
import sys

from fluidlab.cli import bench, demo, doctor, evaluate, fit, plan, sample, scale, shards, stats, train, verify_online

COMMANDS = {
    "doctor": (doctor.add_doctor, doctor.run_doctor),
    "fit": (fit.add_fit, fit.run_fit),
    "stats": (stats.add_stats, stats.run_stats),
    "cache": (train.add_cache, train.run_cache),
    "train": (train.add_train, train.run_train),
    "export": (train.add_export, train.run_export),
    "sample": (sample.add_sample, sample.run_sample),
    "evaluate": (evaluate.add_evaluate, evaluate.run_evaluate),
    "scale": (scale.add_scale, scale.run_scale),
    "plan": (plan.add_plan, plan.run_plan),
    "shards": (shards.add_shards, shards.run_shards),
    "bench": (bench.add_bench, bench.run_bench),
    "verify-online": (verify_online.add_verify_online, verify_online.run_verify_online),
    "demo": (demo.add_demo, demo.run_demo),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = build_parser().parse_args(argv)
    try:
        return args.run(args) or 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, FloatingPointError, OSError) as error:
        return refused(args.command, error)
    except (MemoryError, RuntimeError) as error:
        from fluidlab.train.memory import lack_of_memory
        told = lack_of_memory(error)
        if told is None:
            raise
        return refused(args.command, told)


def refused(command: str, why) -> int:
    """Say in one line why a command ends here; returns the exit code."""
    print(f"fluidlab {command}: {' '.join(str(why).split())}", file=sys.stderr)
    return 2


def run(argv: list[str]) -> int:
    """Run one command as `main` does, but let its errors reach the caller, as a notebook wants them."""
    args = build_parser().parse_args(argv)
    return args.run(args) or 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fluidlab", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, (add, run) in COMMANDS.items():
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__, allow_abbrev=False,
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        add(command)
        command.set_defaults(run=run)
    return parser
