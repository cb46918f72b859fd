"""A pipeline's folder: what is not whole, not what was saved or not what the model was trained with is refused; and
the way to and from the Hub, with the Hub's side played by functions."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import yaml
from helpers import variant

from fluidlab.config import data_dir
from fluidlab.data.token_cache import tokens_fingerprint
from fluidlab.pipeline import FluidPipeline
from fluidlab.publish.card import pipeline_card
from fluidlab.publish.folder import read_index
from fluidlab.publish.model import FluidModel
from fluidlab.publish.remote import WANTED, find_pipeline
from fluidlab.text.encoder import load_text_encoder
from fluidlab.tokenizer.vae import VAEConfig, VAETokenizer

SMALL = VAEConfig(width=32, coarse_width=32, encoder_depth=1, decoder_depth=1, coarse_depth=1)


def tokenizer(seed=0):
    torch.manual_seed(seed)
    return VAETokenizer(SMALL).eval()


def pipeline(**options):
    return FluidPipeline(variant("random", "diffusion"), tokenizer(), load_text_encoder("scenes-t5"), **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return pipeline(defaults={"guidance_scale": 2.0}).save_pretrained(tmp_path_factory.mktemp("hub") / "whole")


@pytest.fixture
def folder(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_a_folder_holds_what_diffusers_the_hub_and_people_look_for(whole):
    files = {path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file()}
    assert {"README.md", "config.json", "model.safetensors", "model_index.json", "pipeline.json",
            "tokenizer/config.json", "tokenizer/model.safetensors", "text_encoder/config.json",
            "text_encoder/model.safetensors", "text_encoder/tokenizer.json", "text_encoder/words.json"} <= files
    assert not [f for f in files if not f.endswith((".json", ".safetensors", ".md", ".model"))]
    index = json.loads((whole / "model_index.json").read_text())
    assert index["_class_name"] == "FluidPipeline" and index["model"] == ["fluidlab.publish.model", "FluidModel"]
    assert index["tokenizer"] == ["fluidlab.tokenizer.vae", "VAETokenizer"]
    assert set(read_index(whole)["sha256"]) == {f for f in files if f.endswith(".safetensors")}
    for path in whole.rglob("*.json"):
        assert "/tmp" not in path.read_text() and "pytest" not in path.read_text(), path.name


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer/model.safetensors", "text_encoder/model.safetensors"])
def test_one_flipped_bit_and_one_missing_file_are_found(file, folder):
    path = folder / file
    saved = path.read_bytes()
    path.write_bytes(saved[:-9] + bytes([saved[-9] ^ 1]) + saved[-8:])
    with pytest.raises(ValueError, match=rf"{file} has other bytes than were saved: SHA-256 [0-9a-f]{{12}}, saved was"):
        FluidPipeline.from_pretrained(folder)
    assert FluidPipeline.from_pretrained(folder, verify=False).model.config.width == 64     # as was asked for
    path.unlink()
    with pytest.raises(ValueError, match=f"holds no {file}, so it is not whole"):
        FluidPipeline.from_pretrained(folder)
    with pytest.raises(ValueError, match="holds no model.safetensors|cannot be (read|loaded)"):
        FluidPipeline.from_pretrained(folder, verify=False)


def test_a_save_that_was_stopped_leaves_no_pipeline(folder, monkeypatch):
    """Neither in a new folder nor over an old one, whose index would otherwise vouch for half of the new."""
    def stop(*args):
        raise KeyboardInterrupt
    pipe = FluidPipeline.from_pretrained(folder)
    monkeypatch.setattr(type(pipe.text_encoder), "save_pretrained", stop)
    with pytest.raises(KeyboardInterrupt):
        pipe.save_pretrained(folder)
    with pytest.raises(ValueError, match="lacks pipeline.json: give a folder that .* wrote, or one of random-"):
        FluidPipeline.from_pretrained(folder)


def test_pickled_weights_are_named_and_never_read(folder):
    (folder / "model.safetensors").rename(folder / "model.bin")
    index = json.loads((folder / "pipeline.json").read_text())
    del index["sha256"]["model.safetensors"]
    (folder / "pipeline.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"weights as safetensors \(model.bin would have to be unpickled\)"):
        FluidPipeline.from_pretrained(folder)
    with pytest.raises(ValueError, match="use_safetensors must be True, got False"):
        FluidPipeline.from_pretrained(folder, use_safetensors=False)


def test_a_pickled_part_is_not_read_either(folder):
    for part, sentence in (("text_encoder", "cannot be loaded, because it lacks weights as safetensors"),
                           ("tokenizer", "cannot be (read as a tokenizer|loaded)")):
        broken = Path(shutil.copytree(folder, folder.with_name(part)))
        (broken / part / "model.safetensors").rename(broken / part / "pytorch_model.bin")
        with pytest.raises(ValueError, match=sentence):
            FluidPipeline.from_pretrained(broken, verify=False)


@pytest.mark.parametrize("text, sentence", [
    ("{", "pipeline.json cannot be read"),
    ("[]", "pipeline.json holds a list, but must hold a JSON object"),
    ("{}", "must name a tokenizer and a text_encoder, got {'defaults': {}, 'sha256': {}}"),
    ('{"tokenizer": 1, "text_encoder": "scenes-t5"}', "must name a tokenizer and a text_encoder"),
    ('{"tokenizer": "a", "text_encoder": "b", "defaults": []}', "must hold objects of defaults and sha256, got"),
    ('{"tokenizer": "a", "text_encoder": "b", "sha256": ["c"]}', "must hold objects of defaults and sha256, got"),
    ('{"tokenizer": "scenes-vae", "text_encoder": "scenes-t5", "defaults": {"mood": 1}}', "SampleConfig has no mood"),
    ('{"tokenizer": "scenes-vae", "text_encoder": "scenes-t5", "defaults": {"temperature": -1}}', "0 to 10, got -1"),
    ('{"tokenizer": "none", "text_encoder": "scenes-t5"}', "The tokenizer 'none' cannot be loaded"),
])
def test_an_index_that_makes_no_sense_is_refused(text, sentence, folder):
    (folder / "pipeline.json").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        FluidPipeline.from_pretrained(folder)


def test_another_tokenizer_than_the_model_was_trained_with_is_refused_with_both_fingerprints(folder, tmp_path):
    """The sums are gone, as in a folder of `fluidlab export`: what was trained with what, training.json knows."""
    text, trained_with = load_text_encoder("scenes-t5"), tokenizer()
    training = {"fingerprints": {"tokenizer": tokens_fingerprint(trained_with), "text_encoder": text.fingerprint()}}
    (folder / "training.json").write_text(json.dumps(training))
    (folder / "pipeline.json").write_text('{"tokenizer": "tokenizer", "text_encoder": "scenes-t5"}')
    assert FluidPipeline.from_pretrained(folder).training_facts == training
    other = tokenizer(seed=1)
    both = f"fingerprint {tokens_fingerprint(trained_with)[:12]}, this one has {tokens_fingerprint(other)[:12]}"
    with pytest.raises(ValueError, match=f"was trained with another tokenizer: {both}"):
        FluidPipeline.from_pretrained(folder, tokenizer=other)
    other.save_pretrained(folder / "tokenizer")
    with pytest.raises(ValueError, match=f"was trained with another tokenizer: {both}"):
        FluidPipeline.from_pretrained(folder)
    trained_with.save_pretrained(folder / "tokenizer")
    with torch.no_grad():
        text.model.get_input_embeddings().weight[0, 0] += 1
    with pytest.raises(ValueError, match="was trained with another text_encoder: fingerprint [0-9a-f]{12}, this one"):
        FluidPipeline.from_pretrained(folder, text_encoder=text)


def test_a_broken_record_of_the_training_is_named(folder):
    (folder / "training.json").write_text("{")
    with pytest.raises(ValueError, match="training.json cannot be read as JSON"):
        FluidPipeline.from_pretrained(folder)


def test_a_shipped_model_takes_no_other_tokenizer():
    with pytest.raises(ValueError, match="was trained with another tokenizer: fingerprint af83a9739ac9, this one has"):
        FluidPipeline.from_pretrained("random-diffusion-mini", tokenizer=tokenizer())


def test_training_facts_travel_with_the_weights(tmp_path):
    shipped = FluidPipeline.from_pretrained("random-softmax-mini")
    copy = FluidPipeline.from_pretrained(shipped.save_pretrained(tmp_path / "copy"))
    facts = json.loads((data_dir() / "random-softmax-mini" / "training.json").read_text())
    assert copy.training_facts == shipped.training_facts == facts
    assert "8,000 steps of 128 images" in (tmp_path / "copy" / "README.md").read_text()


def test_rounded_to_bf16_and_saved_it_is_loaded_again(folder, tmp_path):
    """Its text encoder is no longer, byte for byte, the one of the training: the sums say that it belongs here."""
    training = {"fingerprints": {"tokenizer": tokens_fingerprint(tokenizer()),
                                 "text_encoder": load_text_encoder("scenes-t5").fingerprint()}}
    (folder / "training.json").write_text(json.dumps(training))
    pipe = FluidPipeline.from_pretrained(folder, torch_dtype=torch.bfloat16)
    again = FluidPipeline.from_pretrained(pipe.save_pretrained(tmp_path / "rounded"), torch_dtype=torch.bfloat16)
    a, b = (p("a photo of a cat", seed=0, num_denoising_steps=2) for p in (pipe, again))
    assert torch.equal(a.tokens, b.tokens) and torch.equal(a.pixels, b.pixels)


class TestABigTextEncoder:
    """As T5-XXL beside a small model: read in the precision that was asked for, and hashed once."""

    @pytest.fixture
    def read(self, folder, tmp_path, monkeypatch):
        """A pipeline with its encoder elsewhere, and what is asked of that: dtypes of loading, hashes of weights."""
        from transformers import T5EncoderModel

        from fluidlab.text import encoder as module
        asked = SimpleNamespace(dtypes=[], hashes=0, folder=folder)
        load, fingerprint_of = T5EncoderModel.from_pretrained, module.fingerprint_of

        def loading(place, *, dtype, **options):
            asked.dtypes.append(dtype)
            return load(place, dtype=dtype, **options)

        def hashing(*args):
            asked.hashes += 1
            return fingerprint_of(*args)
        shutil.move(folder / "text_encoder", tmp_path / "t5")
        index = {"tokenizer": "tokenizer", "text_encoder": str(tmp_path / "t5")}
        (folder / "pipeline.json").write_text(json.dumps(index))
        encoder = load_text_encoder(tmp_path / "t5")
        asked.prints = {dtype: encoder.fingerprint(dtype) for dtype in (torch.float32, torch.bfloat16)}
        monkeypatch.setattr(T5EncoderModel, "from_pretrained", loading)
        monkeypatch.setattr(module, "fingerprint_of", hashing)
        return asked

    @pytest.mark.parametrize("then, now, hashes", [
        (torch.float32, torch.float32, 1), (torch.bfloat16, torch.bfloat16, 1), (torch.bfloat16, torch.float32, 2),
        (torch.float32, torch.bfloat16, 2)], ids=str)
    def test_it_is_read_in_one_precision_and_known_in_both(self, then, now, hashes, read):
        trained = {"tokenizer": tokens_fingerprint(tokenizer()), "text_encoder": read.prints[then]}
        (read.folder / "training.json").write_text(json.dumps({"fingerprints": trained}))
        pipe = FluidPipeline.from_pretrained(read.folder, torch_dtype=now)
        assert (read.dtypes, read.hashes) == ([now], hashes) and pipe.text_encoder.dtype == now

    def test_float32_unless_asked_and_no_hash_where_there_is_nothing_to_compare(self, read):
        assert FluidPipeline.from_pretrained(read.folder).text_encoder.dtype == torch.float32
        assert (read.dtypes, read.hashes) == ([torch.float32], 0)

    def test_reading_it_in_bfloat16_or_rounding_it_then_draws_the_same(self, read):
        early = FluidPipeline.from_pretrained(read.folder, torch_dtype=torch.bfloat16)
        late = FluidPipeline.from_pretrained(read.folder).to(torch.bfloat16)
        a, b = (pipe("a photo of a cat", seed=0, num_denoising_steps=2) for pipe in (early, late))
        assert torch.equal(a.tokens, b.tokens)


def test_the_card_says_what_is_recorded_of_the_training():
    pipe = pipeline()
    training = {"steps": 2000, "train": {"batch_size": 64, "precision": "bf16", "seed": 3}, "command": "fluidlab train",
                "data": {"images": 9, "source": {"scenes": "train", "image_size": 64}}}
    body = pipeline_card("mine", pipe.model, pipe.tokenizer, pipe.text_encoder, defaults={}, training=training)
    for said in ("- 2,000 steps of 64 images, precision bf16, seed 3.", "- Data: scenes train, image_size 64.",
                 "- Command: `fluidlab train` (commit unknown, torch unknown).", "No settings are recommended"):
        assert said in body


def test_a_part_that_is_given_is_used_as_it_is(folder):
    own = FluidModel.of(variant("random", "diffusion")).to(torch.bfloat16)
    pipe = FluidPipeline.from_pretrained(folder, model=own)
    assert pipe.model is own and pipe.dtype == torch.bfloat16
    assert FluidPipeline.from_pretrained(folder, model=own, dtype=torch.float32).dtype == torch.float32


def front_matter(card):
    _, yaml_text, body = card.split("---\n", 2)
    return yaml.safe_load(yaml_text), body


def test_the_card_can_be_read_by_the_hub_and_by_people(whole):
    facts, body = front_matter((whole / "README.md").read_text())
    assert facts["pipeline_tag"] == "text-to-image" and facts["library_name"] == "fluidlab"
    assert facts["license"] == "cc-by-sa-4.0" and {"random-order", "diffusion-head"} <= set(facts["tags"])
    assert '# whole\n' in body and 'fl.FluidPipeline.from_pretrained("whole")' in body
    assert "All emojis designed by [OpenMoji](https://openmoji.org)" in body
    assert "How it was trained is not recorded." in body and "guidance scale 2.0" in body
    assert "It draws 64 x 64 pixels" in body and "trained on 170 words" in body
    huggingface_hub.ModelCard((whole / "README.md").read_text()).data.to_dict()


def test_parts_of_others_get_no_licence_and_no_attribution(tmp_path):
    from diffusers import AutoencoderKL

    from fluidlab.tokenizer.pretrained import DiffusersVAE
    kl = AutoencoderKL(block_out_channels=(8,) * 4, norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 4,
                       up_block_types=("UpDecoderBlock2D",) * 4)
    text = load_text_encoder("scenes-t5")
    text.words = None                                        # as of an encoder that has read the web
    pipe = FluidPipeline(variant("random", "flow"), DiffusersVAE(kl, image_size=64), text)
    facts, body = front_matter((pipe.save_pretrained(tmp_path / "real") / "README.md").read_text())
    assert facts["license"] == "unknown" and "OpenMoji" not in body and "state it before you share" in body
    again = FluidPipeline.from_pretrained(tmp_path / "real")
    assert type(again.tokenizer).__name__ == "DiffusersVAE" and again.text_encoder.words is None
    a, b = (p("a photo of a cat", seed=0, num_denoising_steps=2) for p in (pipe, again))
    assert torch.equal(a.pixels, b.pixels)


class TestFromTheHub:
    @pytest.fixture
    def asked(self, monkeypatch):
        """What `snapshot_download` is asked for; `answer` holds a folder, or an exception, for cache and network."""
        class Asked(list):
            answer = {"cache": OSError("nothing cached"), "network": OSError("no network")}
        asked = Asked()

        def download(name, **options):
            asked.append({"name": name, **options})
            answer = asked.answer["cache" if options.get("local_files_only") else "network"]
            if isinstance(answer, Exception):
                raise answer
            return str(answer)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        return asked

    def test_the_cache_comes_first_and_may_be_enough(self, asked, folder):
        asked.answer = {"cache": folder, "network": AssertionError("must not be asked")}
        assert FluidPipeline.from_pretrained("ada/fluid", revision="v2").config.defaults == {"guidance_scale": 2.0}
        assert [a["revision"] for a in asked] == ["v2"]

    def test_half_of_it_in_the_cache_is_not_enough(self, asked, folder, whole):
        (folder / "text_encoder" / "model.safetensors").unlink()
        asked.answer = {"cache": folder, "network": whole}
        assert find_pipeline("ada/fluid") == whole
        assert asked[1]["allow_patterns"] == list(WANTED) and not asked[1].get("local_files_only")
        asked.clear()
        assert FluidPipeline.download("ada/fluid", force_download=True) == whole and len(asked) == 1

    def test_half_of_it_and_no_network_is_no_broken_copy(self, asked, folder, monkeypatch):
        """Without a network `snapshot_download` gives what is here, so the hub itself must be asked."""
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        (folder / "text_encoder" / "model.safetensors").unlink()
        asked.answer = {"cache": folder, "network": folder}
        with pytest.raises(ValueError, match="nor complete in the local cache .*, and HF_HUB_OFFLINE forbids to go"):
            FluidPipeline.from_pretrained("ada/fluid")

    def test_no_pattern_fetches_a_pickle_or_code(self):
        files = ["model.safetensors", "model.bin", "text_encoder/pytorch_model.bin", "pipeline.py", "a/b.pkl", "x.pt"]
        assert list(huggingface_hub.utils.filter_repo_objects(files, allow_patterns=WANTED)) == ["model.safetensors"]

    def test_a_hub_that_does_not_answer_is_one_sentence(self, asked):
        with pytest.raises(ValueError, match=r"The pipeline 'ada/fluid' cannot be loaded, because of OSError: no "
                                             r"network: mend what it names, or give the folder of a copy"):
            FluidPipeline.from_pretrained("ada/fluid")
        with pytest.raises(ValueError, match=r"neither shipped \(random-.* nor complete in the local cache .*, and "
                                             r"local_files_only forbids to go online: unset local_files_only, or"):
            FluidPipeline.from_pretrained("ada/fluid", local_files_only=True)

    def test_another_kind_of_repository_is_named(self, asked, tmp_path, monkeypatch):
        asked.answer = {"cache": tmp_path, "network": tmp_path}
        monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lambda api, repo, **_: SimpleNamespace(sha="0" * 40))
        with pytest.raises(ValueError, match="pipeline 'ada/fluid' .* its revision 'main' lacks pipeline.json: pin"):
            FluidPipeline.from_pretrained("ada/fluid")

    def test_remote_code_cannot_even_be_asked_for(self, folder):
        with pytest.raises(TypeError, match="unexpected keyword argument 'trust_remote_code'"):
            FluidPipeline.from_pretrained(folder, trust_remote_code=True)


class TestToTheHub:
    @pytest.fixture
    def hub(self, monkeypatch):
        """An `HfApi` that keeps what it is sent; `cards` are those that the Hub has already."""
        class Hub:
            cards, calls, files = set(), [], {}
        hub = Hub()

        def create_repo(api, repo_id, **options):
            hub.calls.append(("create_repo", repo_id, options, api.token))
            owner = "" if "/" in repo_id else "ada/"
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{owner}{repo_id}")

        def upload_folder(api, *, repo_id, folder_path, ignore_patterns=None, **options):
            hub.calls.append(("upload_folder", repo_id, options))
            kept = huggingface_hub.utils.filter_repo_objects(
                [p.relative_to(folder_path).as_posix() for p in Path(folder_path).rglob("*") if p.is_file()],
                ignore_patterns=ignore_patterns)
            hub.files = {name: (Path(folder_path) / name).read_bytes() for name in kept}
            return "https://huggingface.co/commit"
        monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
        monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
        monkeypatch.setattr(huggingface_hub.HfApi, "file_exists", lambda api, repo_id, path, **_: path in hub.cards)
        return hub

    def test_everything_is_pushed_and_comes_back_the_same(self, hub, tmp_path):
        pipe = pipeline()
        assert pipe.push_to_hub("ada/fluid", private=True, token="secret") == "https://huggingface.co/commit"
        assert hub.calls[0] == ("create_repo", "ada/fluid",
                                {"private": True, "exist_ok": True, "repo_type": "model"}, "secret")
        assert hub.calls[1][1:] == ("ada/fluid", {"commit_message": "Upload FluidPipeline", "create_pr": False,
                                                  "path_in_repo": None, "repo_type": "model"})
        for name, content in hub.files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content)
        again = FluidPipeline.from_pretrained(tmp_path)
        assert all(torch.equal(a, b) for a, b in zip(pipe.model.parameters(), again.model.parameters(), strict=True))
        assert 'from_pretrained("ada/fluid")' in hub.files["README.md"].decode()
        assert not any(name.endswith((".bin", ".py")) for name in hub.files)

    def test_a_card_that_is_there_is_kept(self, hub):
        hub.cards = {"README.md"}
        pipeline().push_to_hub("ada/fluid")
        assert "README.md" not in hub.files and "model.safetensors" in hub.files

    def test_saving_may_push_too(self, hub, tmp_path):
        pipeline().save_pretrained(tmp_path / "mine", push_to_hub=True, commit_message="Better", create_pr=True)
        assert hub.calls[0][1] == "mine" and hub.calls[1][2]["commit_message"] == "Better"
        pipeline().save_pretrained(tmp_path / "mine", push_to_hub=True, repo_id="ada/other")
        assert hub.calls[2][1] == "ada/other" and 'from_pretrained("ada/other")' in hub.files["README.md"].decode()
        hub.calls = hub.calls[:2]
        with pytest.raises(ValueError, match="safe_serialization must be True, got False"):
            pipeline().push_to_hub("ada/fluid", safe_serialization=False)
        assert len(hub.calls) == 2
