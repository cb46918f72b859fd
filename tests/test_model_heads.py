import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from helpers import V, batch, seeded, variant

from fluidlab.model.fluid import Fluid
from fluidlab.model.guidance import guide, scale_at
from fluidlab.model.heads.diffusion import CosineDiffusion
from fluidlab.model.heads.flow import RectifiedFlow
from fluidlab.presets import preset

FIRST_LOSS = {"softmax": math.log(V), "diffusion": 1.0, "flow": 2.0}


@pytest.mark.parametrize("order", ["raster", "random"])
@pytest.mark.parametrize("head", FIRST_LOSS)
def test_the_first_loss_is_known_before_training(order, head):
    """log V, the variance of noise, the variance of data plus noise. 256 images x 16 tokens: 5 % is over 5 sigma."""
    torch.manual_seed(0)
    model = Fluid(preset("nano", order=order, head=head, codebook_size=V))
    assert model(*batch(model, B=256), seeded(0)).item() == pytest.approx(FIRST_LOSS[head], rel=0.05)


def test_the_tied_table_is_one_storage_with_a_row_for_the_unknown():
    model = variant("random", "softmax")
    head = model.head
    assert head.table.shape == (V + 1, 64) and head.logits(torch.zeros(1, 1, 64)).shape == (1, 1, V)
    assert [n for n in model.state_dict() if "head" in n] == ["head.table"]
    z, tokens = torch.randn(1, 3, 64), torch.tensor([[1, 2, 3]])
    out = torch.autograd.grad(head.loss(z, tokens).sum(), head.table)[0]
    into = torch.autograd.grad(head.embed(tokens).sum(), head.table)[0]
    assert out[:V].abs().sum() > 0 and out[V].abs().sum() == 0 and into[1:4].abs().sum() > 0


def test_softmax_samples_its_own_distribution():
    """20,000 draws over 64 codes: each frequency within 5 standard errors; false alarm about 64 x 6e-7."""
    head = variant("raster", "softmax").head
    z = torch.randn(1, 1, 64).expand(1, 20_000, 64)
    p = head.logits(z[:, :1])[0, 0].softmax(-1)
    drawn = head.sample(z, None, 1.0, 1.0, [seeded(0)])
    frequency = torch.bincount(drawn[0], minlength=V) / 20_000
    assert ((frequency - p).abs() < 5 * (p * (1 - p) / 20_000).sqrt() + 1e-6).all()
    assert (head.sample(z, None, 1.0, 0, [seeded(0)]) == p.argmax()).all()


def test_softmax_temperature_and_guidance_are_applied_before_the_softmax():
    head = variant("raster", "softmax").head
    z, null = torch.randn(1, 1, 64), torch.randn(1, 1, 64)
    expected = ((head.logits(null) + 2.5 * (head.logits(z) - head.logits(null))) / 0.7)[0, 0].softmax(-1)
    drawn = head.sample(z.expand(1, 20_000, 64), null.expand(1, 20_000, 64), 2.5, 0.7, [seeded(0)])
    frequency = torch.bincount(drawn[0], minlength=V) / 20_000
    assert ((frequency - expected).abs() < 5 * (expected * (1 - expected) / 20_000).sqrt() + 1e-6).all()


