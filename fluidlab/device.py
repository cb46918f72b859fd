"""A device by its name, or one sentence why it cannot be used here. Knows nothing but torch."""

import torch


def usable_device(name: str | torch.device) -> torch.device:
    """The device, once it has held a number.

    Args:
        name: "cpu", "cuda", "cuda:1", "mps" ...

    Raises:
        ValueError: there is no such device on this machine, or it holds no numbers ("meta").
    """
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("its tensors have no numbers")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:      # an assertion where torch was built without it
        cause = str(error).splitlines()[0][:200].rstrip(".")
        raise ValueError(f"device must be one that torch can use on this machine, got {name!r}: {cause}.") from error
    return device
