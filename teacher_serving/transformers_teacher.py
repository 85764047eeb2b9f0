"""A teacher on Transformers: one sequence at a time, plain and slow. The oracle that other engines are held against."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from cache.spec import SamplingSpec
from teacher_serving.capture_rows import place_rows, rows_from_topk
from teacher_serving.config import TeacherSettings
from teacher_serving.teacher import Generated, Scored


class TransformersTeacher:
    """Scores and generates with AutoModelForCausalLM."""

    def __init__(self, folder: str, teacher: TeacherSettings, k: int) -> None:
        from transformers import AutoModelForCausalLM

        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=teacher.dtype, trust_remote_code=teacher.trust_remote_code
        )
        self._model.to(self._device).eval()
        self._k = k
        end = self._model.generation_config.eos_token_id
        self._ends = set(end if isinstance(end, list) else [end])

    @torch.inference_mode()
    def score(self, sequences: Sequence[npt.NDArray[np.uint32]], first_rows: Sequence[int]) -> list[Scored]:
        scored = []
        for tokens, first_row in zip(sequences, first_rows, strict=True):
            token_logprobs = np.full(len(tokens), np.nan, np.float32)
            log_p = self._log_softmax(tokens)[first_row:-1]
            following = torch.from_numpy(tokens[first_row + 1 :].astype(np.int64))
            token_logprobs[first_row + 1 :] = log_p.gather(1, following[:, None])[:, 0].numpy()
            values, ids = log_p.topk(self._k, dim=-1)
            rows = rows_from_topk(ids.numpy(), values.numpy(), log_p.shape[1])
            scored.append(Scored(place_rows(rows, first_row, len(tokens)), token_logprobs))
        return scored

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[npt.NDArray[np.uint32]], seeds: Sequence[int], sampling: SamplingSpec
    ) -> list[Generated]:
        generated = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            torch.manual_seed(seed)
            drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
            ids = self._model.generate(
                torch.from_numpy(prompt.astype(np.int64))[None].to(self._device),
                max_new_tokens=sampling.max_tokens,
                repetition_penalty=1.0,
                **(drawn if sampling.temperature > 0 else {"do_sample": False}),
            )
            sequence = ids[0].cpu().numpy().astype(np.uint32)
            scored = self.score([sequence], [len(prompt) - 1])[0]
            rows = scored.targets.rows(len(prompt) - 1, len(sequence) - 1)
            own = scored.token_logprobs[len(prompt) :]
            generated.append(Generated(sequence[len(prompt) :], rows, own, int(sequence[-1]) in self._ends))
        return generated

    def _log_softmax(self, tokens: npt.NDArray[np.uint32]) -> torch.Tensor:
        """Float32 log-probabilities [n, vocabulary] on the CPU."""
        logits = self._model(torch.from_numpy(tokens.astype(np.int64))[None].to(self._device), use_cache=False).logits[
            0
        ]
        return torch.log_softmax(logits.float(), dim=-1).cpu()
