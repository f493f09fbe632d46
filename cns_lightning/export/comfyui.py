"""``comfyui``: a workflow that draws a prompt, and boxes with prompts of their own, with the files of ``webui``.

The file has the format of ComfyUI's API: nodes by id, which its page opens as well. A box becomes an area with a
prompt of its own, beside the prompt of the whole picture.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cns_lightning.diffusion.regions import read_regions
from cns_lightning.diffusion.sampling import check_steps
from cns_lightning.drawing.request import usual_sampling
from cns_lightning.errors import UserError
from cns_lightning.export.family import VELOCITY
from cns_lightning.export.tokens import token_stems
from cns_lightning.sequences.sequence import TOKEN
from cns_lightning.storage import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cns_lightning.diffusion.regions import Region
    from cns_lightning.drawing.request import DrawingRequest
    from cns_lightning.export.learned import Learned, LearnedModel
    from cns_lightning.export.package import Say

FORMAT = "comfyui"
SAMPLERS = {
    "DDIMScheduler": ("ddim", "ddim_uniform"),
    "EulerAncestralDiscreteScheduler": ("euler_ancestral", "normal"),
    "DPMSolverMultistepScheduler": ("dpmpp_2m", "normal"),
    "UniPCMultistepScheduler": ("uni_pc", "normal"),
    "LMSDiscreteScheduler": ("lms", "normal"),
    "HeunDiscreteScheduler": ("heun", "normal"),
}
"""Sampler and schedule for a scheduler of diffusers; Euler for those that ComfyUI does not have."""
EULER = ("euler", "normal")
Link = list[Any]
"""Output of a node: its id, and the number of the output."""


@dataclass(frozen=True)
class WorkflowOptions:
    """What a user may choose.

    Attributes:
        out: the file.
        name: name of the weight files, as ``webui`` writes them.
        request: what to draw, as ``generate`` takes it; a sampler has one seed for all pictures of a prompt.
        per_concept: load a weight file a concept.
    """

    out: Path
    name: str
    request: DrawingRequest
    per_concept: bool = False


@dataclass
class Workflow:
    """Nodes by id, in the format of ComfyUI's API."""

    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, kind: str, title: str, **inputs: Any) -> str:
        """Adds a node and returns its id.

        Args:
            kind: class of the node.
            title: what the page calls it.
            **inputs: values, or outputs of other nodes.
        """
        number = str(len(self.nodes) + 1)
        self.nodes[number] = {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}
        return number


def check_file(out: Path) -> None:
    """Refuses a name that no workflow can have, and the place of another file.

    Raises:
        UserError: if it does not end in .json, is a folder, or holds something else than a workflow.
    """
    if out.suffix.lower() != ".json":
        raise UserError("--out", f"{out} does not end in .json", "Give a name such as workflow.json")
    if out.is_dir():
        raise UserError("--out", f"{out} is a folder", "Give a name such as workflow.json")
    if out.exists() and not _is_workflow(out):
        raise UserError("--out", f"{out} exists and is not a workflow", "Give another name")


def _is_workflow(path: Path) -> bool:
    try:
        content = read_json(path)
    except UserError:
        return False
    nodes = list(content.values()) if isinstance(content, dict) else []
    return bool(nodes) and all(isinstance(node, dict) and "class_type" in node for node in nodes)


def check_asked(learned: Learned, request: DrawingRequest) -> None:
    """Refuses what `generate` would, such as tokens that are not exported: ComfyUI would read them as plain letters.

    Raises:
        UserError: if there is no prompt; or naming every such token.
    """
    if not request.prompts:
        raise UserError("--prompt", "is missing, and a workflow draws one", 'Give one, such as "a photo of <new1> cat"')
    tokens = learned.registry.tokens
    replace(request, upto=learned.last if learned.last != tokens[-1] else None).check(learned.registry)


def export_comfyui(learned: Learned, options: WorkflowOptions, base_model: str | None, say: Say) -> list[str]:
    """Writes a workflow.

    Args:
        learned: the exported concepts.
        options: what the user chose.
        base_model: where the base model is now; None where the run had it.
        say: tells how things stand.

    Returns:
        Lines for the user, the next step last.

    Raises:
        UserError: if a prompt names an unknown token, concepts have no part of their own, or the file cannot be
            written.
    """
    check_file(options.out)
    check_asked(learned, options.request)
    if options.per_concept:
        learned.check_adds_up("--per-concept")
    model = learned.load(base_model)
    if options.request.steps is not None:
        check_steps(model.base.scheduler, options.request.steps, "--steps")
    stems = token_stems([each.token for each in learned.concepts], model.base.tokenizers[0])
    say(f"writing {options.out}")
    was_there = options.out.exists()
    write_json(options.out, workflow(model, options, stems).nodes)
    files = [f"{name}.safetensors in models/loras" for name in network_names(learned, options, stems)]
    files.append(f"{', '.join(f'{stem}.safetensors' for stem in stems.values())} in models/embeddings")
    files = [f"{each.name} in models/loras (part of the base model)" for each in model.base.origin.loras] + files
    parts = " --per-concept" if options.per_concept else ""
    return [
        f"{'replaced' if was_there else 'wrote'} {options.out}",
        f"needs {' and '.join(files)}: export --format webui{parts} --name {options.name} writes them",
        f"next: drop {options.out} onto the page of ComfyUI, choose the base model {model.base_name} in the first "
        "node, and queue it",
    ]


