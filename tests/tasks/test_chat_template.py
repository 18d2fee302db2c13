"""The transcript, and a template of a fine-tune's."""

import pytest

from nbgpt.tasks.chat_template import PLAIN, load_template

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "She."},
    {"role": "user", "content": "Why?"},
]


def test_a_transcript():
    assert load_template("plain") is PLAIN
    assert PLAIN.prompt(MESSAGES) == "system: Be brief.\nuser: Who?\nassistant: She.\nuser: Why?\nassistant:"
    assert PLAIN.stops == ("\nuser:", "\nsystem:", "\nassistant:")


def test_a_file(tmp_path):
    file = tmp_path / "chatml.jinja"
    file.write_text(
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    template = load_template(str(file))
    assert template.prompt(MESSAGES[1:]) == "<|user|>Who?<|assistant|>She.<|user|>Why?<|assistant|>"
    assert template.stops == ()


def test_what_a_template_refuses(tmp_path):
    file = tmp_path / "strict.jinja"
    file.write_text("{% if messages[0].role == 'system' %}{{ raise_exception('no system message') }}{% endif %}")
    with pytest.raises(ValueError, match=r"^chat template: no system message$"):
        load_template(str(file)).prompt(MESSAGES)
