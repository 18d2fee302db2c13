"""Links of the playground: another browser shows the same text, or says what differs."""

import pytest
from browser import HOSTILE
from playground import (
    PROMPT,
    SEED,
    choose,
    click,
    content_of,
    fill,
    finish,
    link_of,
    link_with,
    needs_browser,
    open_page,
    read,
    wait,
    write,
)

pytestmark = needs_browser
OTHERS = {
    **{"top_k": 0, "top_p": 0.9, "min_p": 0.001, "repetition_penalty": 1.2, "typical_p": 0.95},
    **{"epsilon_cutoff": 0.0001, "eta_cutoff": 0.0002},
    **{"presence_penalty": 0.1, "frequency_penalty": -0.1, "no_repeat_ngram_size": 5, "dry_multiplier": 0.8},
}


def test_a_link_gives_the_same_text_in_another_browser(window, other_window, url):
    open_page(window, url)
    write(window, "Café 😀 \u2028 and", seed="", temperature=1.3, **OTHERS)
    choose(window, 14, 2)
    click(window, "#continue")
    finish(window)
    text = choose(window, 30, 4)
    link = link_of(window)
    assert len({step["settings"]["seed"] for step in content_of(link)["steps"]}) == 4  # each had its own
    assert "every machine with FMA" in read(window, "link-panel")
    assert content_of(link)["fingerprint"] in read(window, "link-fingerprint")

    open_page(other_window, link)
    wait(other_window, "document.getElementById('status').textContent.startsWith('This is the text of the link')")
    assert finish(other_window) == text
    assert link_of(other_window) == link
    assert other_window.run("document.getElementById('warning').hidden")
    for name, value in {"temperature": 1.3, **OTHERS}.items():
        assert other_window.run(f"document.getElementById({name!r}).valueAsNumber") == value
    assert other_window.run("document.getElementById('more-settings').open")
    assert other_window.run("document.getElementById('prompt').value") == "Café 😀 \u2028 and"
    assert other_window.console() == []


def test_a_link_of_another_model_is_warned_of(window, url):
    open_page(window, url)
    text = write(window)
    link = link_of(window)
    open_page(window, link_with(link, fingerprint="nbgpt-0", model=HOSTILE, checksum=1))
    wait(window, "document.getElementById('warning').textContent.includes('differs')")
    assert "nbgpt-0" in read(window, "warning")
    assert HOSTILE.split("\0")[0] in read(window, "warning")
    assert finish(window) == text
    assert window.run("window.broken") is None
    assert window.console() == []


@pytest.mark.parametrize("change", [{"steps": []}, {"prompt": 3}, {"version": 0}, {"steps": [{"at": 0}]}])
def test_a_damaged_link_is_told(window, url, change):
    open_page(window, url)
    write(window, max_tokens=1)
    link = link_of(window)
    for damaged in (link_with(link, **change), link[:-9], f"{url}/#%"):
        open_page(window, damaged)
        wait(window, "document.getElementById('error').textContent === 'this link is damaged: it holds no text'")
        assert window.run("document.getElementById('text').hidden")
    assert window.console() == []


def test_a_stopped_text_has_a_link_too(window, other_window, url):
    open_page(window, url)
    fill(window, prompt=PROMPT, max_tokens=1000, seed=SEED)
    click(window, "#write")
    wait(window, "document.querySelectorAll('#text span').length > 12")
    click(window, "#stop")
    text = finish(window)
    assert read(window, "status").startswith(
        f"Wrote {content_of(link_of(window))['steps'][0]['settings']['max_tokens']} "
    )
    assert "then stopped" in read(window, "status")
    open_page(other_window, link_of(window))
    wait(other_window, "document.getElementById('status').textContent.startsWith('This is the text of the link')")
    assert finish(other_window) == text
    assert window.console() == []
