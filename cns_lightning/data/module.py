"""The data module: one stage at a time, encoded once, served as a pure function of stage, step and sample."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cns_lightning.data.augmentation import CLOSE_UP, FAR_AWAY, Augmentation, augment, latent_valid_region
from cns_lightning.data.decoded import DecodedPictures
from cns_lightning.data.images import read_captions, read_concept_pictures
from cns_lightning.data.masks import Masks, balanced_weights, latent_weights, masks_in_words
from cns_lightning.data.order import Key, StepSampler, sample_for
from cns_lightning.data.prior_pictures import PriorPictures
from cns_lightning.data.stage_latents import RunContext, StageLatents
from cns_lightning.determinism import integer, noise_for, normal, timestep_for
from cns_lightning.diffusion.sampling import check_steps
from cns_lightning.diffusion.text import reads_token
from cns_lightning.errors import Problems, UserError
from cns_lightning.ranges import Count, NonNegative, Positive
from cns_lightning.sequences.sequence import (
    AVIF_SUFFIXES,
    HEIF_SUFFIXES,
    TOKEN,
    Sequence,
    captions_beside,
    left_out,
    masks_beside,
    picture_files,
    sequence_path,
)
from cns_lightning.sequences.templates import PromptTemplates, check_templates, class_training_prompt, training_prompt
from cns_lightning.storage import read_bytes

if TYPE_CHECKING:
    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.sequences.sequence import Concept


def steps_of_stage(steps: int, steps_per_picture: int | None, concept: Concept) -> int:
    """Returns the optimizer steps of a stage; 0 if they follow from pictures that are gone.

    Args:
        steps: optimizer steps of a stage where they do not follow the pictures.
        steps_per_picture: in place of ``steps``; None leaves it at that.
        concept: concept of the stage, whose own steps come before either.

    Source: Mix-of-Show's published code; docs/methods.md 5.1.
    """
    if concept.settings.steps is not None:
        return concept.settings.steps
    if steps_per_picture is None:
        return steps
    return steps_per_picture * (len(picture_files(concept.images)) if concept.images.is_dir() else 0)


class ConceptDataModule(LightningDataModule):
    """Serves the pictures of the running stage's concept.

    Args:
        sequence: path of the sequence file; a bare name stands for one that ships.
        batch_size: pictures of one rank in one batch.
        steps: optimizer steps of every stage; a concept's own (settings in the sequence file) win.
        steps_per_picture: optimizer steps of a stage for each of its pictures, in place of ``steps``.
        augmentation: how pictures are varied.
        masks: how much of a picture counts where it has a mask.
        templates: prompts by kind of concept.
        prior: pictures of the class, for methods with prior preservation.
        noise_offset: deviation of a further noise that is the same all over a channel of a sample.
        seed: base random seed.
        captions: whether the caption beside a picture is its training prompt; False takes the template for all.
        timestep_power: 1 draws all timesteps alike often, of the concept's pictures and of those of its class; above,
            noisy ones more often, below, clean ones (`determinism.timestep_for`).

    Raises:
        UserError: if a template cannot be filled in.
    """

    def __init__(  # noqa: PLR0913 - they are YAML keys
        self,
        sequence: str,
        batch_size: Count = 4,
        steps: Count = 800,
        steps_per_picture: Count | None = None,
        augmentation: Augmentation = Augmentation(),  # noqa: B008 - frozen
        templates: PromptTemplates = PromptTemplates(),  # noqa: B008 - frozen
        prior: PriorPictures = PriorPictures(),  # noqa: B008 - frozen
        noise_offset: NonNegative = 0.0,
        seed: int = 0,
        masks: Masks = Masks(),  # noqa: B008 - frozen
        timestep_power: Positive = 1.0,
        captions: bool = True,
    ) -> None:
        super().__init__()
        check_templates(templates)
        self.path, self.batch_size, self.steps = sequence_path(sequence), batch_size, steps
        self.augmentation, self.templates, self.prior, self.seed = augmentation, templates, prior, seed
        self.noise_offset, self.steps_per_picture, self.masks = noise_offset, steps_per_picture, masks
        self.timestep_power, self.captions = timestep_power, captions
        self.stage_steps: dict[int, int] = {}
        self.prepared: dict[int, StageLatents] = {}
        self._context: RunContext | None = None
        self.checksums: dict[int, str] = {}
        self.decoded = DecodedPictures()
        self.learned: tuple[str, ...] = ()

    def connect(self, context: RunContext) -> None:
        """Takes what the run gives; called once, when the base model is loaded."""
        self._context = context

    @property
    def context(self) -> RunContext:
        """What the run has given."""
        if self._context is None:
            raise RuntimeError("the data module is not connected to a run yet: its base model is not loaded")
        return self._context

    @cached_property
    def sequence(self) -> Sequence:
        """Reads the sequence file at first use; the pictures of learned concepts may be gone."""
        return Sequence.read(self.path, self.learned)

    def check_pictures(self) -> list[str]:
        """Reads every picture of the sequence once, so that a bad one stops the run before any long work.

        Returns:
            A sentence for every folder that holds masks, or what is not read.

        Raises:
            UserError: listing every picture, caption and mask that cannot be used.
        """
        concepts = [concept for concept in self.sequence.concepts if concept.token not in self.learned]
        said: list[str] = []
        for concept in concepts:
            pictures = read_concept_pictures(concept, self.decoded.keep, self.masks.of, self.captions)
            said += masks_in_words(concept.images, [picture.mask is not None for picture in pictures], self.masks)
        folders = dict.fromkeys(concept.images for concept in concepts)
        left = [f"{folder}: left out {beside}" for folder in folders if (beside := left_out(folder))]
        return [*dict.fromkeys(said), *left]

    def steps_of(self, stage: int) -> int:
        """Returns the optimizer steps of a stage; of a learned concept whose pictures are gone, those that it took."""
        if stage not in self.stage_steps:
            (running, step), concept = self.context.position(), self.sequence.concepts[stage]
            asked = steps_of_stage(self.steps, self.steps_per_picture, concept) or step
            if stage != running:
                return asked  # before it begins pictures may still be added
            self.stage_steps = {stage: asked}
        return self.stage_steps[stage]

    def check_whole(self, stage: int, steps: int) -> None:
        """Refuses to let a concept count as learned whose stage was ended early, by a callback for example.

        Args:
            stage: position of the concept in the sequence, from 0.
            steps: optimizer steps that were taken.

        Raises:
            UserError: if they are not those of a whole stage.
        """
        if steps != self.steps_of(stage):
            token = self.sequence.concepts[stage].token
            problem = f"something ended the stage of {token} after {steps} of {self.steps_of(stage)} steps"
            remedy = "Take out what stops a training early, and run the same command again; --steps sets the length"
            raise UserError("trainer", problem, remedy)

    def check_against(self, base: BaseModel, first: int) -> None:
        """Refuses what does not fit the base model.

        That is a caption, or a concept's own prompt, whose token stands behind what the text encoder reads, since it
        would never be trained, and more steps for pictures of the class than the sampler has.

        Args:
            base: the base model.
            first: stage that is learned next.

        Raises:
            UserError: listing every such caption and prompt, or for the steps.
        """
        if self.prior.pictures:
            check_steps(base.noise_scheduler, self.prior.steps, "data.prior.steps")
        problems = Problems()
        prefixes = ("", *FAR_AWAY, *CLOSE_UP) if self.augmentation.prefixes else ("",)
        for concept in self.sequence.concepts[first:]:
            captions = read_captions(concept) if self.captions else {}
            told = {str(captions_beside(path)[0]): caption for path, caption in captions.items()}
            own = {f"{self.path}: settings.prompt of {concept.token}": None} if concept.settings.prompt else {}
            for where, caption in {**own, **told}.items():
                prompts = [training_prompt(concept, self.templates, prefix, caption) for prefix in prefixes]
                if not all(reads_token(base, prompt, concept.token) for prompt in prompts):
                    problem = f"is so long that {concept.token} stands behind what the text encoder reads"
                    problems.add(where, problem, f"Put {concept.token} further in front")
        problems.raise_if_any()

    def prompt_of(self, concept: Concept, prefix: str = "", caption: str | None = None) -> str:
        """Returns the training prompt of a picture in the words of the method; see `training_prompt`."""
        return training_prompt(concept, self.templates, prefix, caption, self.context.names_class_word)

    def sample_prompts(self, concept: Concept) -> list[str]:
        """Returns the prompts with which samples of a concept are drawn, in turn.

        That is its training prompt; for a style without a prompt of its own the evaluation prompts that name it alone,
        where there are any: a style shows in what it makes of things, and its template names none.
        """
        asked = [text for text in self.sequence.prompts.single if {*TOKEN.findall(text)} == {concept.token}]
        if concept.kind != "style" or concept.settings.prompt or not asked:
            return [self.prompt_of(concept)]
        return asked

    def picture_checksum(self, stage: int) -> str:
        """Computes the SHA-256 over the files of a stage's pictures, captions and masks, in order; once a stage."""
        if stage not in self.checksums:
            digest = hashlib.sha256()
            for path in picture_files(self.sequence.concepts[stage].images):
                captions = captions_beside(path) if self.captions else ()
                files = (path, *captions, *masks_beside(path))
                digest.update(b"".join(read_bytes(each) for each in files))
                if self.masks.takes_alpha_of(path):  # versions that knew no masks did not
                    digest.update(b"alpha")
            self.checksums = {stage: digest.hexdigest()}
        return self.checksums[stage]

    def check_pictures_of(self, stage: int, checksum: str | None, step: int) -> None:
        """Refuses to go on with a stage whose pictures, captions or masks are others than when it began.

        Args:
            stage: stage that is continued.
            checksum: checksum of its pictures when its state was saved; None in states that do not have it.
            step: optimizer step that the stage had reached.

        Raises:
            UserError: if they have changed.
        """
        concept = self.sequence.concepts[stage]
        if checksum and checksum != self.picture_checksum(stage):
            began = f"{concept.token} began (now at step {step})"
            problem = f"holds other pictures, captions or masks than when the stage of {began}"
            if any(path.suffix.lower() in HEIF_SUFFIXES + AVIF_SUFFIXES for path in concept.images.iterdir()):
                problem += "; its HEIC and AVIF files count only where pillow-heif and Pillow read them"
            remedy = "Put them back as they were, or take another --run folder"
            if stage:
                previous = self.sequence.concepts[stage - 1].token
                remedy = f"Put them back as they were, or learn it anew after concepts --rollback {previous}"
            raise UserError(str(concept.images), problem, remedy)

    def prepare(self, stage: int) -> None:
        """Encodes the pictures of a stage and forgets those of other stages; all ranks must call it.

        Raises:
            UserError: if a picture, or the file of the pictures of the class, cannot be used or written.
        """
        if stage not in self.prepared:
            self.prepared = {stage: self._encoded(stage)}

    def noise(self, shape: torch.Size, stage: int, step: int, sample: int) -> Tensor:
        """Draws the noise of one sample of a step, shape (channels, height, width)."""
        noise = noise_for(shape, self.seed, stage, step, sample)
        if not self.noise_offset:
            return noise
        return noise + self.noise_offset * normal((shape[0], 1, 1), self.seed, "noise_offset", stage, step, sample)

    def timestep(self, stage: int, step: int, sample: int) -> int:
        """Draws the timestep of one sample of a step."""
        return timestep_for(self.context.timesteps, self.timestep_power, self.seed, "timestep", stage, step, sample)

    def describe_sample(self, stage: int, step: int, sample: int) -> str:
        """Names picture and timestep of one sample of a step, for messages."""
        encoded = self.prepared[stage]
        pictures, variants = encoded.latents.shape[:2]
        picture, _ = sample_for(self.seed, stage, step, sample, pictures, variants, self.samples_per_step)
        timestep = self.timestep(stage, step, sample)
        return f"{encoded.paths[picture]}, timestep {timestep}"

    @property
    def samples_per_step(self) -> int:
        """Samples of an optimizer step, over all ranks and accumulated batches."""
        return self.batch_size * self.context.ranks * self.context.accumulate

    def _encoded(self, stage: int) -> StageLatents:
        self.picture_checksum(stage)  # of what is encoded now, not of what lies there when the state is saved
        concept, context = self.sequence.concepts[stage], self.context
        resize = self.augmentation.resize and (concept.kind != "style" or self.augmentation.style_resize)
        latents, valid, weights, prompts = [], [], [], []
        pictures = read_concept_pictures(concept, self.decoded.take, self.masks.of, self.captions)
        for number, picture in enumerate(pictures):
            variants = [
                augment(
                    picture.image,
                    context.resolution,
                    self.augmentation,
                    self.seed,
                    stage,
                    number,
                    variant,
                    resize=resize,
                    mask=picture.mask,
                )
                for variant in range(self.augmentation.variants)
            ]
            # One at a time: a batch of augmented photos through the autoencoder is the peak of memory of a whole run.
            latents.append(torch.cat([context.encode(variant.pixels[None]) for variant in variants]))
            valid.append(
                torch.stack([latent_valid_region(variant.valid, context.latent_scale) for variant in variants])
            )
            weights.append(
                torch.stack([latent_weights(variant, context.latent_scale, self.masks.outside) for variant in variants])
            )
            prompts.append([self.prompt_of(concept, variant.prefix, picture.caption) for variant in variants])
        prior = None
        if self.prior.pictures and context.class_latents is not None:
            prior = context.class_latents(concept)
        prior_prompt, paths = class_training_prompt(concept, self.templates), [picture.path for picture in pictures]
        balanced, cells = None, torch.stack(valid)
        if any(picture.mask is not None for picture in pictures):
            balanced = balanced_weights(torch.stack(weights), cells)
        return StageLatents(torch.stack(latents), cells, prompts, paths, prior, prior_prompt, balanced)

    def train_dataloader(self) -> DataLoader:
        """Returns the loader of the stage that the trainer is in, from the step at which the module stands.

        Called before the stage starts, and once more for a stage that is over when a run is continued: nothing is read
        before the first sample is asked for.
        """
        context = self.context
        stage = min(context.next_stage(), len(self.sequence.concepts) - 1)
        running, step = context.position()
        start = step if running == stage else 0
        sampler = StepSampler(
            stage, start, self.steps_of(stage), self.batch_size, context.rank, context.ranks, context.accumulate
        )
        # Pinned, so that the host need not wait while a batch is on its way to a GPU.
        return DataLoader(StageDataset(self), batch_sampler=sampler, pin_memory=context.is_pinned)  # type: ignore[arg-type]