def test_cosine_schedule_is_that_of_diffusers():
    theirs = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod.double()
    assert torch.allclose(CosineDiffusion(1000).alphas, theirs, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("num_steps", [1000, 25])
def test_an_ancestral_step_is_that_of_diffusers(num_steps):
    process = CosineDiffusion(1000, clip=5.0)
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", timestep_spacing="linspace", clip_sample=True,
                              clip_sample_range=5.0, variance_type="fixed_small")
    scheduler.set_timesteps(num_steps)
    times = process.timesteps(num_steps)
    assert times == scheduler.timesteps.tolist()
    x, eps = torch.randn(2, 3, 16), torch.randn(2, 3, 16)
    for i in {0, 1, num_steps // 2, num_steps - 2, num_steps - 1}:
        t_next = times[i + 1] if i + 1 < num_steps else None
        noise = torch.randn(x.shape, generator=seeded(7)) if t_next is not None else torch.zeros_like(x)
        theirs = scheduler.step(eps, times[i], x, generator=seeded(7)).prev_sample
        ours = process.step(x, process.clean(x, eps, times[i]), times[i], t_next, noise)
        assert torch.allclose(ours, theirs, atol=2e-4)


def drawn(process, predict, solver, num_steps, noise, temperature=1.0):
    """`CosineDiffusion.sample` with the given noise (1, num_steps, K, C)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fluidlab.model.heads.diffusion.normal", lambda *_: noise)
        return process.sample(predict, (1, *noise.shape[2:]), num_steps, temperature, None, solver=solver)


@pytest.mark.parametrize("num_steps", [2, 10, 40])
def test_dpm_solver_is_that_of_diffusers(num_steps):
    """Its stochastic form of second order, over a whole walk, with the same noise and the same times."""
    process = CosineDiffusion(1000, clip=1e9)
    times = process.times_even_in_log_snr(num_steps)
    noise = torch.randn(1, num_steps, 3, 16, generator=seeded(0))
    predict = gaussian_noise_predictor(process, 1.3, 0.6)
    scheduler = DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2", algorithm_type="sde-dpmsolver++",
                                            solver_order=2, solver_type="midpoint", final_sigmas_type="zero")
    scheduler.set_timesteps(timesteps=times)
    x = noise[:, 0].double()
    for i, t in enumerate(times):
        injected = noise[:, i + 1].double() if i + 1 < num_steps else torch.zeros_like(x)
        x = scheduler.step(predict(x, t), t, x, variance_noise=injected).prev_sample
    ours = drawn(process, predict, "dpm++", num_steps, noise.double())
    assert torch.allclose(ours, x, atol=3e-3)            # their noise levels are float32


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_ddim_step_is_that_of_diffusers(eta):
    process = CosineDiffusion(1000, clip=5.0)
    scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing", clip_sample=True,
                              clip_sample_range=5.0, set_alpha_to_one=True)
    scheduler.set_timesteps(20)
    times = scheduler.timesteps.tolist()
    x, eps, noise = (torch.randn(2, 3, 16, generator=seeded(s)) for s in range(3))
    for i in (1, 10, 18):
        theirs = scheduler.step(eps, times[i], x, eta=eta, use_clipped_model_output=True,
                                variance_noise=noise).prev_sample
        ours = process.implicit_step(x, process.clean(x, eps, times[i]), times[i], times[i] - 50, noise, eta)
        assert torch.allclose(ours, theirs, atol=2e-4)


def test_ddim_with_eta_one_is_the_ancestral_step():
    process = CosineDiffusion(1000)
    x, x0, noise = (torch.randn(2, 3, 16, generator=seeded(s)) for s in range(3))
    for t, t_next in ((999, 700), (400, 380), (40, 0)):
        assert torch.allclose(process.implicit_step(x, x0, t, t_next, noise, 1.0),
                              process.step(x, x0, t, t_next, noise), atol=1e-5)


def test_second_order_is_nearer_to_the_truth_in_few_steps():
    """20,000 numbers from N(1.3, 0.6^2) in 12 steps: the standard deviation that comes out, beside 0.6."""
    process = CosineDiffusion(1000, clip=20.0)
    predict = gaussian_noise_predictor(process, 1.3, 0.6)
    first, second = (process.sample(predict, (1, 1250, 16), 12, 1.0, [seeded(0)], solver=solver).std().item()
                     for solver in ("ancestral", "dpm++"))
    assert abs(second - 0.6) < 0.5 * abs(first - 0.6)


def test_times_even_in_log_snr_are_times_that_fall():
    process = CosineDiffusion(1000)
    halves = (process.alphas / (1 - process.alphas)).log() / 2
    for steps in (2, 3, 10, 100):
        times = process.times_even_in_log_snr(steps)
        assert 0.9 * steps < len(times) <= steps and times[0] == 999 and times == sorted(set(times), reverse=True)
        gaps = halves[times[1:]].diff()
        assert steps != 10 or gaps.max() < 1.3 * gaps.min()
    assert process.times_even_in_log_snr(1) == [999]
    with pytest.raises(ValueError, match="num_denoising_steps must be from 1 to 1000, got 0"):
        process.times_even_in_log_snr(0)


def gaussian_noise_predictor(process, mean, std):
    """The closed form of E[noise | x_t] when the data is N(mean, std^2)."""
    def predict(x, t):
        a = float(process.alphas[round(t * process.num_timesteps / 1000)])
        return (x - a ** 0.5 * mean) * (1 - a) ** 0.5 / (a * std ** 2 + 1 - a)
    return predict


def test_diffusion_samples_a_known_gaussian():
    """20,000 numbers: mean within 5 standard errors, standard deviation within 5 %."""
    process, mean, std = CosineDiffusion(1000, clip=20.0), 1.3, 0.6
    x = process.sample(gaussian_noise_predictor(process, mean, std), (1, 1250, 16), 200, 1.0, [seeded(0)])
    assert abs(x.mean().item() - mean) < 5 * std / 20_000 ** 0.5
    assert x.std().item() == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize("solver, steps", [("euler", 200), ("heun", 25)])
def test_flow_samples_a_known_gaussian(solver, steps):
    mean, std = 1.3, 0.6

    def velocity(x, time):                                                  # E[x0 - noise | x_t], t = share of noise
        t = time / 1000
        scale = 1 / ((1 - t) ** 2 * std ** 2 + t ** 2)
        surprise = x - (1 - t) * mean
        return mean + (1 - t) * std ** 2 * scale * surprise - t * scale * surprise
    x = RectifiedFlow(solver).sample(velocity, (1, 1250, 16), steps, 1.0, [seeded(0)])
    assert abs(x.mean().item() - mean) < 5 * std / 20_000 ** 0.5
    assert x.std().item() == pytest.approx(std, rel=0.05)


def test_training_noise_is_what_the_schedule_says():
    x0 = torch.full((1, 20_000, 1), 2.0)
    xt, t, noise = CosineDiffusion(1000).corrupt(x0, seeded(0))
    a = CosineDiffusion(1000).alphas[t.long()].float()[..., None]
    assert torch.allclose(xt, a.sqrt() * x0 + (1 - a).sqrt() * noise, atol=1e-6)
    assert 0 <= t.min() and t.max() <= 999 and t.float().mean().item() == pytest.approx(499.5, abs=5 * 289 / 141)


@pytest.mark.parametrize("steps", [0, 1001])
def test_denoising_steps_out_of_range_are_refused(steps):
    with pytest.raises(ValueError, match=f"from 1 to 1000, got {steps}"):
        CosineDiffusion(1000).timesteps(steps)


@pytest.mark.parametrize("head", ["diffusion", "flow"])
def test_temperature_zero_leaves_only_the_initial_noise(head):
    """Diffusion: injected noise is scaled, the initial one is not. Flow: there is only the initial one."""
    model = variant("random", head)
    z = torch.randn(1, 2, 64)

    def draw(temperature, seed):
        return model.head.sample(z, None, 1.0, temperature, [seeded(seed)], 10)
    assert torch.equal(draw(0, 1), draw(0, 1)) and not torch.equal(draw(1.0, 1), draw(0, 1))
    assert torch.equal(draw(0, 1), draw(0, 2)) == (head == "flow")


@pytest.mark.parametrize("head", ["softmax", "diffusion", "flow"])
def test_guidance_of_one_and_an_equal_null_change_nothing(head):
    head = variant("random", head).head
    z = torch.randn(2, 3, 64)

    def draw(null, scale):
        return head.sample(z, null, scale, 1.0, [seeded(0), seeded(1)], 5)
    plain = draw(None, 1.0)
    assert torch.allclose(draw(torch.randn_like(z), 1.0).float(), plain.float(), atol=1e-5)
    assert torch.allclose(draw(z, 7.5).float(), plain.float(), atol=1e-4)
    assert not torch.allclose(draw(torch.randn_like(z), 7.5).float(), plain.float(), atol=1e-2)


def test_guidance_is_a_line_through_both_answers():
    c, n = torch.tensor([3.0]), torch.tensor([1.0])
    assert guide(c, n, 0.0) == n and guide(c, n, 1.0) == c and guide(c, n, 2.0) == 5.0 and guide(c, None, 9.0) == c
    assert scale_at("constant", 3.0, 0.1) == 3.0
    assert scale_at("linear", 3.0, 0.0) == 1.0 and scale_at("linear", 3.0, 1.0) == 3.0


def test_sampling_is_float32_under_autocast():
    head = variant("random", "diffusion").head
    z = torch.randn(1, 2, 64)
    plain = head.sample(z, None, 1.0, 1.0, [seeded(0)], 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head.sample(z, None, 1.0, 1.0, [seeded(0)], 5), plain)


def test_an_unknown_solver_is_named():
    with pytest.raises(ValueError, match="solver must be one of heun, euler, got 'rk4'"):
        RectifiedFlow("rk4")
