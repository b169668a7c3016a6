"""The continuous batch: pictures share forwards and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("diffusers", reason="needs the extra [gpu]")
from torch import Tensor  # noqa: E402  after the skip

from bot.errors import BackendFailed  # noqa: E402  after the skip
from bot.gpu.continuous_batch import EngineLimits  # noqa: E402  after the skip
from bot.gpu.engine import Engine  # noqa: E402  after the skip
from bot.gpu.model import Model  # noqa: E402  after the skip
from bot.gpu.sd3_architecture import TINY, build  # noqa: E402  after the skip
from bot.gpu.tickets import Step  # noqa: E402  after the skip
from bot.params import Img2ImgParams  # noqa: E402  after the skip
from tests.bot.gpu.model_stand_ins import (  # noqa: E402  after the skip
    MIXED,
    TIMEOUT_S,
    BrokenModel,
    CrampedModel,
    GatedModel,
    levels_off,
    made,
    picture,
)

#: Sharing a batch changes only how a matrix product is rounded: at most one grey level of 255 in a picture.
LEVELS_OFF_MAX = 1


def test_mixed_requests_together_equal_each_alone(model: Model, new_engine: Callable[..., Engine]) -> None:
    """A picture is the same whether it was made alone or shared the card with six others.

    Seven requests that differ in all options: at most one grey level of 255 apart.
    """
    lonely = new_engine()
    alone = [made(lonely, params, picture(params.seed)) for params in MIXED]
    gate = GatedModel(model)
    engine = Engine(gate, None)  # type: ignore[arg-type]  # a stand-in for the card
    tickets = [engine.submit(params, picture(params.seed)) for params in MIXED]
    gate.go.set()
    together = [ticket.result.result(TIMEOUT_S) for ticket in tickets]
    engine.close()
    assert max(levels_off(one, other) for one, other in zip(alone, together, strict=True)) <= LEVELS_OFF_MAX
    assert max(gate.rows) >= 11
    assert len(gate.rows) < lonely.counters.forwards / 3


def test_picture_is_the_one_that_diffusers_makes(engine: Engine) -> None:
    """At full strength, `euler` on `normal` is diffusers' own loop: the same picture within a grey level.

    Prompt, guidance, schedule, steps and VAE of the published pipeline, on the same noise.
    """
    params = Img2ImgParams(
        prompt="a red fox", seed=9, num_inference_steps=8, strength=1, sampler="euler", scheduler="normal"
    )
    noise = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(9))
    pipeline = build(TINY)
    pipeline.set_progress_bar_config(disable=True)
    published = pipeline(
        prompt=params.prompt,
        negative_prompt=params.negative_prompt,
        guidance_scale=params.guidance_scale,
        num_inference_steps=params.num_inference_steps,
        latents=noise,
        height=64,
        width=64,
        max_sequence_length=77,
        output_type="pt",
    ).images[0]
    expected = (published.permute(1, 2, 0) * 255).round().to(torch.uint8)
    assert levels_off(made(engine, params, picture()), expected) <= LEVELS_OFF_MAX


def test_late_joiner_shares_the_forwards_that_are_left(model: Model) -> None:
    """A late request joins at the next step, and both get the picture they would have got alone."""
    gate = GatedModel(model)
    engine = Engine(gate)  # type: ignore[arg-type]  # a stand-in for the card
    first = engine.submit(MIXED[0], picture(1))
    assert gate.reached.wait(TIMEOUT_S)
    late = engine.submit(MIXED[1], picture(2))
    gate.go.set()
    results = [first.result.result(TIMEOUT_S), late.result.result(TIMEOUT_S)]
    engine.close()
    assert gate.rows == [2, 4, 4, 4, 2, 2]
    plain = Engine(model)
    assert levels_off(results[0], made(plain, MIXED[0], picture(1))) <= LEVELS_OFF_MAX
    assert levels_off(results[1], made(plain, MIXED[1], picture(2))) <= LEVELS_OFF_MAX
    plain.close()


def test_cancelled_picture_leaves_and_the_others_go_on(model: Model) -> None:
    """Cancelling one picture frees its rows at once and leaves the others as they are."""
    gate = GatedModel(model)
    engine = Engine(gate)  # type: ignore[arg-type]  # a stand-in for the card
    keep, drop = engine.submit_all([MIXED[0], MIXED[0]], picture(1))
    assert gate.reached.wait(TIMEOUT_S)
    drop.cancel()
    gate.go.set()
    assert keep.result.result(TIMEOUT_S).shape == (64, 64, 3)
    with pytest.raises(CancelledError):
        drop.result.result(TIMEOUT_S)
    engine.close()
    assert gate.rows == [4, 2, 2, 2, 2, 2]
    assert engine.counters.cancelled == 1


def test_progress_and_previews_come_with_each_step(engine: Engine) -> None:
    """Each step but the last is reported with a small preview; the last is the picture itself."""
    steps: list[Step] = []
    ticket = engine.submit(MIXED[0], picture(), steps.append, previews=True)
    ticket.result.result(TIMEOUT_S)
    assert [(step.step, step.steps) for step in steps] == [(i, 6) for i in range(1, 6)]
    assert all(step.preview is not None and step.preview.shape == (8, 8, 3) for step in steps)


@pytest.mark.parametrize("sampler", ["heun", "dpm_2", "dpm_fast", "dpm_adaptive", "dpmpp_sde", "heunpp2"])
def test_progress_only_ever_grows(engine: Engine, sampler: str) -> None:
    """Progress never goes back, even where a sampler calls the model twice a step."""
    steps: list[Step] = []
    params = Img2ImgParams.model_validate(
        {"prompt": "x", "seed": 1, "num_inference_steps": 6, "sampler": sampler}
    )
    engine.submit(params, picture(), steps.append).result.result(TIMEOUT_S)
    reported = [step.step for step in steps]
    assert reported == sorted(set(reported))
    assert all(1 <= step < 7 for step in reported)


def test_strength_0_gives_the_picture_back(engine: Engine) -> None:
    """At strength 0 the picture comes back unchanged, to the last grey level."""
    source = torch.randint(0, 256, (64, 48, 3), dtype=torch.uint8)
    params = Img2ImgParams(prompt="x", seed=1, strength=0)
    assert made(engine, params, source).equal(source)


def test_seed_decides_the_picture(engine: Engine) -> None:
    """The same seed gives the same picture, to the last bit; another seed gives another picture."""
    first, again, other = (made(engine, MIXED[0].with_seed(seed), picture()) for seed in (5, 5, 6))
    assert first.equal(again)
    assert not first.equal(other)


def test_prompts_and_pictures_are_encoded_once(engine: Engine) -> None:
    """A reroll encodes neither prompt nor picture again."""
    for seed in range(3):
        made(engine, MIXED[0].with_seed(seed), picture())
    assert (engine.embeddings.misses, engine.embeddings.hits) == (2, 4)
    assert (engine.latents.misses, engine.latents.hits) == (1, 2)


def test_sizes_take_turns(model: Model) -> None:
    """Pictures of different sizes go into different forwards, in turns, and all are made."""
    gate = GatedModel(model)
    engine = Engine(gate)  # type: ignore[arg-type]  # a stand-in for the card
    tickets = [engine.submit(MIXED[1], picture(side=side)) for side in (64, 96, 64)]
    gate.go.set()
    sides = [ticket.result.result(TIMEOUT_S).shape[0] for ticket in tickets]
    engine.close()
    assert sides == [64, 96, 64]


def test_first_come_is_first_finished(model: Model) -> None:
    """When more wait than a batch holds, the first are finished before the others begin."""
    gate = GatedModel(model)
    engine = Engine(gate, EngineLimits(rows=4))  # type: ignore[arg-type]  # a stand-in for the card
    tickets = engine.submit_all([MIXED[0]] * 4, picture())
    gate.go.set()
    order: list[int] = []

    def note(index: int, _: Future[Tensor]) -> None:
        order.append(index)

    for index, ticket in enumerate(tickets):
        ticket.result.add_done_callback(partial(note, index))
    tickets[-1].result.result(TIMEOUT_S)
    engine.close()
    assert order == [0, 1, 2, 3]
    assert gate.rows == [4] * 12


@pytest.mark.parametrize("rows_max", [1, 3])
def test_short_memory_shrinks_the_batch(model: Model, rows_max: int) -> None:
    """When memory runs out the batch shrinks, and everybody still gets the same picture."""
    engine = Engine(CrampedModel(model, rows_max=rows_max))  # type: ignore[arg-type]  # a stand-in for the card
    tickets = [engine.submit(params, picture(params.seed)) for params in MIXED[:4]]
    results = [ticket.result.result(TIMEOUT_S) for ticket in tickets]
    engine.close()
    assert engine.counters.out_of_memory > 0
    plain = Engine(model)
    assert levels_off(results[1], made(plain, MIXED[1], picture(2))) <= LEVELS_OFF_MAX
    plain.close()


def test_picture_that_never_fits_fails_alone(model: Model) -> None:
    """A picture of which not even one row fits fails with a clear sentence; the engine goes on."""
    engine = Engine(CrampedModel(model, rows_max=0))  # type: ignore[arg-type]  # a stand-in for the card
    with pytest.raises(BackendFailed, match="weren't charged"):
        made(engine, MIXED[0], picture())
    assert engine.alive
    engine.close()


def test_broken_forward_fails_its_own_pictures(model: Model) -> None:
    """A forward that breaks fails its own pictures with a sentence, and the engine still answers."""
    engine = Engine(BrokenModel(model))  # type: ignore[arg-type]  # a stand-in for the card
    for _ in range(2):
        with pytest.raises(BackendFailed) as failure:
            made(engine, MIXED[0], picture())
    assert "fell off" in failure.value.detail
    assert engine.alive
    engine.close()


def test_broken_listener_harms_no_other_picture(engine: Engine) -> None:
    """When reporting one picture's progress breaks, only that picture fails."""

    def broken(_: Step) -> None:
        raise RuntimeError("nobody is there")

    tickets = [engine.submit(MIXED[0], picture(), broken), engine.submit(MIXED[0], picture())]
    with pytest.raises(BackendFailed):
        tickets[0].result.result(TIMEOUT_S)
    assert tickets[1].result.result(TIMEOUT_S).shape == (64, 64, 3)


def test_batches_hold_no_more_cells_than_allowed() -> None:
    """Large pictures share a forward with fewer others."""
    limits = EngineLimits(rows=64, cells=16 * 128 * 128)
    assert [limits.rows_of((side, side, 154)) for side in (64, 128, 256)] == [64, 16, 4]
