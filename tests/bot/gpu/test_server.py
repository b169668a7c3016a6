"""The server over real HTTP: the documented contract, and its errors."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("diffusers", reason="needs the extra [gpu]")
pytest.importorskip("uvicorn", reason="needs the extra [gpu]")
from PIL import Image  # noqa: E402  after the skip
from torch import Tensor  # noqa: E402  after the skip

from bot.gpu.continuous_batch import EngineLimits  # noqa: E402  after the skip
from bot.gpu.model import Model  # noqa: E402  after the skip
from bot.gpu.picture_files import decode  # noqa: E402  after the skip
from bot.gpu.server import GpuServerSettings  # noqa: E402  after the skip
from tests.bot.gpu.live_server import LiveServer  # noqa: E402  after the skip
from tests.bot.gpu.model_stand_ins import CrampedModel, GatedModel, levels_off  # noqa: E402  after the skip

V1, V2 = "/v1/sd3-med-img2img", "/v2/sd3-med-img2img"
TIMEOUT_S = 30


def encoded(side: int = 64, kind: str = "PNG", **how: Any) -> str:
    """Return a picture in base64."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((side, side)).convert("RGB").save(file, kind, **how)
    return base64.b64encode(file.getvalue()).decode()


def body(**options: Any) -> dict[str, Any]:
    """Return a small request."""
    return {"prompt": "a red fox", "image": encoded(), "num_inference_steps": 3, **options}


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Return the size of JPEG bytes, read to the end."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        image.load()
        return image.size


def pixels(coded: str) -> Tensor:
    """Return the picture behind base64, bytes [height, width, 3]."""
    return decode(base64.b64decode(coded))


@pytest.fixture
def live(serve: Callable[..., LiveServer]) -> LiveServer:
    """Return an open server on the tiny model."""
    return serve()


@pytest.fixture
def client(live: LiveServer) -> Iterator[httpx.Client]:
    """Yield a client of the open server."""
    with httpx.Client(base_url=live.url, timeout=TIMEOUT_S, trust_env=False) as opened:
        yield opened


def test_picture_comes_as_json_or_as_bytes(client: httpx.Client) -> None:
    """The same request answers in base64 by default and in raw JPEG where `base64` is false."""
    coded = client.post(V1, json=body())
    raw = client.post(V1, json=body(base64=False))
    assert (coded.status_code, raw.status_code) == (200, 200)
    assert raw.headers["content-type"] == "image/jpeg"
    assert base64.b64decode(coded.json()["image"]) == raw.content
    assert jpeg_size(raw.content) == (64, 64)
    assert raw.headers["x-seed-value"] == "698845"
    assert float(raw.headers["x-generation-time"]) >= 0
    assert raw.headers["x-request-id"] != coded.headers["x-request-id"]


def test_base64_may_be_a_number_or_a_bool(client: httpx.Client) -> None:
    """The documentation writes 1 and 0 for true and false; both work."""
    assert client.post(V1, json=body(base64=1)).headers["content-type"] == "application/json"
    assert client.post(V1, json=body(base64=0)).headers["content-type"] == "image/jpeg"


def test_several_samples_come_each_with_its_own_seed(client: httpx.Client) -> None:
    """Of three samples, the third is what its own seed makes alone; several never come as raw bytes."""
    several = client.post(V1, json=body(samples=3, seed=10)).json()
    alone = client.post(V1, json=body(seed=12)).json()
    assert levels_off(pixels(several["images"][2]), pixels(alone["image"])) <= 2
    assert levels_off(pixels(several["images"][1]), pixels(alone["image"])) > 2
    assert several["image"] == several["images"][0]
    assert client.post(V1, json=body(samples=3, base64=False)).status_code == 400


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_all_picture_formats_are_accepted(client: httpx.Client, kind: str) -> None:
    """PNG, JPEG, GIF and WebP are accepted, as base64 and as a data URI."""
    for image in (encoded(kind=kind), f"data:image/{kind.lower()};base64,{encoded(kind=kind)}"):
        assert client.post(V1, json=body(image=image)).status_code == 200


def test_odd_sizes_are_cropped_and_turned(client: httpx.Client) -> None:
    """A picture is turned as its EXIF data says, and cropped to multiples of 16."""
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (100, 70)).save(file, "JPEG", exif=exif)
    image = base64.b64encode(file.getvalue()).decode()
    assert jpeg_size(client.post(V1, json=body(image=image, base64=False)).content) == (64, 96)


