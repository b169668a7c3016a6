"""The engine: pictures that share forwards and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("diffusers", reason="needs the extra [gpu]")
from torch import Tensor  # noqa: E402  after the skip

from bot.errors import BackendFailed, QueueFull  # noqa: E402  after the skip
from bot.gpu.engine import Cache, Engine, Limits, Step, Ticket  # noqa: E402  after the skip
from bot.gpu.model import Model, Words  # noqa: E402  after the skip
from bot.gpu.sd3_architecture import TINY, build  # noqa: E402  after the skip
from bot.params import Img2ImgParams  # noqa: E402  after the skip

TIMEOUT_S = 20
#: Sharing a batch changes how a matrix product is rounded and nothing else: at most one
#: grey level of 255 in a picture, 2e-4 in a latent.
LEVELS_OFF_MAX = 1
LATENT_OFF_MAX = 2e-4

MIXED = [
    Img2ImgParams(prompt="a red fox", seed=1, num_inference_steps=6),
    Img2ImgParams(prompt="a blue bird", seed=2, num_inference_steps=3, sampler="euler", scheduler="normal"),
    Img2ImgParams(prompt="a tree", seed=3, num_inference_steps=8, guidance_scale=1, sampler="heun"),
    Img2ImgParams(prompt="a tree", seed=4, num_inference_steps=5, strength=1, sampler="dpmpp_sde"),
    Img2ImgParams(prompt="the sea", seed=5, num_inference_steps=4, scheduler="karras", sampler="uni_pc"),
    Img2ImgParams(prompt="the sea", seed=6, num_inference_steps=7, strength=0.3, sampler="euler_ancestral"),
    Img2ImgParams(prompt="fog", seed=7, num_inference_steps=5, guidance_scale=1, sampler="euler_pp"),
]


def picture(seed: int = 0, side: int = 64) -> Tensor:
    """Return a picture of noise, bytes [side, side, 3]."""
    generator = torch.Generator().manual_seed(seed)
    noise: Tensor = torch.randint(0, 256, (side, side, 3), generator=generator, dtype=torch.uint8)
    return noise


def levels_off(one: Tensor, other: Tensor) -> int:
    """Return the largest difference between two pictures of bytes."""
    return int((one.int() - other.int()).abs().max())


class Gate:
    """A model that waits at the first forward until it is let go, so that a test can fill the queue."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.go = threading.Event()
        self.reached = threading.Event()
        self.rows: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    def velocity(self, x: Tensor, sigmas: list[float], words: list[Words]) -> Tensor:
        """Count the rows, wait for the gate, ask the model."""
        self.reached.set()
        self.go.wait(TIMEOUT_S)
        self.rows.append(len(x))
        return self._model.velocity(x, sigmas, words)


class Cramped(Gate):
    """A model on a card that holds so many rows and no more."""

    def __init__(self, model: Model, *, rows_max: int) -> None:
        super().__init__(model)
        self.go.set()
        self._rows_max = rows_max

    def velocity(self, x: Tensor, sigmas: list[float], words: list[Words]) -> Tensor:
        """Run out of memory where there are too many rows."""
        if len(x) > self._rows_max:
            raise torch.OutOfMemoryError("too many rows")
        return super().velocity(x, sigmas, words)


def made(engine: Engine, params: Img2ImgParams, source: Tensor) -> Tensor:
    """Return one picture, made alone."""
    return engine.submit(params, source).result.result(TIMEOUT_S)


def test_mixed_requests_together_equal_each_alone(model: Model, new_engine: Callable[..., Engine]) -> None:
    """Your picture is the same whether you were alone or shared the card with six others.

    Seven requests that differ in all options: at most one grey level of 255 apart.
    """
    lonely = new_engine()
    alone = [made(lonely, params, picture(params.seed)) for params in MIXED]
    gate = Gate(model)
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


