"""What was proved is said at the end, with numbers."""

import importlib.metadata

import pytest

SENTENCES = []


@pytest.fixture
def proved():
    """Call it with a sentence once it is true."""
    return SENTENCES.append


def pytest_terminal_summary(terminalreporter):
    if SENTENCES:
        versions = " and ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "torch_xla"))
        terminalreporter.section(f"Proved with {versions}, on XLA's CPU devices")
        for sentence in SENTENCES:
            terminalreporter.write_line(sentence)
