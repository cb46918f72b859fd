"""FID: moments batch by batch, stopped and continued; parity with two other implementations; its Inception."""

import json
import sys

import numpy as np
import pytest
import torch
from helpers import small_inception
from safetensors.torch import save_file

from fluidlab.evaluate.fid import InceptionFeatures
from fluidlab.evaluate.frechet import frechet_between, gaussian_of
from fluidlab.evaluate.moments import Moments, load_statistics, stream_statistics, to_bytes
from fluidlab.whole import write_json

NO_TORCH_FIDELITY = "torch-fidelity is an optional extra that brings torchvision"


def draw(n, features=64, mean=0.0, seed=0):
    """Features of unequal spread that hang together, as a network's do."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(features, features, generator=g, dtype=torch.float64) / features**0.5
    return mean + torch.randn(n, features, generator=g, dtype=torch.float64) @ mix + 0.4


class Extractor:
    """The middles of four quarters of an image, and which images it was shown."""

    fingerprint = "quarters"

    def __init__(self, stop_at=None):
        self.seen, self.stop_at = [], stop_at

    def __call__(self, images):
        assert images.dtype == torch.uint8
        if self.stop_at is not None and len(self.seen) >= self.stop_at:
            raise KeyboardInterrupt
        self.seen += images[:, 0, 0, 0].tolist()
        return torch.nn.functional.avg_pool2d(images.float(), 8).flatten(1)                     # (B, 12)


def pictures(start, stop):
    """Image i, made from i alone; its first pixel is i."""
    found = torch.stack([torch.randint(0, 256, (3, 16, 16), generator=torch.Generator().manual_seed(i))
                         for i in range(start, stop)]).byte()
    found[:, 0, 0, 0] = torch.arange(start, stop)
    return found


def stream(folder, extractor, total=40, batch_size=8, **options):
    return stream_statistics(pictures, total, extractor, folder / "stem", {"of": "noise"}, batch_size=batch_size,
                             progress=False, **options)


@pytest.mark.parametrize("batch_size", [1, 7, 200])
@pytest.mark.parametrize("mean", [0.0, 1e6])
def test_moments_by_batches_are_those_of_all_together(batch_size, mean):
    features = draw(200, 8, mean)
    parts = [Moments.of(part) for part in features.split(batch_size)]
    found, whole = sum(parts[1:], parts[0]).gaussian(), gaussian_of(features)
    assert found.count == 200
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-14)
    np.testing.assert_allclose(found.covariance, whole.covariance, atol=1e-9 if mean else 1e-13)


def test_the_distance_is_scipys_to_a_millionth():
    """The published formula, tr (S_a S_b)^1/2 by SciPy's square root in float64, on the same features."""
    from scipy.linalg import sqrtm
    a, b = draw(600), draw(700, mean=0.1, seed=1)
    ours = frechet_between(Moments.of(a).gaussian(), Moments.of(b).gaussian())
    (mean_a, cov_a), (mean_b, cov_b) = ((x.numpy().mean(0), np.cov(x.numpy(), rowvar=False)) for x in (a, b))
    theirs = ((mean_a - mean_b)**2).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert ours > 1 and abs(ours - theirs) < 1e-6


def test_the_distance_is_torch_fidelitys_to_a_millionth():
    pytest.importorskip("torch_fidelity", reason=NO_TORCH_FIDELITY, exc_type=ImportError)
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
    a, b = draw(600), draw(700, mean=0.1, seed=1)
    theirs = fid_statistics_to_metric(*(fid_features_to_statistics(x) for x in (a, b)), False)[KEY_METRIC_FID]
    assert abs(frechet_between(Moments.of(a).gaussian(), Moments.of(b).gaussian()) - theirs) < 1e-6


def test_statistics_are_streamed_kept_and_read_again(tmp_path):
    extractor = Extractor()
    found = stream(tmp_path, extractor)
    whole = gaussian_of(Extractor()(pictures(0, 40)).double())
    np.testing.assert_allclose(found.covariance, whole.covariance, rtol=1e-10)
    assert extractor.seen == list(range(40)) and found.count == 40
    again = stream(tmp_path, extractor)
    assert len(extractor.seen) == 40 and np.array_equal(again.covariance, found.covariance)
    loaded = load_statistics(tmp_path / "stem.safetensors", "quarters")
    assert np.array_equal(loaded.mean, found.mean) and frechet_between(loaded, found) < 1e-9
    assert json.loads((tmp_path / "stem.json").read_text()) == {"of": "noise", "num_images": 40,
                                                                "extractor": "quarters"}


@pytest.mark.parametrize("save_every", [1, 16, 1000])
def test_a_stopped_stream_goes_on_behind_the_last_image(tmp_path, save_every):
    whole = stream(tmp_path / "whole", Extractor())
    stopped, rest = Extractor(stop_at=24), Extractor()
    with pytest.raises(KeyboardInterrupt):
        stream(tmp_path / "cut", stopped, save_every=save_every)
    with pytest.raises(ValueError, match="holds 24 of 40 images; run the command again"):
        load_statistics(tmp_path / "cut" / "stem.safetensors", "quarters")
    found = stream(tmp_path / "cut", rest, save_every=save_every)
    assert stopped.seen == list(range(24)) and rest.seen == list(range(24, 40))
    assert np.array_equal(found.mean, whole.mean) and np.array_equal(found.covariance, whole.covariance)