def test_strength_0_gives_the_picture_back(client: httpx.Client) -> None:
    """At strength 0 the answer shows the input, transparent parts on white."""
    file = io.BytesIO()
    Image.new("RGBA", (32, 32), (255, 0, 0, 0)).save(file, "PNG")
    image = base64.b64encode(file.getvalue()).decode()
    answer = client.post(V1, json=body(image=image, strength=0, base64=False)).content
    with Image.open(io.BytesIO(answer)) as picture:
        assert picture.getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 1001}, "prompt"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"num_inference_steps": 101}, "num_inference_steps"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
        ({"guidance_scale": 21}, "guidance_scale"),
        ({"seed": -1}, "seed"),
        ({"samples": 5}, "samples"),
        ({"strength": 1.5}, "strength"),
        ({"strength": "NaN"}, "strength"),
        ({"sampler": "magic"}, "sampler"),
        ({"scheduler": "magic"}, "scheduler"),
        ({"base64": "perhaps"}, "base64"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"image": ""}, "image"),
        ({"image": "not base64!"}, "image"),
        ({"image": base64.b64encode(b"no picture").decode()}, "image"),
        ({"image": "data:text/html;base64,AAAA"}, "image"),
        ({"image": "https://example.com/cat.png"}, "image"),
        ({"image": "http://127.0.0.1/cat.png"}, "image"),
        ({"image": encoded(8)}, "image"),
        ({"image": encoded(2064)}, "image"),
        ({"image": encoded()[:200]}, "image"),
        ({"image": encoded(kind="TIFF")}, "image"),
    ],
)
def test_wrong_attribute_is_named(client: httpx.Client, change: dict[str, Any], named: str) -> None:
    """A wrong attribute is refused with 400 and named in the error."""
    answer = client.post(V1, json=body(**change))
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(named)


def test_missing_attributes_are_named(client: httpx.Client) -> None:
    """A request without prompt or picture is refused with 400 and says which."""
    for missing in ("prompt", "image"):
        request = body()
        del request[missing]
        answer = client.post(V1, json=request)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(missing)


def test_other_bodies_are_refused(client: httpx.Client) -> None:
    """Broken JSON and a body too long are 400, another content type is 406."""
    as_json = {"content-type": "application/json"}
    assert client.post(V1, content=b"{", headers=as_json).status_code == 400
    assert client.post(V1, content=b" " * (25 * 2**20), headers=as_json).status_code == 400
    assert client.post(V1, data={"prompt": "x"}).status_code == 406


def test_other_addresses_and_methods_are_refused(client: httpx.Client) -> None:
    """An unknown model is 404 and another method 405, each with an error in JSON."""
    for answer, status in ((client.post("/v1/magic", json=body()), 404), (client.get(V1), 405)):
        assert answer.status_code == status
        assert answer.json()["error"]


def test_steps_are_streamed_line_by_line(client: httpx.Client) -> None:
    """A client that asks for lines gets each step with a preview, and then the same picture as without."""
    request = body(num_inference_steps=4)
    with client.stream("POST", V1, json=request, headers={"accept": "application/x-ndjson"}) as answer:
        lines = [json.loads(line) for line in answer.iter_lines()]
    steps, last = lines[:-1], lines[-1]
    assert steps
    assert [line["step"] for line in steps] == sorted({line["step"] for line in steps})
    assert all(line["steps"] == 4 for line in steps)
    assert all(jpeg_size(base64.b64decode(line["preview"])) == (8, 8) for line in steps)
    assert last["image"] == client.post(V1, json=request).json()["image"]


def test_stream_stays_alive_while_it_waits(serve: Callable[..., LiveServer], model: Model) -> None:
    """While a request waits, its stream repeats the last step, so that clients know it is alive."""
    gate = GatedModel(model)
    live = serve(
        model=gate, settings=GpuServerSettings(label="tiny", open_without_keys=True, heartbeat_s=0.05)
    )
    headers = {"accept": "application/x-ndjson"}
    with (
        httpx.Client(base_url=live.url, timeout=TIMEOUT_S, trust_env=False) as client,
        client.stream("POST", V1, json=body(), headers=headers) as answer,
    ):
        lines = answer.iter_lines()
        waiting = [json.loads(next(lines)) for _ in range(3)]
        gate.go.set()
        rest = [json.loads(line) for line in lines]
    assert waiting == [{"step": 0, "steps": 3}] * 3
    assert "image" in rest[-1]


