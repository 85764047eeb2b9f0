"""Rendering: an Example and a tokenizer become token ids and their segments.

    render            render, render_prompt: the way in
    prompt_form       PromptForm: variables and date of the chat template, and whether an encoder reads the prompt
    chat_template     the text of a chat; refuses what the template leaves out
    assistant_turns   where the turns of the assistant are in that text
    chat_layout       where the words of the last turn are
    encoding          texts to token ids with offsets
    end_of_turn       the token that ends a response

It knows nothing of targets, files of a store, or models.
"""

from cache.rendering.prompt_form import PromptForm
from cache.rendering.render import render, render_prompt

__all__ = ["PromptForm", "render", "render_prompt"]
