"""`fluidlab doctor`."""


def add_doctor(p) -> None:
    p.add_argument("--write-sums", action="store_true", help="write data/SHA256SUMS anew (for maintainers)")


def run_doctor(args) -> int:
    """Check Python, packages, device, memory, fonts and shipped files, and print the fix for each problem."""
    from fluidlab.checks import doctor
    return doctor.main(["--write-sums"] if args.write_sums else [])
