"""Every explorer in a real JupyterLab, moved by keyboard alone: keys in, pictures out."""

import re

import pytest
from PIL import Image

TIMEOUT, START = 60_000, 240_000    # milliseconds before a test gives up: for a state, and for all cells to have run

SOURCES = {
    "set up": """
import torch, fluidlab as fl
from IPython.display import display
torch.set_num_threads(1)
names = ("raster-diffusion", "random-diffusion")
pipes = {name: fl.FluidPipeline.from_pretrained(f"{name}-mini") for name in names}
tokenizers = {"continuous": fl.load_tokenizer("scenes-vae"), "discrete": fl.load_tokenizer("scenes-vq")}
""",
    "reconstruction": """
from fluidlab.viz.reconstruction_lab import ReconstructionLab
pictures = {f"scene {i}": (lambda size, i=i: fl.EmojiScenes("test", size, 0)[i]["image"]) for i in (2, 3)}
lab = ReconstructionLab(tokenizers, pictures)
lab.explorer.refresh()
display(lab.widget)
""",
    "order": """
from fluidlab.viz.order_player import OrderPlayer, record
def draw(prompt, seed):
    return [record(pipes["raster-diffusion"], prompt, "raster", seed, num_denoising_steps=2),
            record(pipes["random-diffusion"], prompt, "random", seed, num_inference_steps=8, num_denoising_steps=2)]
display(OrderPlayer(draw, "a photo of a red umbrella").widget)
""",
    "studio": """
from fluidlab.viz.studio import Studio
display(Studio(pipes, num_images=2).explorer("a photo of a cat", "random-diffusion", num_denoising_steps=1).widget)
""",
    "scaling": """
from fluidlab.evaluate.results import read_results
from fluidlab.evaluate.scaling import study_points
from fluidlab.viz.scaling_lab import ScalingLab
points = study_points(read_results(), lambda size, order, head: fl.preset(size, order=order, head=head),
                      metric="study_loss")
display(ScalingLab(points).widget)
""",
    "prompt": """
from fluidlab.viz.prompt_box import PromptBox
display(PromptBox(pipes, "a photo of a dog", num_denoising_steps=5).widget)
""",
}


class Cell:
    """One cell's output, as somebody without a mouse has it."""

    def __init__(self, page, number):
        self.page, self.output = page, page.locator(".jp-Cell").nth(number).locator(".jp-OutputArea")
        self.image = self.output.locator("figure img")

    def go(self, role, name):
        """Tab to a control, from the first one of the cell."""
        wanted = self.output.get_by_role(role, name=name, exact=True)
        self.output.locator("input, select, button").first.focus()
        for _ in range(40):
            if wanted.evaluate("element => element === document.activeElement"):
                return wanted
            self.page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach the {role} {name!r}")

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, name, text):
        """Replace what stands in a box and leave it with Enter."""
        self.go("textbox" if name == "prompt" else "spinbutton", name)
        self.press("Control+a")
        self.page.keyboard.type(text)
        self.press("Enter")

    def choose(self, name, option):
        self.go("combobox", name)
        self.page.keyboard.type(option)         # as a native list does: its first letters

    @property
    def alt(self):
        return self.image.get_attribute("alt")

    def shows(self, pattern):
        """Waits until the alternative text of the picture holds a pattern."""
        self.expect(self.image).to_have_attribute("alt", re.compile(pattern))

    def says(self, pattern):
        """Waits until the output holds a text."""
        self.expect(self.output).to_contain_text(re.compile(pattern))

    def photograph(self, folder, name):
        """The whole output as a PNG, for people to look at."""
        self.output.screenshot(path=folder / f"{name}.png")
        with Image.open(folder / f"{name}.png") as image:
            assert len(image.convert("RGB").getcolors(1 << 24)) > 50, "the screenshot is blank"


