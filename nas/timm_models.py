"""The networks as models of timm: `import nas.timm_models`, then `timm.create_model("as_mlp_t")`, with timm's own scripts too.

Every published network is registered under its name, and `hybrid_nas`, which takes `weights` (a file or a run) or `architecture` (a file):

    timm.create_model("hybrid_nas", weights="runs/<run>/weights.safetensors", num_classes=5)

State dicts are those of `Network`, so weights files are checkpoints for timm, and its checkpoints are weights of `Network`.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, is_model, model_entrypoint, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from nas.networks.architecture import Architecture, Frame, read_architecture
from nas.networks.layers import BlockSpecs, Outline, run
from nas.networks.network import Network, attached
from nas.networks.preprocessing import Preprocessing
from nas.networks.trained import begin_with, load_network
from nas.published.import_weights import usual_preprocessing
from nas.published.presets import Preset, architecture_file, read_presets
from nas.runs.folder import weights_file

__all__ = ["TimmNetwork", "hybrid_nas"]  # timm adds the names of what is registered


class TimmNetwork(Network):
    """A network with the methods that timm asks its models for. Features are [B, H, W, C], after the last norm; those of stages before it.

    Args:
        architecture: what to build.
        num_classes: None as in its frame; 0 for features [B, num_features].
        in_chans: channels of the images, None as in its frame.
        img_size: side of the images, None as in its frame.
        drop_rate: dropout before the classifier.
        drop_path_rate: as `drop_path` of `Network`.
        global_pool: "avg", or "" for tokens instead of their mean.
    """

    head: Any
    stages: Any

    def __init__(
        self,
        architecture: Architecture,
        num_classes: int | None = None,
        in_chans: int | None = None,
        img_size: int | tuple[int, int] | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        usual = architecture.frame
        sides = {img_size} if isinstance(img_size, int) else set(img_size or [usual.resolution])
        if len(sides) != 1:
            raise ValueError(f"img_size: a network takes square images: got {img_size}; accepted: one side.")
        frame = Frame(sides.pop(), in_chans or usual.channels, num_classes or usual.classes)
        super().__init__(architecture.at(frame), drop_path_rate)
        self.num_features = self.head_hidden_size = architecture.stages[-1].width
        self.drop_rate, self.grad_checkpointing = drop_rate, False
        self.stage_layers = _by_stage(self.outline)
        self.feature_info = [
            {"num_chs": stage.width, "reduction": architecture.patch * 2**i, "module": f"stages.{i}"}
            for i, stage in enumerate(architecture.stages)
        ]
        self.num_classes, self.global_pool = frame.classes, _pool(global_pool)
        if num_classes == 0:
            self.reset_classifier(0)

    def forward_features(self, images_BCHW: Tensor) -> Tensor:
        """Tokens of the last stage after the last norm."""
        x = images_BCHW
        for layers in (self.outline[:1], *self.stage_layers):
            x = self._run(layers, x)
        return self.head.norm(x)

    def forward_head(self, x_BHWC: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of these tokens, or with `pre_logits` their mean."""
        x = x_BHWC.mean(dim=(1, 2)) if self.global_pool else x_BHWC
        x = F.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.get_classifier()(x)

    def forward(self, images_BCHW: Tensor) -> Tensor:  # type: ignore[override]  # timm has a switch for what `recompute` says
        return self.forward_head(self.forward_features(images_BCHW))

    def _run(self, layers: Outline, x: Tensor) -> Tensor:
        def call(spec: Any, *inputs: Any) -> Any:
            return attached(self, spec.weights)(*inputs)

        return run(layers, call, x, recompute=self.grad_checkpointing and self.training)

    # timm's signature
    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """What each of these stages gives, [B, C, H, W] (or NHWC), and the features; with `norm` the last stage's after the last norm."""
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"output_fmt: got {output_fmt!r}; accepted: NCHW, NHWC.")
        taken, last = feature_take_indices(len(self.stage_layers), indices)
        x, found = self._run(self.outline[:1], x), []
        for i, layers in enumerate(self.stage_layers[: last + 1] if stop_early else self.stage_layers):
            x = self._run(layers, x)
            if i in taken:
                at_end = norm and i == len(self.feature_info) - 1
                features = self.head.norm(x) if at_end else x
                found.append(features.permute(0, 3, 1, 2) if output_fmt == "NCHW" else features)
        if intermediates_only:
            return found
        return (x if stop_early and last + 1 < len(self.feature_info) else self.head.norm(x)), found

    def prune_intermediate_layers(self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True) -> list[int]:
        """Takes away what these stages do not need; their numbers."""
        taken, last = feature_take_indices(len(self.stage_layers), indices)
        for i in range(last + 1, len(self.stage_layers)):
            delattr(self.stages, str(i))
        self.stage_layers = self.stage_layers[: last + 1]
        if prune_norm:
            self.head.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0)
        return taken

    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier, and for 0 classes none."""
        if global_pool is not None:
            self.global_pool = _pool(global_pool)
        like = next(self.parameters())
        fc = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype) if num_classes else nn.Identity()
        self.head.fc, self.num_classes, self.classes = fc, num_classes, ()
        if num_classes:
            self.architecture = self.architecture.at(dataclasses.replace(self.architecture.frame, classes=num_classes))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Layers are computed again in the backward pass instead of kept."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters are of one depth: for rates that differ with it."""
        blocks = [(r"^stages\.(\d+)\.blocks\.(\d+)", None), (r"^stages\.(\d+)\.(?:merge|shared)", (0,)), (r"^head\.norm", (99999,))]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else blocks}