def test_velocities_do_not_depend_on_the_batch(model: Model) -> None:
    """A row's velocity is the same in any batch, within 2e-4."""
    words = [model.read(prompt, 154) for prompt in ("a", "b", "c", "d")]
    x = torch.randn(4, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    sigmas = [0.9, 0.5, 0.3, 0.1]
    together = model.velocity(x, sigmas, words)
    alone = torch.cat([model.velocity(x[i : i + 1], [sigmas[i]], [words[i]]) for i in range(4)])
    assert (together - alone).abs().max() < LATENT_OFF_MAX


def test_late_joiner_shares_the_forwards_that_are_left(model: Model) -> None:
    """Who comes late joins at the next step, and both get the picture they would have got alone."""
    gate = Gate(model)
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
    """Giving one picture up frees its place at once and harms nobody else."""
    gate = Gate(model)
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
    """Each step but the last is told, with a small preview; the last is the picture itself."""
    steps: list[Step] = []
    ticket = engine.submit(MIXED[0], picture(), steps.append, previews=True)
    ticket.result.result(TIMEOUT_S)
    assert [(step.step, step.steps) for step in steps] == [(i, 6) for i in range(1, 6)]
    assert all(step.preview is not None and step.preview.shape == (8, 8, 3) for step in steps)


@pytest.mark.parametrize("sampler", ["heun", "dpm_2", "dpm_fast", "dpm_adaptive", "dpmpp_sde", "heunpp2"])
def test_progress_only_ever_grows(engine: Engine, sampler: str) -> None:
    """Progress never goes back, also where a sampler asks twice a step."""
    steps: list[Step] = []
    params = Img2ImgParams.model_validate(
        {"prompt": "x", "seed": 1, "num_inference_steps": 6, "sampler": sampler}
    )
    engine.submit(params, picture(), steps.append).result.result(TIMEOUT_S)
    told = [step.step for step in steps]
    assert told == sorted(set(told))
    assert all(1 <= step < 7 for step in told)


def test_strength_0_gives_the_picture_back(engine: Engine) -> None:
    """At strength 0 you get your own picture back, to the last grey level."""
    source = torch.randint(0, 256, (64, 48, 3), dtype=torch.uint8)
    params = Img2ImgParams(prompt="x", seed=1, strength=0)
    assert made(engine, params, source).equal(source)


def test_same_seed_same_picture_other_seed_another(engine: Engine) -> None:
    """The same seed gives the same picture, to the last bit; another gives another."""
    first, again, other = (made(engine, MIXED[0].with_seed(seed), picture()) for seed in (5, 5, 6))
    assert first.equal(again)
    assert not first.equal(other)


def test_prompts_and_pictures_are_read_once(engine: Engine) -> None:
    """A reroll reads neither prompt nor picture again."""
    for seed in range(3):
        made(engine, MIXED[0].with_seed(seed), picture())
    assert (engine.words.misses, engine.words.hits) == (2, 4)
    assert (engine.latents.misses, engine.latents.hits) == (1, 2)


def test_cache_forgets_what_was_used_longest_ago() -> None:
    """A full cache lets go of what nobody asked for lately."""
    cache: Cache[int] = Cache(2)
    for key in (1, 2, 1, 3):
        cache.get(key, lambda: 0)
    assert cache.get(1, lambda: 7) == 0
    assert cache.get(2, lambda: 7) == 7


def test_sizes_take_turns(model: Model) -> None:
    """Pictures of different sizes go in different forwards, in turns, and all arrive."""
    gate = Gate(model)
    engine = Engine(gate)  # type: ignore[arg-type]  # a stand-in for the card
    tickets = [engine.submit(MIXED[1], picture(side=side)) for side in (64, 96, 64)]
    gate.go.set()
    sides = [ticket.result.result(TIMEOUT_S).shape[0] for ticket in tickets]
    engine.close()
    assert sides == [64, 96, 64]


def test_first_come_is_first_finished(model: Model) -> None:
    """When more wait than a batch holds, the first are finished before the others begin."""
    gate = Gate(model)
    engine = Engine(gate, Limits(rows=4))  # type: ignore[arg-type]  # a stand-in for the card
    tickets = engine.submit_all([MIXED[0]] * 4, picture())
    gate.go.set()
    order: list[int] = []

    def note(place: int, _: Future[Tensor]) -> None:
        order.append(place)

    for place, ticket in enumerate(tickets):
        ticket.result.add_done_callback(partial(note, place))
    tickets[-1].result.result(TIMEOUT_S)
    engine.close()
    assert order == [0, 1, 2, 3]
    assert gate.rows == [4] * 12


def test_given_up_while_waiting_makes_room(model: Model) -> None:
    """Who gives up while still waiting leaves the queue at once."""
    gate = Gate(model)
    engine = Engine(gate, Limits(waiting=1, live=1))  # type: ignore[arg-type]  # a stand-in for the card
    engine.submit(MIXED[0], picture())
    assert gate.reached.wait(TIMEOUT_S)
    engine.submit(MIXED[0], picture()).cancel()
    after = engine.submit(MIXED[0], picture())
    gate.go.set()
    assert after.result.result(TIMEOUT_S).shape == (64, 64, 3)
    engine.close()


@pytest.mark.parametrize("rows_max", [1, 3])
def test_too_little_memory_is_met_by_smaller_batches(model: Model, rows_max: int) -> None:
    """Where the card is full the batch shrinks, and everybody still gets the same picture."""
    engine = Engine(Cramped(model, rows_max=rows_max))  # type: ignore[arg-type]  # a stand-in for the card
    tickets = [engine.submit(params, picture(params.seed)) for params in MIXED[:4]]
    results = [ticket.result.result(TIMEOUT_S) for ticket in tickets]
    engine.close()
    assert engine.counters.out_of_memory > 0
    plain = Engine(model)
    assert levels_off(results[1], made(plain, MIXED[1], picture(2))) <= LEVELS_OFF_MAX
    plain.close()


def test_no_memory_at_all_fails_the_picture_alone(model: Model) -> None:
    """A picture that not even one row of fits fails with a clear sentence; the engine goes on."""
    engine = Engine(Cramped(model, rows_max=0))  # type: ignore[arg-type]  # a stand-in for the card
    with pytest.raises(BackendFailed, match="cost you nothing"):
        made(engine, MIXED[0], picture())
    assert engine.alive
    engine.close()


def test_full_queue_is_told(model: Model) -> None:
    """When too many wait, the next one is told so, and several samples come in together or not at all."""
    gate = Gate(model)
    engine = Engine(gate, Limits(waiting=2, live=1))  # type: ignore[arg-type]  # a stand-in for the card
    first = engine.submit(MIXED[0], picture())
    assert gate.reached.wait(TIMEOUT_S)
    second = engine.submit(MIXED[0], picture())
    with pytest.raises(QueueFull):
        engine.submit_all([MIXED[0], MIXED[1]], picture())
    gate.go.set()
    assert first.result.result(TIMEOUT_S).equal(second.result.result(TIMEOUT_S))
    engine.close()


def test_closing_gives_up_what_is_left(model: Model) -> None:
    """Closing the engine ends every wait."""
    gate = Gate(model)
    engine = Engine(gate, Limits(live=1))  # type: ignore[arg-type]  # a stand-in for the card
    tickets: list[Ticket] = [engine.submit(MIXED[0], picture()) for _ in range(3)]
    assert gate.reached.wait(TIMEOUT_S)
    threading.Timer(0.05, gate.go.set).start()
    engine.close()
    assert all(ticket.result.cancelled() for ticket in tickets)
    with pytest.raises(QueueFull):
        engine.submit(MIXED[0], picture())


class Broken(Gate):
    """A model on a card that is gone."""

    def velocity(self, _x: Tensor, _sigmas: list[float], _words: list[Words]) -> Tensor:
        """Break as a lost card does."""
        raise RuntimeError("the card fell off the bus")


def test_broken_card_fails_what_it_held_and_nothing_else(model: Model) -> None:
    """A forward that breaks fails its own pictures with a sentence, and the engine still answers."""
    engine = Engine(Broken(model))  # type: ignore[arg-type]  # a stand-in for the card
    for _ in range(2):
        with pytest.raises(BackendFailed) as failure:
            made(engine, MIXED[0], picture())
    assert "fell off" in failure.value.detail
    assert engine.alive
    engine.close()


def test_follower_that_breaks_harms_nobody_else(engine: Engine) -> None:
    """When telling one picture's progress breaks, that picture fails alone."""

    def broken(_: Step) -> None:
        raise RuntimeError("nobody is there")

    tickets = [engine.submit(MIXED[0], picture(), broken), engine.submit(MIXED[0], picture())]
    with pytest.raises(BackendFailed):
        tickets[0].result.result(TIMEOUT_S)
    assert tickets[1].result.result(TIMEOUT_S).shape == (64, 64, 3)


def test_batches_hold_no_more_cells_than_allowed() -> None:
    """Large pictures share a forward with fewer others."""
    limits = Limits(rows=64, cells=16 * 128 * 128)
    assert [limits.rows_of((side, side, 154)) for side in (64, 128, 256)] == [64, 16, 4]


def test_sides_must_fit_the_model(engine: Engine) -> None:
    """A side that is no multiple of 16 is refused before anything is made."""
    with pytest.raises(ValueError, match="multiples of 16"):
        engine.submit(MIXED[0], torch.zeros(64, 40, 3, dtype=torch.uint8))