@pytest.fixture(scope="module")
def lab(visit, jupyter):
    """A notebook with every explorer, run from top to bottom by keyboard."""
    from playwright.sync_api import expect
    expect.set_options(timeout=TIMEOUT)
    page = visit()
    page.goto(jupyter([source.strip() for source in SOURCES.values()]))
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=START)
    page.locator(".jp-Cell .cm-content").first.click()
    for _ in SOURCES:
        page.keyboard.press("Shift+Enter")
    expect(page.get_by_role("button", name="Draw", exact=True)).to_be_visible(timeout=START)
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").all_inner_texts() == []
    return page


@pytest.fixture
def cell(lab, request):
    """The output of the cell that a test is marked with."""
    from playwright.sync_api import expect
    found = Cell(lab, list(SOURCES).index(request.param))
    found.expect = expect
    return found


def of(name):
    return pytest.mark.parametrize("cell", [name], indirect=True)


@of("reconstruction")
def test_the_reconstruction_lab_follows_the_keys(cell, picture_folder, tmp_path):
    cell.choose("pixels a side", "64")
    cell.shows("scene 2.*continuous.* in 16 tokens")
    cell.go("slider", "latent channels kept (continuous)")
    cell.press("ArrowLeft", "ArrowLeft")
    cell.shows("2,048 bits in 16 tokens")
    cell.expect(cell.output.get_by_role("spinbutton", name="latent channels kept (continuous)")).to_have_value("2")
    cell.choose("tokenizer", "discrete")
    cell.shows("192 bits in 16 tokens of 4,096 codes")
    cell.type("codes kept (discrete), 2 to the power of", "4")
    cell.shows("64 bits in 16 tokens of 16 codes")
    cell.type("zoom", "99")                                                    # beyond the end is the end
    cell.expect(cell.output.get_by_role("slider", name="zoom")).to_have_value("8")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "mine.png")
    with cell.page.expect_file_chooser() as chooser:
        cell.go("button", re.compile("choose a picture file"))
        cell.press("Enter")
    chooser.value.set_files(tmp_path / "mine.png")
    cell.shows("^your own file")
    cell.photograph(picture_folder, "reconstruction")


@of("order")
def test_the_order_player_plays_and_shows_the_attention_of_a_token(cell, picture_folder):
    cell.go("slider", "step")
    cell.press("Home")
    cell.shows("After step 0. raster: 16 of 16 tokens unknown")
    cell.go("button", "play")
    cell.press("Enter")
    cell.shows("After step 2")
    cell.go("button", "pause")
    cell.press("Enter")
    cell.type("step", "6")
    cell.shows("After step 6. raster: 10 of 16 tokens unknown")
    box = cell.image.bounding_box()
    cell.page.mouse.click(box["x"] + box["width"] * 0.05, box["y"] + box["height"] * 0.4)
    cell.shows("position 4, drawn in step 5, looks at ")
    cell.go("slider", "show the attention of position (-1: none)")
    cell.press("ArrowRight")
    cell.shows("position 5, drawn in step 6, looks at ")
    cell.photograph(picture_folder, "order")
    cell.type("prompt", "a photo of two dogs")
    cell.go("button", "draw")
    cell.press("Enter")
    cell.says('"a photo of two dogs" after step 6')


@of("studio")
def test_the_studio_announces_a_slow_draw_and_cancels_it(cell, picture_folder):
    cell.shows("2 pictures drawn.*random-diffusion, guidance 3, temperature 1, seed 0 to 1")
    cell.go("slider", "guidance scale")
    cell.press("ArrowRight")
    cell.shows("guidance 3.1")
    cell.go("checkbox", "contact sheet: guidance by temperature")
    cell.press("Space")
    cell.shows("9 pictures of one seed")
    cell.photograph(picture_folder, "studio")
    cell.type("denoising steps", "100")
    cell.says(r"Drawing, about \d+ seconds")
    cell.go("button", "Cancel")
    cell.press("Enter")
    cell.says("Cancelled: nothing was drawn for these values.")
    cell.expect(cell.image).to_have_count(0)
    cell.photograph(picture_folder, "studio-cancelled")
    cell.type("denoising steps", "1")
    cell.shows("9 pictures of one seed")
    cell.type("denoising steps", "100")                                        # slow, and the next value ends it
    cell.says(r"Drawing, about \d+ seconds")
    cell.type("denoising steps", "2")
    cell.type("seed", "7")
    cell.shows("seed 7")


