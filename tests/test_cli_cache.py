"""`fluidlab cache` in parts, continued, refused and measured."""

import re

import pytest
from caches import files, small_cache

from fluidlab.cli import main, train
from fluidlab.data.token_cache import TokenCache

OPTIONS = ["--num-images", "20", "--shard-size", "8", "--batch-size", "4", "--tokenizers", "scenes-vq"]


def test_a_cache_is_written_in_parts_and_says_what_is_missing(tmp_path, capsys):
    assert main(["cache", str(tmp_path / "parts"), *OPTIONS, "--part", "1", "--parts", "2"]) == 0
    assert "part 1 of 2 is written, 2 of 3 shards are missing (0, 2)" in capsys.readouterr().out
    command = ["train", "--cache", str(tmp_path / "parts"), "--head", "softmax", "--out", str(tmp_path / "run")]
    assert main(command) == 2
    assert "is complete: 2 of 3 shards are missing (0, 2); `fluidlab cache` with the" in capsys.readouterr().err
    assert main(["cache", str(tmp_path / "parts"), *OPTIONS, "--part", "0", "--parts", "2"]) == 0
    assert f"{tmp_path / 'parts'} holds 20 images" in capsys.readouterr().out
    assert main(["cache", str(tmp_path / "whole"), *OPTIONS]) == 0
    assert files(tmp_path / "parts") == files(tmp_path / "whole") and len(TokenCache(tmp_path / "whole")) == 20
    assert main(["cache", str(tmp_path / "whole"), *OPTIONS, "--data-seed", "1"]) == 2
    assert "holds another cache (20 images of" in capsys.readouterr().err
    assert main(["cache", str(tmp_path / "new"), *OPTIONS, "--part", "2", "--parts", "2"]) == 2
    assert "part must be a whole number from 0 to 1, got 2" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--window", "2"], ["--stream"]])
def test_reading_is_measured_for_every_tokenizer_and_three_batch_sizes(tmp_path, capsys, monkeypatch, options):
    measured = train.measure_cache
    monkeypatch.setattr(train, "measure_cache", lambda args: measured(args, seconds=0))
    folder = small_cache(tmp_path / "cache")
    before = files(folder)
    place = f"file://{folder}" if options == ["--stream"] else str(folder)
    assert main(["cache", place, "--measure", *options]) == 0
    lines = re.findall(r"^(\w+) batch_size (\d+) images/s (\d+) \(\d+ in a second of one core\)$",
                       capsys.readouterr().out, flags=re.M)
    assert [(name, int(size)) for name, size, _ in lines] == [(n, s) for n in ("vae", "vq") for s in (32, 128, 512)]
    assert all(int(rate) > 0 for _, _, rate in lines) and files(folder) == before
    assert main(["cache", str(tmp_path / "none"), "--measure"]) == 2
    assert "holds no token cache" in capsys.readouterr().err


def test_a_run_goes_on_in_the_order_of_rows_it_was_started_with(tmp_path, capsys):
    """An order follows from window and batch size, or is of all rows; two never become one run."""
    folder, started = small_cache(tmp_path / "cache"), {"none": [], "two": ["--window", "2"]}
    for name, options in started.items():
        command = ["train", "--cache", str(folder), "--head", "softmax", "--preset", "femto", "--steps", "2",
                   "--device", "cpu", "--save-every", "2", "--threads", "1", "--out", str(tmp_path / name), "--resume"]
        assert main([*command, "--batch-size", "8", *options]) == 0
        assert main([*command, "--batch-size", "8", *options]) == 0
        for changed, said in ((["--batch-size", "8", *([] if options else ["--window", "2"])], "started with order"),
                              (["--batch-size", "8", "--window", "3"], "started with (order None|window 2)"),
                              (["--batch-size", "4", *options], "started with batch_size 8, now it is 4")):
            capsys.readouterr()
            assert main([*command, *changed]) == 2
            assert re.search(said, capsys.readouterr().err)
