"""Many pictures on one PNG: back as they went in, with what they are; anything else is refused."""

import pytest
import torch
from PIL import Image

from fluidlab.evaluate.sheet import read_sheet, write_sheet


def test_pictures_and_facts_come_back(tmp_path):
    levels = torch.randint(0, 256, (2, 3, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    facts = {"rows": ["a", {"prompt": "déjà vu 猫"}], "columns": [1, 2, 3], "commit": "0"}
    pixels, found = read_sheet(write_sheet(tmp_path / "new" / "sheet.png", levels / 127.5 - 1, facts))
    assert found == facts
    torch.testing.assert_close(pixels, levels / 127.5 - 1, atol=1e-6, rtol=0)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["sheet.png"]


def test_what_is_no_sheet_is_refused(tmp_path):
    with pytest.raises(ValueError, match="2 rows and 3 columns, but names for 2 and 0"):
        write_sheet(tmp_path / "sheet.png", torch.zeros(2, 3, 3, 16, 16), {"rows": ["a", "b"]})
    with pytest.raises(ValueError, match="sheet.png is not in"):
        read_sheet(tmp_path / "sheet.png")
    Image.new("RGB", (20, 30)).save(tmp_path / "other.png")
    with pytest.raises(ValueError, match="it names 0 rows and 0 columns for 20 x 30 pixels"):
        read_sheet(tmp_path / "other.png")