def test_key_is_required_as_soon_as_there_is_one(live: LiveServer, client: httpx.Client) -> None:
    """Without keys this machine needs none; as soon as there is one, every address requires it."""
    assert client.post(V1, json=body()).status_code == 200
    key = live.new_key()
    for path in (V1, V2):
        assert client.post(path, json=body()).status_code == 401
        refused = client.post(path, json=body(), headers={"x-api-key": "wrong"})
        assert (refused.status_code, list(refused.json())) == (401, ["error"])
    assert client.get("/v1/get-user-credits").status_code == 401
    assert client.post(V1, json=body(), headers={"x-api-key": key}).status_code == 200


def test_only_pictures_are_charged(live: LiveServer, client: httpx.Client) -> None:
    """A picture costs by steps and size, a refused request nothing, and an empty budget answers 406."""
    client.headers["x-api-key"] = live.new_key(credits_given=0.025)
    first = client.post(V1, json=body(num_inference_steps=50))
    assert (first.headers["x-cost"], first.headers["x-remaining-credits"]) == ("0.010", "0.015")
    assert client.post(V1, json=body(strength=2)).status_code == 400
    assert client.get("/v1/get-user-credits").json() == {"credits": 0.015, "free-credits": 0.0}
    second = client.post(V1, json=body(num_inference_steps=100))
    assert second.status_code == 406
    assert "Not enough credits" in second.json()["error"]


def test_overdrawn_request_is_refused_in_every_form(live: LiveServer, client: httpx.Client) -> None:
    """A request for more than the key has left gets 406 from each address, and costs nothing."""
    client.headers["x-api-key"] = live.new_key(credits_given=0.005)
    request = body(num_inference_steps=100)
    answers = [
        client.post(V1, json=request),
        client.post(V1, json=request, headers={"accept": "application/x-ndjson"}),
        client.post(V2, json=request),
    ]
    assert [answer.status_code for answer in answers] == [406] * 3
    assert all("the key has 0.005 left" in answer.json()["error"] for answer in answers)
    assert client.get("/v1/get-user-credits").json()["credits"] == 0.005


def test_failed_picture_is_refunded(serve: Callable[..., LiveServer], model: Model) -> None:
    """A picture that fails on the card answers 500, in lines as well, and costs nothing."""
    live = serve(model=CrampedModel(model, rows_max=0))
    headers = {"x-api-key": live.new_key(credits_given=1)}
    with httpx.Client(base_url=live.url, headers=headers, timeout=TIMEOUT_S, trust_env=False) as client:
        plain = client.post(V1, json=body())
        lines = client.post(V1, json=body(), headers={"accept": "application/x-ndjson"})
        assert plain.status_code == 500
        assert "weren't charged" in plain.json()["error"]
        assert lines.json()["status"] == 500
        assert client.get("/v1/get-user-credits").json()["credits"] == 1


@pytest.mark.parametrize("accept", ["*/*", "application/x-ndjson"])
def test_disconnect_cancels_the_work(serve: Callable[..., LiveServer], model: Model, accept: str) -> None:
    """A client that disconnects frees the card at once and gets its credits back."""
    gate = GatedModel(model)
    live = serve(model=gate)
    headers = {"x-api-key": live.new_key(credits_given=1), "accept": accept}
    with httpx.Client(base_url=live.url, headers=headers, timeout=TIMEOUT_S, trust_env=False) as client:
        with (
            pytest.raises(httpx.ReadTimeout),
            client.stream(
                "POST", V1, json=body(num_inference_steps=100), timeout=httpx.Timeout(TIMEOUT_S, read=0.5)
            ) as answer,
        ):
            answer.read()
        gate.go.set()
        until(lambda: client.get("/v1/get-user-credits").json()["credits"] == 1)
        until(lambda: client.get("/health").json()["live"] == 0)
    assert len(gate.rows) < 50


def until(holds: Callable[[], bool]) -> None:
    """Wait until `holds` returns True."""
    for _ in range(200):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it never became true")


def is_completed(client: httpx.Client, status_url: str) -> bool:
    """Return whether a queued request has its picture."""
    return bool(client.get(status_url).json()["status"] == "COMPLETED")


def test_full_queue_says_when_to_try_again(serve: Callable[..., LiveServer], model: Model) -> None:
    """When too many wait, the answer is 429 with a time to try again, and costs nothing."""
    gate = GatedModel(model)
    live = serve(model=gate, limits=EngineLimits(live=1, waiting=1))
    headers = {"x-api-key": live.new_key(credits_given=1)}
    with httpx.Client(base_url=live.url, headers=headers, timeout=TIMEOUT_S, trust_env=False) as client:
        first = client.post(V2, json=body()).json()
        assert gate.reached.wait(TIMEOUT_S)
        second = client.post(V2, json=body()).json()
        refused = client.post(V2, json=body())
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert refused.headers["x-rate-limit-reset-at-utc"]
        gate.go.set()
        for queued in (first, second):
            until(partial(is_completed, client, queued["status_url"]))
        assert client.get("/v1/get-user-credits").json()["credits"] == 0.998


