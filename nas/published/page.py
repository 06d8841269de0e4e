"""The page docs/networks.md: `python launch.py presets --markdown > docs/networks.md`.

What can be counted is counted when the page is made; a test compares the page with what is made now.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Mapping, Sequence

from nas.cost import cost
from nas.published.presets import MISFIT, PAPERS, Figure, Preset, cells, read_presets

# What the official code's own counter (`flops()`) gives, for the networks whose FLOPs were published.
OWN_COUNTERS = {
    "spach_trans_ms_xxs": 531_234_451,
    "spach_conv_ms_xxs": 713_642_163,
    "spach_mlp_ms_xxs": 934_340_787,
    "spach_conv_ms_s": 7_155_674_355,
    "spach_trans_ms_s": 7_546_251_475,
    "spach_mlp_ms_s": 8_035_885_299,
    "spach_hybrid_ms_s": 11_068_599_539,
    "spach_hybrid_ms_s_": 12_206_992_627,
    "as_mlp_t": 4_358_553_600,
    "as_mlp_s": 8_524_867_584,
    "as_mlp_b": 15_142_936_576,
}
TRANS_MS_S_BY_AREA = 7_553_476_819  # the same, with the area of the stem's patches


def as_markdown() -> str:
    """The page docs/networks.md."""
    presets = {preset.name: preset for preset in read_presets()}
    parts = [
        _introduction(len(presets)),
        *(_system(name, presets) for name in PAPERS),
        _misfits(presets),
        _own_counters(presets),
        _facts(presets),
    ]
    return "\n\n".join(parts) + "\n"


def _introduction(count: int) -> str:
    return _section(
        "# The published networks",
        _paragraph(
            f"{count} networks of {len(PAPERS)} papers, one file each in `search_spaces/presets/`, each with its exact counts beside what its paper "
            "prints. A name stands for its file: `python launch.py profile as_mlp_t` counts it part by part, `python launch.py retrain as_mlp_t` "
            "trains it. This page is made, not written:"
        ),
        "```\npython launch.py presets --markdown > docs/networks.md\n```",
        "## What is counted",
        _bullets(
            "Parameters are unique trainable numbers: weights that blocks share count once. The classifier of 1000 classes is among them.",
            "MACs are the multiply-adds of convolutions and matrix products, attention's two included, for one image of 3x224x224. A "
            "multiply-add counts one. Biases, norms, activations, softmax, pooling and shifts are free. What these papers call FLOPs are such MACs.",
            "A published figure fits if the exact count is within half a unit of its last printed digit: 28 M is 27.5 M to 28.5 M. The papers of "
            'MLP-Mixer and S2-MLP print parameters without the classifier ("no head"); they are held against the count without its weights and '
            f"biases. `{MISFIT}` marks a figure that does not fit, `-` stands where none was published.",
            "Top-1 is the paper's accuracy on ImageNet-1k in percent, trained on ImageNet-1k alone at 224 px. None of it was measured here.",
        ),
    )


def _system(name: str, presets: Mapping[str, Preset]) -> str:
    paper = PAPERS[name]
    code = f"code [{paper.code}](https://github.com/{paper.code})" if paper.code else "no official code was found"
    head = ("preset", "published name", "parameters", "MACs", "published parameters", "published FLOPs", "top-1")
    lines = [(f"`{each.name}`", each.published.name, *cells(each)) for each in presets.values() if each.published.system == name]
    return _section(f"## {name}", f"[{paper.title}]({paper.link}), {code}.", _markdown_table(head, lines, right=2))


def _misfits(presets: Mapping[str, Preset]) -> str:
    figures = [(preset, figure) for preset in presets.values() for figure in preset.figures]
    lines = []
    for preset, figure in figures:
        if not figure.fits:
            what, unit = ("parameters", "M") if figure.quantity == "params" else ("MACs", "G")
            what += ", no head" if what == "parameters" and not preset.published.params_with_head else ""
            lines.append((f"`{preset.name}`", what, f"{figure.published} {unit}", f"{figure.exact:,}", f"{figure.difference:+,}"))

    def params(name: str, head: bool = True) -> str:
        return f"{cost(presets[name].architecture).params - (0 if head else presets[name].head_params):,}"

    deep, small = presets["s2_mlp_deep"].architecture, presets["s2_mlpv2_small_14"].architecture
    tokens = (deep.frame.resolution // deep.patch) ** 2
    least_weights = (10_450_000_000 - deep.stages[-1].width * deep.frame.classes) / tokens  # 10.45 G is the least that prints as 10.5
    (stage,) = small.stages
    shallower = cost(dataclasses.replace(small, stages=(dataclasses.replace(stage, mixers=stage.mixers[:15]),)))
    return _section(
        "## Published figures that do not fit",
        f"{len(figures) - len(lines)} of the {len(figures)} published figures fit. These {len(lines)} do not; the difference is exact less published.",
        _markdown_table(("preset", "what", "published", "exact", "difference"), lines, right=2),
        "What is known of them:",
        _bullets(
            f"**Parameters of SPACH-MLP-MS-XXS and SPACH-MLP-MS-S.** Both fit without the classifier ({params('spach_mlp_ms_xxs', head=False)} and "
            f"{params('spach_mlp_ms_s', head=False)}), and both if the count is cut off instead of rounded. Neither is the paper's habit: "
            "SPACH-Conv-MS-S (44 M) and SPACH-Trans-MS-S (40 M) fit only with the classifier and rounded to the nearest. With one token MLP for all "
            f"blocks of a stage the counts are {params('spach_mlp_ms_xxs_shared')}, which would print as 6 M, and "
            f"{params('spach_mlp_ms_s_shared')}, which would not print as 46 M.",
            f"**Parameters of S2-MLP-deep.** Neither {params('s2_mlp_deep', head=False)} without the classifier nor {params('s2_mlp_deep')} with it is "
            f"51 M, and the two published figures cannot both hold: a weight of its layers is used once per token, {tokens} times, so that 10.5 GFLOPs "
            f"take at least {least_weights / 1e6:.1f} M weights before the classifier. Its FLOPs fit, which speaks for its width and depth.",
            "**MACs of S2-MLPv2-Small/14.** They equal those of ViP-Small/14, whose FLOPs were not published, and the parameters fit. 15 of the 18 "
            f"blocks would be {shallower.macs:,} MACs, which print as 5.7 G, with {shallower.params:,} parameters, which do not print as 30 M. No "
            "reading of the paper gives both.",
            "**MACs of five SPACH networks and of AS-MLP-B.** The next section has what their official code counts, which explains one of the six. No "
            "reading of the papers gives the others.",
        ),
    )


def _own_counters(presets: Mapping[str, Preset]) -> str:
    lines = []
    for name, own in OWN_COUNTERS.items():
        published, exact = presets[name].published.gflops, cost(presets[name].architecture).macs
        assert published is not None, name
        marked = (f"{macs:,}{'' if Figure('macs', published, macs).fits else MISFIT}" for macs in (exact, own))
        lines.append((f"`{name}`", f"{published} G", *marked))
    return _section(
        "## By the counters of the official code",
        _paragraph(
            "The repositories of SPACH and AS-MLP bring a counter, `flops()`. It also counts norms and sums of branches, SPACH's biases too; and SPACH's "
            "takes the sum of the sides of a stem's patch for their product. Read as it stands, it explains the figure of SPACH-Conv-MS-S. With "
            f"the product SPACH-Trans-MS-S would be {TRANS_MS_S_BY_AREA:,} and print as 7.6 G as well; the other four would print as before."
        ),
        _markdown_table(("preset", "published FLOPs", "exact MACs", "official `flops()`"), lines, right=1),
    )


def _facts(presets: Mapping[str, Preset]) -> str:
    trans = presets["spach_trans_ms_s"].architecture
    stages = tuple(dataclasses.replace(stage, sharing="none" not in stage.mixers) for stage in trans.stages)
    trans_shared = cost(dataclasses.replace(trans, stages=stages)).params
    return _section(
        "## What to know before using one",
        _bullets(
            "**Resolution.** Convolution, attention and the shifts keep their weights at every resolution that the network's stride divides. A token "
            "MLP (SPACH's MLP networks, MLP-Mixer) and a token linear (ResMLP) have other parameters at every resolution. Permute (ViP) keeps the number "
            "of parameters, but the side of its grid must divide the width, and its weights belong to that grid. These networks can be trained at "
            "another resolution; weights trained at one cannot be used at another.",
            "**Sharing.** The `_shared` presets have one token MLP for all blocks of a stage that has any; norms, scales, convolutions and channel MLPs "
            "stay each block's own. Blocks that share have one kind of mixer, here as in the official code, so the hybrids cannot. Attention can: "
            f"SPACH-Trans-MS-S shared has {trans_shared:,} parameters, a network that the paper does not report.",
            "**SPACH's convolution** and its position encoding are one module: a 3x3 depthwise convolution of the block's input, without norm or scale, "
            "beside the mixer. A convolution block is mixer `none` with `cpe: true`; attention and token MLP blocks have the same convolution.",
            "**SPACH's heads.** A multi-stage network has one number of heads for all stages, so heads get wider from stage to stage. No count shows it.",
            "**Layer scale** begins as in the released code: at 1e-4 on SPACH's mixers; on both branches of ResMLP at 0.1 (12 blocks), 1e-5 (S24) and 1e-6 "
            "(S36, B24). The small ones are for 300 epochs and more, and hardly grow in a short run. ResMLP's paper writes a bias after each branch; its "
            "code has none, nor have the presets.",
            "**Drop path** belongs to the recipe, and rises linearly from the first block to the last. So it does in multi-stage SPACH, MLP-Mixer and "
            "AS-MLP; single-stage SPACH and ResMLP give every block the full rate.",
            "**The classifier** begins with torch's default. SPACH and MLP-Mixer (and timm's ResMLP) begin with zeros: a fresh network answers 0, and in "
            "the first step every gradient behind the classifier is 0.",
            "**S2-MLP and S2-MLPv2** follow the equations of their papers: S2-MLP has a LayerNorm after the patches, neither has one before pooling, and "
            "the deep network's blocks have ResMLP's affine for a norm. In the split attention the text of S2-MLPv2 says average and its equation takes "
            "the sum over the positions, as the presets do (`split_pool: sum`). The sum grows with the resolution; without that entry a stage takes the mean.",
            "**GELU** is the exact one. MLP-Mixer's code approximates it by tanh.",
            "**Checkpoints** by the authors are known for the five SPACH networks of size MS-S that do not share, Mixer-B/16 and L/16, ResMLP-S12, S24, "
            "S36 and B24/8, AS-MLP-T, S and B, and ViP-Small/7, Medium/7 and Large/7. For the others, all of S2-MLP and S2-MLPv2 among them, none was found.",
        ),
    )


def _section(*parts: str) -> str:
    return "\n\n".join(parts)


def _paragraph(text: str, first: str = "", later: str = "") -> str:
    unbroken = re.sub("`[^`]*`", lambda code: code[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
    lines = textwrap.fill(unbroken, 140, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False)
    return lines.replace("\N{NO-BREAK SPACE}", " ")


def _bullets(*texts: str) -> str:
    return "\n".join(_paragraph(text, "- ", "  ") for text in texts)


def _markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]], right: int) -> str:
    """A table whose columns from number `right` on hold numbers."""
    rule = ["---:" if number >= right else "---" for number in range(len(head))]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))
    return text.replace("*", r"\*")  # else two marks would set what is between them in italics