def test_pixels_become_the_bytes_of_a_file():
    assert to_bytes(torch.tensor([-1.5, -1.0, 0.0, 1.0, 3.0])).tolist() == [0, 0, 128, 255, 255]


@pytest.fixture
def small_network(monkeypatch):
    small_inception(monkeypatch)
    return torch.nn.Linear(3, 2048)


def test_weights_are_handed_over_and_known_by_their_fingerprint(small_network, tmp_path):
    state = {f"layer.{name}": value.detach() for name, value in small_network.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pth")
    one, other = InceptionFeatures(tmp_path / "w.safetensors"), InceptionFeatures(str(tmp_path / "w.pth"))
    assert one.fingerprint == other.fingerprint and len(one.fingerprint) == 64
    images = pictures(0, 2)
    assert torch.equal(one(images), small_network(images.float().mean((2, 3)))) and one(images).shape == (2, 2048)
    save_file({**state, "layer.bias": state["layer.bias"] + 1}, tmp_path / "w.safetensors")
    assert InceptionFeatures(tmp_path / "w.safetensors").fingerprint != one.fingerprint


class Hostile:
    def __reduce__(self):
        return print, ("run",)


def test_weights_are_read_without_running_anything(small_network, tmp_path, capsys):
    torch.save({"layer": Hostile()}, tmp_path / "hostile.pth")
    with pytest.raises(ValueError, match="hostile.pth cannot be read as weights alone"):
        InceptionFeatures(tmp_path / "hostile.pth")
    assert capsys.readouterr().out == ""
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="other.safetensors does not hold the weights of torch-fidelity's"):
        InceptionFeatures(tmp_path / "other.safetensors")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="list.pth does not hold the weights of .*TypeError: Expected state_dict"):
        InceptionFeatures(tmp_path / "list.pth")
    (tmp_path / "empty.pth").touch()
    with pytest.raises(ValueError, match="empty.pth cannot be read as weights alone .EOFError"):
        InceptionFeatures(tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="there is no file .*missing.pth"):
        InceptionFeatures(tmp_path / "missing.pth")


def test_weights_that_cannot_be_fetched_are_named(small_network, tmp_path, monkeypatch):
    def unreachable(*_, **options):
        assert options["weights_only"] and options["check_hash"]
        raise OSError("no route")
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    with pytest.raises(ValueError, match=r"of OSError: no route: mend what it names, or get https://weights.invalid/w-12345678.pth"):
        InceptionFeatures()


def test_without_torch_fidelity_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ValueError, match=r"FID needs torch-fidelity and .*pip install 'fluidlab\[fid\]'"):
        InceptionFeatures()


def test_torch_fidelitys_own_network_gives_2048_features(tmp_path, monkeypatch):
    """Its real class with random weights: what cannot be fetched here is the numbers, not the path."""
    pytest.importorskip("torch_fidelity", reason=NO_TORCH_FIDELITY, exc_type=ImportError)
    from torch_fidelity import feature_extractor_inceptionv3 as module
    with monkeypatch.context() as m:
        m.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        m.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    features = InceptionFeatures(tmp_path / "w.safetensors")
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = features(images)
    assert found.shape == (2, 2048) and found.dtype == torch.float32 and torch.isfinite(found).all()
    torch.testing.assert_close(found, network(images)[0])
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\) in uint8, got \(2, 3, 64, 64\) in torch.float32"):
        features(images.float())


def test_other_images_and_extractors_are_refused(tmp_path, small_network):
    stream(tmp_path, Extractor())
    with pytest.raises(ValueError, match="another num_images .40, now 48."):
        stream(tmp_path, Extractor(), total=48)
    with pytest.raises(ValueError, match="another extractor: fingerprint quarters, not halves"):
        load_statistics(tmp_path / "stem.safetensors", "halves")
    with pytest.raises(ValueError, match="statistics are two files, gone.safetensors and gone.json"):
        load_statistics(tmp_path / "gone.safetensors", "quarters")
    save_file({"count": torch.tensor(3), "mean": torch.zeros(2)}, tmp_path / "wrong.safetensors")
    write_json(tmp_path / "wrong.json", {})
    with pytest.raises(ValueError, match="wrong.safetensors holds no statistics"):
        load_statistics(tmp_path / "wrong.safetensors", "quarters")
    save_file({"count": torch.tensor(3), "mean": torch.zeros(2), "scatter": torch.zeros(2, 2)},
              tmp_path / "wrong.safetensors")
    with pytest.raises(ValueError, match="2 means and .2, 2. sums in float64, got .2, 2. in torch.float32"):
        load_statistics(tmp_path / "wrong.safetensors", "quarters")


@pytest.mark.parametrize(("call", "said"), [
    (lambda p: Moments.of(torch.tensor([[1.0], [float("nan")], [2.0]])), "1 of 3 feature vectors hold"),
    (lambda p: Moments.of(draw(4, 2)) + Moments.of(draw(4, 3)), "got 2 and 3 numbers"),
    (lambda p: Moments.of(draw(1, 2)).gaussian(), "at least 2 feature vectors, got 1"),
    (lambda p: stream(p, Extractor(), total=1), "num_images must be a whole number at least 2, got 1"),
    (lambda p: stream(p, Extractor(), batch_size=0), "batch_size must be a whole number at least 1, got 0"),
    (lambda p: stream(p, Extractor(), save_every=0), "save_every must be a whole number at least 1, got 0"),
])
def test_refusals_name_the_numbers(call, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        call(tmp_path)
