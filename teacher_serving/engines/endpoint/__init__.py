"""The endpoint engine: a teacher behind an API (vLLM's server, OpenAI's chat completions, Anthropic's messages).

In: token ids or chat turns (Request). Out: what the service provides: vLLM's server scores and generates with token
ids; the other APIs generate text, with up to 20 log-probabilities a token if they offer them. One refused request
does not affect the others. API keys come from environment variables and never appear in logs, stores or errors.
To add an API, add a class with `check`, `score` and `generate` (chat.py is the base of chat APIs), and its name in
settings.py and teacher.py.
"""

from teacher_serving.engines.endpoint.engine import EndpointEngine
from teacher_serving.engines.endpoint.settings import EndpointEngineSettings, EndpointSettings

ENGINE = EndpointEngine()

__all__ = ["ENGINE", "EndpointEngine", "EndpointEngineSettings", "EndpointSettings"]
