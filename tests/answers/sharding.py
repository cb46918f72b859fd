import numpy as np
import torch


def rows_by_dealing(num_rows, devices):
    size, left, spans = -(-num_rows // devices), num_rows, []
    for _ in range(devices):
        now = min(size, left)
        spans.append((num_rows - left, num_rows - left + now))
        left -= now
    return spans


def rows_by_owner(num_rows, devices):
    owner = np.arange(num_rows) // int(np.ceil(num_rows / devices))
    return np.stack([np.searchsorted(owner, np.arange(devices), side) for side in ("left", "right")], axis=1)


def bytes_by_chunks(shapes, devices):
    first = [torch.empty(shape, device="meta").chunk(devices)[0] for shape in shapes]
    return sum(5 * part.numel() * part.element_size() for part in first)


def bytes_by_rows(shapes, devices):
    total = 0
    for rows, *rest in shapes:
        numbers = (rows + devices - 1) // devices
        for size in rest:
            numbers *= size
        total += 4 * numbers + 4 * numbers + 8 * numbers + 4 * numbers
    return total


def gradient_by_loop(means, counts):
    total = torch.zeros(means.shape[-1], dtype=means.dtype)
    for of_process, of_counts in zip(means, counts, strict=True):
        for mean, count in zip(of_process, of_counts, strict=True):
            if count > 0:
                total += mean * count
    return total / counts.sum()


def gradient_of_what_counts(means, counts):
    there = counts > 0
    return counts[there].to(means.dtype) @ means[there] / counts.sum()


ANSWERS = {
    "rows_of": [rows_by_dealing, rows_by_owner],
    "state_bytes": [bytes_by_chunks, bytes_by_rows],
    "step_gradient": [gradient_by_loop, gradient_of_what_counts],
}
