"""The server of docs/howto/export.md, where BentoML is installed; no extra has it."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from keras_autolabel import AutoLabelModel
from tests.conftest import ROOT, environment, linear_network, numpy_softmax


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _ask(url: str, content: dict) -> dict:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(content).encode(), headers)
    for _ in range(120):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.URLError as error:
            # Nobody listens yet.
            last = error
            time.sleep(1)
    raise last


def test_a_server_answers_as_the_model_does(tmp_path, digits):
    pytest.importorskip("bentoml")
    page = (ROOT / "docs/howto/export.md").read_text("utf-8")
    (service,) = re.findall(r"```\{code-block\} python\n(import bentoml.*?)```", page, re.DOTALL)
    (tmp_path / "service.py").write_text(service, "utf-8")
    images = digits[0][:3]
    model = AutoLabelModel(linear_network((8, 8, 1), 10, scale=0.1), num_classes=10)
    model.export(str(tmp_path / "exported"), temperature=2.0)
    port = _free_port()
    command = [sys.executable, "-m", "bentoml", "serve", "service:Classifier"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    env = {**environment(), "BENTOML_DO_NOT_TRACK": "1"}
    with subprocess.Popen(command, cwd=tmp_path, env=env) as server:
        try:
            answer = _ask(f"http://127.0.0.1:{port}/predict", {"images": images.tolist()})
        finally:
            server.terminate()
    logits = model.predict(images, verbose=0)
    np.testing.assert_allclose(answer["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(answer["probabilities"], numpy_softmax(logits / 2.0), atol=1e-5)
    assert answer["class"] == logits.argmax(axis=-1).tolist()
