"""The Ray Serve deployment: the same contract behind Ray's own HTTP port."""

from __future__ import annotations

import base64
import io
import json
import socket
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("diffusers", reason="needs the extra [gpu]")
from PIL import Image

from bot.errors import OperatorError
from bot.gpu.ray_serve import Scale, deployment
from bot.gpu.start import StartOptions

HAS_RAY = find_spec("ray") is not None
V1 = "/v1/sd3-med-img2img"


def tiny(folder: Path) -> StartOptions:
    """Return the options of a server on the tiny model."""
    return StartOptions(
        model="",
        tiny=True,
        host="127.0.0.1",
        port=0,
        memory_gb=None,
        t5=None,
        device="cpu",
        compiled=False,
        image_hosts=frozenset(),
        keys_path=folder / "keys.sqlite",
    )


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed here")
def test_missing_ray_is_reported(tmp_path: Path) -> None:
    """Without Ray the error says how to install it."""
    with pytest.raises(OperatorError, match="pip install"):
        deployment(tiny(tmp_path))


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Yield the address of a running deployment."""
    ray, serve = import_module("ray"), import_module("ray.serve")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(deployment(tiny(tmp_path), Scale(cards=0)))
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()


@pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed")
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_deployment_speaks_the_contract(url: str) -> None:
    """Behind Ray the same picture is made, and its steps arrive line by line."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(file, "PNG")
    request = {
        "prompt": "a fox",
        "image": base64.b64encode(file.getvalue()).decode(),
        "num_inference_steps": 4,
    }
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        assert client.get("/health").json()["model"] == "tiny"
        answer = client.post(V1, json=request)
        lines = client.post(V1, json=request, headers={"accept": "application/x-ndjson"}).text.splitlines()
    assert json.loads(lines[-1])["image"] == answer.json()["image"]
    assert len(lines) > 1