def _pool(kind: str) -> str:
    if kind not in ("avg", ""):
        raise ValueError(f"global_pool: got {kind!r}; accepted: 'avg', or '' for none.")
    return kind


def _by_stage(outline: Outline) -> list[Outline]:
    """The layers between stem and head: of each stage those that run in it, with the merging before it."""
    stages: dict[str, Outline] = {}
    for layer in outline[1:-1]:
        place = (layer.mlp if isinstance(layer, BlockSpecs) else layer).place.split(".")[1]
        stages[place] = (*stages.get(place, ()), layer)
    return list(stages.values())


def _cfg(architecture: Architecture, how: Preprocessing | None, classes: tuple[str, ...] = ()) -> dict[str, Any]:
    """What timm asks about a model and its images."""
    frame = architecture.frame
    made = {"mean": how.mean, "std": how.std, "crop_pct": how.crop, "interpolation": how.interpolation} if how else {}
    plain = {} if made or frame.channels == 3 else {"mean": (0.5,) * frame.channels, "std": (0.5,) * frame.channels}
    return {
        "input_size": (frame.channels, frame.resolution, frame.resolution),
        "fixed_input_size": True,
        "num_classes": frame.classes,
        "first_conv": "stem.conv1" if architecture.stem == "conv4" else "stem.patch_embed",
        "classifier": "head.fc",
        **({"label_names": classes} if classes else {}),
        **made,
        **plain,
    }


def _build(model: Callable[..., TimmNetwork], name: str, architecture: Architecture, pretrained: bool, **given: Any) -> Any:
    features = {"out_indices": tuple(range(len(architecture.stages))), "feature_cls": "getter"}
    return build_model_with_cfg(model, name, pretrained, feature_cfg=features, **given)


def hybrid_nas(
    pretrained: bool = False, weights: str | Path | None = None, architecture: str | Path | Architecture | None = None, **given: Any
) -> Any:
    """The network of `weights` (a file, or a run by its name or folder), or a fresh one of `architecture` (its file, or a published network's name).

    Raises:
        ValueError: neither or both, or as `load_network`, `read_architecture` and `begin_with`.
    """
    if (weights is None) == (architecture is None):
        got = "none" if weights is None else f"{weights} and {architecture}"
        raise ValueError(f"hybrid_nas: needs 'weights' or 'architecture': got {got}; accepted: one of the two.")
    if weights is None:
        known = architecture if isinstance(architecture, Architecture) else read_architecture(architecture_file(Path(str(architecture))))[0]
        given["pretrained_cfg"] = given.get("pretrained_cfg") or _cfg(known, None)
        return _build(partial(TimmNetwork, known), "hybrid_nas", known, pretrained, **given)
    trained = load_network(weights_file(str(weights)))
    known = trained.architecture
    given["pretrained_cfg"] = given.get("pretrained_cfg") or _cfg(known, trained.preprocess, trained.classes)

    def with_weights(**settings: Any) -> TimmNetwork:
        made = TimmNetwork(known, **{**settings, "num_classes": settings.get("num_classes") or known.frame.classes})
        begin_with(made, trained, f"hybrid_nas, weights {weights}")
        if made.architecture == known:
            made.classes, made.preprocess, made.bf16 = trained.classes, trained.preprocess, trained.bf16
        if settings.get("num_classes") == 0:
            made.reset_classifier(0)
        return made

    return _build(with_weights, "hybrid_nas", known, False, **given)  # they are there: timm has nothing to load


def _own_name(name: str) -> str:
    """What a published network is registered as: a name that timm has got itself stays timm's, and ours then begins with nas_."""
    if not is_model(name) or model_entrypoint(name).__module__ == __name__:
        return name
    warnings.warn(f"timm has a model {name} of its own; the one of this project is nas_{name}.", stacklevel=2)
    return f"nas_{name}"


def _register(preset: Preset) -> None:
    name, architecture = _own_name(preset.name), preset.architecture

    def entry(pretrained: bool = False, **given: Any) -> Any:
        return _build(partial(TimmNetwork, architecture), name, architecture, pretrained, **given)

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = f"{preset.published.name}, of {preset.published.system}."
    default_cfgs.update(generate_default_cfgs({name: _cfg(architecture, usual_preprocessing(preset))}))
    globals()[name] = register_model(entry)


default_cfgs: dict[str, Any] = generate_default_cfgs({"hybrid_nas": {}})  # where timm looks for them
register_model(hybrid_nas)
for _preset in read_presets():
    _register(_preset)