@of("studio")
def test_a_mistake_is_told_in_place(cell):
    cell.choose("variant", "raster-diffusion")
    cell.choose("steps over the sequence", "4")
    cell.says("raster order takes one step for each of its 16 tokens, got num_inference_steps 4")
    cell.choose("steps over the sequence", "one per token")
    cell.shows("raster-diffusion")


@of("scaling")
def test_sizes_are_dragged_and_pressed_out_of_the_fit(cell, picture_folder):
    cell.shows("fitted to femto, pico, nano, micro, mini, midi: b = ")
    cell.go("button", "midi")
    cell.press("Enter")
    cell.shows("fitted to femto, pico, nano, micro, mini: b = .*midi, not fitted, is predicted")
    assert cell.go("button", "midi").evaluate("element => element === document.activeElement")
    outside = cell.output.get_by_role("list", name="sizes left out")
    cell.output.get_by_role("button", name="mini", exact=True).drag_to(outside)
    cell.shows("fitted to femto, pico, nano, micro: b = ")
    cell.expect(outside.get_by_role("button")).to_have_text(["mini", "midi"])
    cell.go("checkbox", "with a floor")
    cell.press("Space")
    cell.shows("floor 0")
    cell.photograph(picture_folder, "scaling")
    cell.output.get_by_role("button", name="micro", exact=True).focus()
    cell.press("Space")
    cell.says("a power law with a floor needs at least 4 different sizes, got 3")


@of("studio")
def test_jupyterlab_takes_no_key_that_is_pressed_in_an_explorer(cell):
    cell.go("combobox", "variant")
    cell.press("r", "d", "d", "a", "ArrowUp", "x")                             # raw text, delete, add, move, cut
    assert cell.page.locator(".jp-Cell").count() == len(SOURCES) + 1           # a new one behind the last that was run
    assert cell.page.locator(".jp-RawCell").count() == 0
    cell.expect(cell.output.get_by_role("combobox", name="variant", exact=True)).to_be_focused()


@of("prompt")
def test_the_prompt_box_draws_when_its_button_is_pressed(cell, picture_folder):
    cell.type("prompt", "a photo of a castle")
    cell.go("button", "Draw")
    cell.press("Enter")
    cell.shows("4 pictures by random-diffusion for 'a photo of a castle'")
    cell.says("castle")
    cell.photograph(picture_folder, "prompt")


@of("reconstruction")
def test_a_picture_is_replaced_without_a_flicker(cell):
    """Between two pictures there is never none, and the place keeps its height."""
    cell.choose("picture", "scene 3")
    cell.shows("^scene 3")
    cell.image.evaluate("""image => {
        const place = image.closest(".widget-html-content");
        window.seen = [];
        new MutationObserver(() => seen.push([place.querySelectorAll("img").length, place.offsetHeight]))
            .observe(place, {childList: true, subtree: true});
    }""")
    before = cell.alt
    cell.go("slider", "zoom")
    cell.press("ArrowLeft")
    cell.expect(cell.image).to_have_attribute("alt", before)                   # zoom is not in the words
    cell.go("slider", "across, per cent")
    cell.press("ArrowRight")
    cell.page.wait_for_function("seen.length > 0")
    heights = cell.page.evaluate("seen")
    assert all(images == 1 and height > 300 for images, height in heights), heights


def test_outputs_are_accessible_and_nothing_remote_was_loaded(lab, axe):
    assert axe(lab, ".jp-OutputArea") == []
    assert lab.locator(".jp-OutputArea img:not([alt]), .jp-OutputArea img[alt='']").count() == 0
    assert lab.outside == []