def test_queued_request_leads_to_its_picture(client: httpx.Client) -> None:
    """The queued form answers at once, reports its status, and ends with the address of the same picture."""
    queued = client.post(V2, json=body()).json()
    assert queued["status"] == "QUEUED"
    assert queued["poll_url"] == queued["status_url"]
    until(lambda: client.get(queued["status_url"]).json()["status"] == "COMPLETED")
    result = client.get(queued["response_url"]).json()
    assert client.get(result["output"]).content == client.post(V1, json=body(base64=False)).content
    assert set(result["metrics"]) >= {"cost", "remaining_credits", "inference_time", "total_time"}


def test_queued_failure_is_422(serve: Callable[..., LiveServer], model: Model) -> None:
    """A queued request that fails answers 422 with its error, from both addresses."""
    live = serve(model=CrampedModel(model, rows_max=0))
    with httpx.Client(base_url=live.url, timeout=TIMEOUT_S, trust_env=False) as client:
        queued = client.post(V2, json=body()).json()
        until(lambda: client.get(queued["status_url"]).status_code == 422)
        for url in (queued["status_url"], queued["response_url"]):
            assert client.get(url).json()["status"] == "FAILED"
            assert client.get(url).json()["error"]


def test_queued_request_is_private_to_its_key(live: LiveServer, client: httpx.Client) -> None:
    """Another key can't see a queued request; nobody can guess one or its picture."""
    owner, other = live.new_key(name="one"), live.new_key(name="two")
    queued = client.post(V2, json=body(), headers={"x-api-key": owner}).json()
    assert client.get(queued["status_url"], headers={"x-api-key": owner}).status_code == 200
    assert client.get(queued["status_url"], headers={"x-api-key": other}).status_code == 404
    assert client.get("/v2/requests/guess", headers={"x-api-key": owner}).status_code == 404
    assert client.get("/v2/outputs/gu%C3%A9ss/0.jpg").status_code == 404


def test_health_and_metrics_are_reported(client: httpx.Client) -> None:
    """Health names the model, and the metrics count what was done."""
    client.post(V1, json=body())
    client.post(V1, json=body(strength=2))
    health = client.get("/health").json()
    assert health == {"status": "ok", "model": "tiny", "live": 0, "waiting": 0}
    metrics = client.get("/metrics").text
    for line in (
        'gpu_requests_total{outcome="200"} 1',
        'gpu_requests_total{outcome="400"} 1',
        "gpu_pictures_total 1",
        "gpu_forwards_total 3",
        "gpu_forward_rows_total 6",
    ):
        assert line in metrics.splitlines()


def test_keyless_balance_never_runs_out(client: httpx.Client) -> None:
    """A server without keys counts nothing and reports a large balance."""
    assert client.get("/v1/get-user-credits").json()["credits"] > 1000


def test_pictures_are_fetched_only_from_allowed_hosts(serve: Callable[..., LiveServer]) -> None:
    """Only https addresses on allowed hosts are fetched; others are refused without a request."""
    live = serve(
        settings=GpuServerSettings(label="tiny", open_without_keys=True, image_hosts=frozenset({"127.0.0.1"}))
    )
    with httpx.Client(base_url=live.url, timeout=TIMEOUT_S, trust_env=False) as client:
        refused = client.post(V1, json=body(image="http://127.0.0.1:9/cat.png"))
        unread = client.post(V1, json=body(image="https://127.0.0.1:9/cat.png"))
    assert "does not fetch" in refused.json()["error"]
    assert "can't be read" in unread.json()["error"]


def test_vendors_sdk_works_unchanged(live: LiveServer) -> None:
    """The vendor's SDK, pointed at this server, makes pictures both ways and reads errors."""
    segmind = pytest.importorskip("segmind", reason="the vendor's SDK is not installed")
    client = segmind.SegmindClient(api_key=live.new_key(credits_given=1), base_url=live.url + "/v1")
    answer = client.run_sync("sd3-med-img2img", **body(base64=False))
    assert jpeg_size(answer.content) == (64, 64)
    queued = client.submit_async("sd3-med-img2img", **body()).wait(timeout=TIMEOUT_S, interval=0.05)
    assert queued["status"] == "COMPLETED"
    with pytest.raises(segmind.exceptions.SegmindError, match="strength"):
        client.run_sync("sd3-med-img2img", **body(strength=2))
    client._client.close()
