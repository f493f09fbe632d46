"""The page: concepts on top, below them prompt, settings and boxes, and the pictures with their command line."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import gradio
from fastapi import FastAPI

from cns_lightning.drawing.request import usual_sampling
from cns_lightning.report.facts import data_url
from cns_lightning.ui.form import LARGEST_STRENGTH, MOST_PICTURES, Form

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cns_lightning.ui.studio import Drawn, Studio

PICTURES = 4
"""Pictures drawn at first."""
BACKGROUND = 384
"""Width of the picture under the boxes, in pixels."""
SMALL = 256
"""Pictures of fewer pixels a side are enlarged pixel by pixel."""
CONCEPTS = '<div class="cns-stages"></div><div class="cns-cards"></div>'
BOXES = (
    '<div class="cns-title">Boxes with prompts of their own</div><div class="cns-canvas"></div>'
    '<div class="cns-rows"></div><button class="cns-add" type="button">Add a box</button>'
)


def application(studio: Studio) -> FastAPI:
    """Returns the page as a web application that asks nothing of the network."""
    return gradio.mount_gradio_app(
        FastAPI(openapi_url=None),
        page(studio),
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        # Fonts that every system has; those of gradio's themes may come from elsewhere.
        theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]).set(
            body_text_color_subdued="*neutral_600",
            body_text_color_subdued_dark="*neutral_300",
            block_info_text_color="*neutral_600",
            block_info_text_color_dark="*neutral_300",
        ),
        css=_asset("page.css"),
    )


def page(studio: Studio) -> gradio.Blocks:
    """Builds the page.

    Args:
        studio: draws; its concepts are shown.

    Raises:
        UserError: if the run's configuration is damaged.
    """
    registry, folder = studio.model.registry, studio.model.folder
    steps, guidance = usual_sampling(folder)
    resolution = studio.model.base.resolution
    with gradio.Blocks(title=f"{folder.path.name}: cns-lightning", analytics_enabled=False) as blocks:
        gradio.HTML(_heading(studio), padding=False)
        concepts = gradio.HTML(
            {"stage": len(studio.cards), "strengths": [1] * len(studio.cards)},
            html_template=CONCEPTS,
            js_on_load=_asset("concepts.js"),
            apply_default_css=False,
            elem_id="concepts",
            cards=[card.plain() for card in studio.cards],
            largest=LARGEST_STRENGTH,
        )
        with gradio.Row(elem_id="layout"):
            with gradio.Column(elem_id="asked"):
                prompt = gradio.Textbox(
                    registry.entries[-1].prompt if registry.entries else "",
                    label="Prompt",
                    info="Click a concept above to put its token here" if studio.cards else None,
                    lines=2,
                    elem_id="prompt",
                )
                negative = gradio.Textbox(
                    label="Negative prompt", info="What to keep out of the pictures", lines=1, elem_id="negative-prompt"
                )
                with gradio.Row(elem_id="numbers"):
                    seed = gradio.Textbox("0", label="Seed", min_width=70, max_lines=1, elem_id="seed")
                    pictures = gradio.Number(PICTURES, label="Pictures", min_width=70, elem_id="pictures")
                    sampler_steps = gradio.Number(steps, label="Steps", min_width=70, elem_id="steps")
                    scale = gradio.Number(guidance, label="Guidance", min_width=70, elem_id="guidance")
                with gradio.Row(elem_id="buttons"):
                    draw = gradio.Button("Draw", variant="primary", elem_id="draw", scale=3)
                    others = gradio.Button("Next seeds", elem_id="next", scale=1, min_width=100)
            with gradio.Column(elem_id="answer"):
                said = gradio.HTML("", elem_id="said", padding=False)
                gallery = gradio.Gallery(
                    label="Pictures",
                    format="png",
                    columns=2,
                    object_fit="contain",
                    height="auto",
                    interactive=False,
                    elem_id="drawn",
                    elem_classes=["cns-pixels"] if resolution < SMALL else None,
                    buttons=["download", "fullscreen"],
                )
                command = gradio.Textbox(
                    label="The same on the command line",
                    lines=2,
                    interactive=False,
                    buttons=["copy"],
                    elem_id="command",
                )
            with gradio.Column(elem_id="places"):
                boxes = gradio.HTML(
                    [],
                    html_template=BOXES,
                    js_on_load=_asset("boxes.js"),
                    apply_default_css=False,
                    elem_id="boxes",
                    picture="",
                )
        inputs = [prompt, negative, concepts, boxes, seed, pictures, sampler_steps, scale]
        outputs = [gallery, command, said, boxes]
        # One drawing at a time: the model has one stage and one set of strengths.
        settings: dict[str, Any] = {
            "concurrency_limit": 1,
            "concurrency_id": "draw",
            "show_progress_on": gallery,
            "api_visibility": "private",
        }
        gradio.on([draw.click, prompt.submit, negative.submit], _draw(studio), inputs, outputs, **settings)
        others.click(next_seeds, [seed, pictures], seed, show_progress="hidden", api_visibility="private").success(
            _draw(studio), inputs, outputs, **settings
        )
    return blocks


def _draw(studio: Studio) -> Callable[..., tuple[Any, ...]]:
    """Returns the function that the button calls, with the values of the fields in the order of `Form`."""

    def draw(*values: Any) -> tuple[Any, ...]:
        drawn = studio.draw(Form(*values))
        if drawn.problems:
            # What was drawn before stays, with its command.
            return gradio.skip(), gradio.skip(), messages(drawn), gradio.skip()
        pictures = [(picture, f"seed {seed}") for picture, seed in drawn.pictures]
        under = data_url(drawn.pictures[0][0], BACKGROUND)
        columns = 1 if len(pictures) == 1 else 2 if len(pictures) <= 4 else 4
        shown = gradio.update(value=pictures, columns=columns)
        return shown, drawn.command, messages(drawn), gradio.update(picture=under)

    return draw


def next_seeds(seed: Any, pictures: Any) -> str:
    """Returns the first seed behind those of the pictures; the seed itself where they are not whole numbers."""
    try:
        return str(int(seed) + max(1, min(int(pictures), MOST_PICTURES)))
    except (TypeError, ValueError, OverflowError):
        return str(seed)


def messages(drawn: Drawn) -> str:
    """Returns problems and notes as the page shows them."""
    return _list(drawn.problems, "cns-problem", "alert") + _list(drawn.notes, "cns-note", "status")


def _list(sentences: Sequence[str], name: str, role: str) -> str:
    if not sentences:
        return ""
    return f'<div class="{name}" role="{role}">' + "".join(f"<p>{escape(each)}</p>" for each in sentences) + "</div>"


def _heading(studio: Studio) -> str:
    name, count = studio.model.folder.path.resolve().name, len(studio.cards)
    learned = f"{count} {'concept' if count == 1 else 'concepts'}" if count else "no concept yet"
    base = escape(studio.model.registry.base_model)
    return f'<header class="cns-heading"><h1>{escape(name)}</h1><p>{learned} on {base}</p></header>'


def _asset(name: str) -> str:
    return (files("cns_lightning.ui") / name).read_text("utf-8")