class StageDataset(Dataset):
    """Samples by (stage, step, sample).

    Args:
        data: data module, in which the stage is prepared.
    """

    def __init__(self, data: ConceptDataModule) -> None:
        self.data = data

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """Returns latents, valid region, noise, timestep and prompt of a sample; weights where a picture has a mask."""
        stage, step, sample = key
        data = self.data
        encoded = data.prepared[stage]
        pictures, variants = encoded.latents.shape[:2]
        picture, variant = sample_for(data.seed, stage, step, sample, pictures, variants, data.samples_per_step)
        latents, timesteps = encoded.latents[picture, variant], data.context.timesteps
        given = {
            "latents": latents,
            "valid_region": encoded.valid[picture, variant],
            "noise": data.noise(latents.shape, stage, step, sample),
            "timestep": data.timestep(stage, step, sample),
            "prompt": encoded.prompts[picture][variant],
        }
        if encoded.weights is not None:
            given["weights"] = encoded.weights[picture, variant]
        if encoded.prior is None:
            return given
        place = (data.seed, "prior", stage, step, sample)
        return given | {
            "prior_latents": encoded.prior[integer(len(encoded.prior), *place)],
            "prior_noise": normal(latents.shape, *place, "noise"),
            "prior_timestep": timestep_for(timesteps, data.timestep_power, *place, "timestep"),
            "prior_prompt": encoded.prior_prompt,
        }