def network_names(learned: Learned, options: WorkflowOptions, stems: Mapping[str, str]) -> list[str]:
    """Returns the names of the weight files, without ending, as ``webui`` writes them."""
    if not learned.moves_weights:
        return []
    if not options.per_concept:
        return [options.name]
    return [f"{options.name}-{stems[each.token]}" for each in learned.concepts if each.moves_weights]


def workflow(model: LearnedModel, options: WorkflowOptions, stems: Mapping[str, str]) -> Workflow:
    """Builds the nodes: base model, weight files, prompts and boxes, sampler, pictures.

    Args:
        model: what was learned.
        options: what the user chose.
        stems: how ComfyUI calls the tokens, by token.
    """
    flow = Workflow()
    file = (
        model.base_name
        if model.base_name.endswith(".safetensors")
        else f"{model.base_name.replace('/', '-')}.safetensors"
    )
    checkpoint = flow.add("CheckpointLoaderSimple", f"base model: {model.base_name}", ckpt_name=file)
    unet: Link = [checkpoint, 0]
    clip: Link = [checkpoint, 1]
    for lora in model.base.origin.loras:
        both = {"strength_model": lora.strength, "strength_clip": lora.strength}
        node = flow.add("LoraLoader", f"base model: {lora.name}", model=unet, clip=clip, lora_name=lora.name, **both)
        unet, clip = [node, 0], [node, 1]
    for name in network_names(model.learned, options, stems):
        node = flow.add("LoraLoaderModelOnly", name, model=unet, lora_name=f"{name}.safetensors", strength_model=1.0)
        unet = [node, 0]
    scheduler = model.base.scheduler
    if model.family.prediction == VELOCITY:
        zero = bool(scheduler.config.get("rescale_betas_zero_snr", False))
        node = flow.add("ModelSamplingDiscrete", "predicts v", model=unet, sampling=VELOCITY, zsnr=zero)
        unet = [node, 0]
    texts, request = _Texts(flow, clip, stems), options.request
    regions = read_regions(request.regions)
    positive_boxes = [texts.box(region, region.prompt) for region in regions]
    negative = texts.whole(request.negative_prompt, "negative prompt")
    for region in regions:
        if region.negative_prompt:
            negative = texts.combined(negative, texts.box(region, region.negative_prompt))
    side = model.base.resolution
    empty = flow.add("EmptyLatentImage", "size", width=side, height=side, batch_size=request.pictures)
    steps, guidance = usual_sampling(model.learned.folder)
    sampler, schedule = SAMPLERS.get(type(scheduler).__name__, EULER)
    if scheduler.config.get("use_karras_sigmas"):
        schedule = "karras"
    for prompt in request.prompts:
        positive = texts.whole(prompt, "prompt")
        for box in positive_boxes:
            positive = texts.combined(positive, box)
        drawn = flow.add(
            "KSampler",
            "sampler",
            model=unet,
            positive=positive,
            negative=negative,
            latent_image=[empty, 0],
            seed=request.seed,
            steps=request.steps or steps,
            cfg=guidance if request.guidance is None else request.guidance,
            sampler_name=sampler,
            scheduler=schedule,
            denoise=1.0,
        )
        decoded = flow.add("VAEDecode", "to pixels", samples=[drawn, 0], vae=[checkpoint, 2])
        flow.add("SaveImage", "pictures", images=[decoded, 0], filename_prefix=options.name)
    return flow


@dataclass
class _Texts:
    flow: Workflow
    clip: Link
    stems: Mapping[str, str]

    def whole(self, prompt: str, title: str) -> Link:
        text = in_comfyui(prompt, self.stems)
        return [self.flow.add("CLIPTextEncode", title, text=text, clip=self.clip), 0]

    def box(self, region: Region, prompt: str) -> Link:
        left, top, right, bottom = region.box
        area = self.flow.add(
            "ConditioningSetAreaPercentage",
            f"box {left:g},{top:g},{right:g},{bottom:g}",
            conditioning=self.whole(prompt, "prompt of a box"),
            width=round(right - left, 6),
            height=round(bottom - top, 6),
            x=left,
            y=top,
            strength=1.0,
        )
        return [area, 0]

    def combined(self, one: Link, other: Link) -> Link:
        return [self.flow.add("ConditioningCombine", "both", conditioning_1=one, conditioning_2=other), 0]


def in_comfyui(prompt: str, stems: Mapping[str, str]) -> str:
    """Writes a prompt as ComfyUI reads it: a token by its file, free of punctuation, and brackets as plain letters.

    Args:
        prompt: a prompt as `generate` reads it.
        stems: names of the tokens' files, by token.
    """
    lowered = {token.lower(): stem for token, stem in stems.items()}
    plain = re.sub(r"([()])", r"\\\1", prompt)

    def named(match: re.Match[str]) -> str:
        stem = lowered.get(match[0].lower())
        return match[0] if stem is None else f" embedding:{stem} "

    return re.sub(r" {2,}", " ", TOKEN.sub(named, plain)).strip()
