"""A plain axios call, as the vendor's page shows it, with only the address changed."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.support.simulated_server import a_picture

if TYPE_CHECKING:
    from tests.bot.gpu.live_server import LiveServer

pytest.importorskip("torch", reason="needs the extra [gpu]")

ROOT = Path(__file__).parents[3]
MODULES = Path(os.environ.get("NODE_PATH", ROOT / ".venv" / "node_modules"))

if shutil.which("node") is None:
    pytest.skip("needs node", allow_module_level=True)
if not (MODULES / "axios").is_dir():
    pytest.skip("needs axios: npm install --prefix .venv axios@1", allow_module_level=True)

SCRIPT = """
const axios = require('axios');
const [url, key, image, asBase64] = process.argv.slice(1);
const data = {
  prompt: 'a harbour', image, num_inference_steps: 2, seed: 7, base64: asBase64 === 'true',
};
const options = { headers: { 'x-api-key': key }, responseType: data.base64 ? 'json' : 'arraybuffer' };
axios.post(url, data, options).then(
  ({ status, headers, data: body }) => console.log(JSON.stringify({
    status,
    left: headers['x-remaining-credits'],
    picture: Buffer.isBuffer(body) ? body.toString('base64') : body.image,
  })),
  ({ response }) => console.log(JSON.stringify({
    status: response.status, error: JSON.parse(Buffer.from(response.data).toString() || '{}').error,
  })),
);
"""


def _call(live: LiveServer, key: str, *, as_base64: bool) -> dict[str, object]:
    image = base64.b64encode(a_picture((64, 64), "JPEG")).decode()
    done = subprocess.run(
        ["node", "-e", SCRIPT, f"{live.url}/v1/sd3-med-img2img", key, image, str(as_base64).lower()],  # noqa: S607 - the machine's node
        env={**os.environ, "NODE_PATH": str(MODULES), "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("as_base64", [True, False])
def test_axios_gets_a_picture(serve: Callable[..., LiveServer], *, as_base64: bool) -> None:
    """A web developer points the vendor's example at the server and gets the picture, either way."""
    live = serve()
    answer = _call(live, live.new_key(credits_given=5), as_base64=as_base64)
    assert answer["status"] == 200
    assert 0 < float(str(answer["left"])) < 5
    picture = base64.b64decode(str(answer["picture"]))
    assert Image.open(io.BytesIO(picture)).size == (64, 64)


def test_axios_reads_the_error(serve: Callable[..., LiveServer]) -> None:
    """A wrong key is reported as the vendor does it: 401 with an error."""
    live = serve()
    live.new_key()
    answer = _call(live, "SG_wrong", as_base64=False)
    assert answer["status"] == 401
    assert answer["error"]
