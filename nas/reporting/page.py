"""A run as one HTML page that needs nothing else: its story, pictures with their numbers, tables that sort, command lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nas import __version__
from nas.machine import again, pasted
from nas.networks.architecture import Architecture, describe
from nas.quantities import QUANTITIES
from nas.reporting import figures, fronts
from nas.reporting.comparisons import picture as draw_comparison
from nas.reporting.comparisons import sentence, table
from nas.reporting.drawings import draw, save
from nas.reporting.parts import Cell, Look, Part, Picture, Row, Said, Table, needs, number, percent, quantity
from nas.reporting.rankings import as_table, title
from nas.reporting.rankings import draw as draw_ranking
from nas.runs.folder import WEIGHTS, now
from nas.runs.overview import timed
from nas.runs.records import Begun, NetworkRecord, read_training
from nas.searching.fidelity import ACCURACIES, ranked
from nas.searching.ladder import told_apart
from nas.searching.optuna_study import other_settings
from nas.searching.story import Candidate, Climber, Search, Story
from nas.searching.trained_alone import trained_for

TEMPLATE = Path(__file__).with_name("page.html")
MOST = 25  # rows of a table of networks
OTHERS = (
    "A search is named by its budgets and its sampler; six digits behind these tell one apart that had other settings than the run began with "
    '(recipe, floor, target, networks given with --start). "How it was made" has its command.'
)


def page(story: Story, looks: Mapping[str, Look] | None = None) -> str:
    """The whole page; `looks` are what the winners look at, by study, and by "" what the network does that the run itself trained."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    made = (
        f"Made {now()} by version {__version__}. Accuracies with the supernet's weights and of networks trained alone are different things."
    )
    return template.render(title=f"Run {story.run.name}", lead=list(_lead(story)), parts=list(_parts(story, looks or {})), made=made)


def _lead(story: Story) -> Iterator[Said]:
    """What was searched, on what, and what came of it, in a few sentences."""
    record, trained = story.told.record.supernet, story.told.record.retrain or story.told.record.compare
    if record is None:
        yield from _trained(story, trained) if trained else _other(story)
        return
    yield Said(f"Space {Path(record.space).stem}, {_settings(record)}.")
    if story.told.record.supernet_finished is None:
        yield Said("Unfinished: the supernet is still in training.", unfinished=True)
    if story.space is None:
        yield Said(f"The space {record.space} is not here as it was: what the search looked at cannot be told.", unfinished=True)
    for search in _in_order(story):
        if search.winner is None:
            yield Said(f"Unfinished: search {search.name} has no winner yet; what follows is what there is so far.", unfinished=True)
        else:
            yield Said(_won(search))
            yield from map(Said, (*_lead_of(search), *_retrained(search)))
    if any(other_settings(name) for name in story.searches):
        yield Said(OTHERS)


def _in_order(story: Story) -> list[Search]:
    """Who has a winner comes first, and then what has not ended."""
    return sorted(story.searches.values(), key=lambda each: each.winner is None)


def _settings(record: Begun) -> str:
    count = f" ({record.train_images:,} of {record.classes:,} classes, the test's apart)" if record.train_images and record.classes else ""
    how = f"recipe {Path(str(record.recipe)).stem}, seed {record.seed}"
    return f"images {Path(str(record.data)).name}{count} at {record.resolution} px, {how}"


def _other(story: Story) -> Iterator[Said]:
    """Of a run that trained nothing."""
    record = story.told.record
    if record.imported:
        yield Said(
            f"The weights of {record.imported.preset}, imported from {Path(record.imported.file).name} ({record.imported.sha256[:12]})."
        )
    elif record.conditions:
        yield Said(f"A latency table: {timed(story.told)}.")
        yield from (
            Said(f"Measured with {', '.join(f'{name} {value}' for name, value in each.items())}.") for each in record.conditions.values()
        )
    else:
        yield Said("Nothing was begun in this run.", unfinished=True)


def _trained(story: Story, record: NetworkRecord) -> Iterator[Said]:
    """Of a run that trained one network, or compared several."""
    yield Said(f"Network {record.architecture} of {record.found_at}, {_settings(record)}.")
    if story.told.training:
        result = story.told.training.result
        yield Said(f"Test accuracy: {result.test_accuracy:.2%} of {result.test_images:,} images, after {result.steps:,} steps.")
    elif story.comparison:
        yield Said(sentence(story.comparison["networks"]))
    else:
        yield Said("Unfinished: what was begun here is still in training.", unfinished=True)


def _won(search: Search) -> str:
    assert search.winner
    found, winner = search.winner.found, search.winner
    accuracy, how = found.accuracy_alone, trained_for(found.epochs_alone)
    if accuracy is None:
        accuracy, how = found.accuracy_supernet or 0.0, "with the supernet's weights"
    budgets = " and ".join(winner.budgets)
    return (
        f"Under {budgets} the winner is {winner.architecture.key}: {accuracy:.2%} of {found.held_out_images:,} held-out images {how} "
        f"(standard error {found.standard_error:.2%}), chosen as {found.reason}. It costs {needs(winner)}. "
        f"{'; '.join(describe(winner.architecture))}."
    )


def _lead_of(search: Search) -> Iterator[str]:
    """What the winner is ahead of the best other finalist that came to the end as far, and whether that is more than noise."""
    assert search.winner
    found, key = search.winner.found, search.winner.architecture.key
    others = [each for each in search.ladder if each.trained.ended and each.last is not None and each.architecture.key != key]
    behind = [each for each in others if found.accuracy_alone is not None and (each.last or 0.0) <= found.accuracy_alone]
    if found.accuracy_alone is None or not behind:
        return
    second = max(behind, key=lambda each: each.last or 0.0)
    lead, told = found.accuracy_alone - (second.last or 0.0), told_apart(second.last or 0.0, found.accuracy_alone, found.held_out_images)
    worth = "more than two standard errors of the difference" if lead > told else "less than two standard errors of the difference: no lead"
    yield f"It is ahead of {second.origin} ({second.architecture.key}), the next of those trained to the end, by {100 * lead:.2f} points, {worth}."


def _retrained(search: Search) -> Iterator[str]:
    """What came of the winner, where a run beside this one trained it."""
    path = search.retrained.folder / "result.yaml" if search.retrained else None
    if search.retrained and path and path.exists():
        result = read_training(path).result
        yield f"Retrained in {search.retrained.name}: {result.test_accuracy:.2%} of {result.test_images:,} test images."


def _parts(story: Story, looks: Mapping[str, Look]) -> Iterator[Part]:
    for search in _in_order(story):
        suffix = f" ({search.name})" if len(story.searches) > 1 else ""
        if search.winner:
            yield Part(
                f"The winner{suffix}",
                pictures=[Picture(draw(_beside_winner(search), "svg"), "The winner, and the networks drawn by hand that came next.")],
            )
        if search.name in looks:
            yield _looking(f"What the winner looks at{suffix}", looks[search.name])
        if search.ladder:
            yield _ladder(search, suffix)
        if search.candidates:
            yield _candidates(search, suffix)
    if story.told.training:
        architecture = story.told.training.architecture
        yield Part(
            "The network", ["; ".join(describe(architecture))], [Picture(draw({architecture.key: architecture}, "svg"), "Its blocks.")]
        )
        if "" in looks:
            yield _looking("What it looks at", looks[""])
    if story.curve or story.losses:
        yield _training(story)
    for name, found in story.rankings.items():
        pictures = [Picture(draw_ranking(found, "svg"), "Networks trained alone for the truth, against what scores said of them.")]
        yield Part(
            f"How well the supernet ranks ({name})",
            pictures=pictures,
            tables=[_ranked(found)],
            commands=list(as_table(found)),
            columns=True,
        )
    if story.comparison:
        networks, seeds = story.comparison["networks"], story.comparison["settings"]["seeds"]
        svg = save(draw_comparison(networks, f"Tested with {len(seeds)} seeds"), "svg")
        yield Part("Compared", pictures=[Picture(svg, "Test accuracies.")], commands=table(networks, seeds), columns=True)
    if made := dict.fromkeys(each.command for each in story.told.record.invocations if each.command):
        text = "These commands made the run. Given again, one that was interrupted goes on, and one that has ended prints its result."
        yield Part("How it was made", [text], commands=[again(each) for each in made])
    if story.searches or story.told.training:
        yield Part("How to go on", commands=list(_commands(story)))


def _looking(title: str, look: Look) -> Part:
    if look.svg is None:
        return Part(title, [look.said])
    about = (
        "For each stage the pixels that move the token in its middle, and for each of its blocks what the mixer takes from where (red adds, "
        f"blue takes away; of a stage's blocks the first eleven), by gradients on held-out images, with {look.said}."
    )
    rows = [
        Row(
            [
                Cell(each.place, each.place),
                Cell(each.what, each.what),
                *(Cell(f"{far:.1f} {each.unit}", far) for far in (each.half, each.most)),
            ]
        )
        for each in look.reaches
    ]
    table = Table(["place", "what", "half of it within", "nine tenths within"], rows, "How far it looks from the middle token", True)
    return Part(title, pictures=[Picture(look.svg, about)], tables=[table])


def _beside_winner(search: Search) -> dict[str, Architecture]:
    """The winner and two of those drawn by hand that came furthest, or without a ladder were most accurate, by what is written over them."""
    assert search.winner
    winner, accuracy = search.winner.architecture, search.winner.found.accuracy_supernet
    by_hand = [each for each in search.ladder if each.by_hand and each.architecture.key != winner.key]
    first = next(
        (f"winner: {_alone(each)}" for each in search.ladder if each.architecture.key == winner.key), f"winner: {_scored(accuracy)}"
    )
    shown = {f"{each.origin}: {_alone(each)}": each.architecture for each in by_hand[:2]}
    if not search.ladder:
        named = [each for each in search.in_band if each.by_hand and each.architecture.key != winner.key][:2]
        shown = {f"{each.origin}: {_scored(each.accuracy)}": each.architecture for each in named}
    return {first: winner, **shown}


def _scored(accuracy: float | None) -> str:
    return "no accuracy with the supernet's weights" if accuracy is None else f"{accuracy:.2%} with the supernet's weights"


def _alone(each: Climber) -> str:
    if each.last is None:
        return "no accuracy alone"
    return f"{each.last:.2%} trained alone" + ("" if each.trained.ended else f" for {each.steps:,} steps")


def _ladder(search: Search, suffix: str) -> Part:
    """Finalists and networks drawn by hand, trained alone."""
    heads = ["network", "accuracy", "from", "steps", "supernet", "fine-tuned", *_costs(search)]
    winner = search.winner.architecture.key if search.winner else ""
    rows = [Row(_climber(search, each), each.architecture.key == winner) for each in search.ladder]
    about = "Held-out accuracy of each finalist while it was trained alone; who ends early was left behind."
    rungs = [
        Row([Cell(each.architecture.key, each.architecture.key), Cell(each.origin, each.origin), number(step), percent(accuracy)])
        for each in search.ladder
        for step, accuracy in fronts.climbed(each)
    ]
    tables = [Table(heads, rows), Table(["network", "from", "steps", "accuracy"], rungs, "Rung by rung", True)]
    return Part(f"The ladder{suffix}", pictures=[Picture(save(fronts.ladder(search), "svg"), about)], tables=tables)


def _costs(search: Search) -> dict[str, str]:
    """The columns of costs of a table of networks: heads, and which quantity."""
    return {"MACs": "macs", "params": "params", **{QUANTITIES[name].called: name for name in search.beside}}


def _climber(search: Search, each: Climber) -> list[Cell]:
    ended = each.trained.ended
    failure = ended.failure if ended else None
    last = Cell(f"failed: {failure}", "") if failure else percent(each.last)
    return [
        Cell(each.architecture.key, each.architecture.key), last, Cell(each.origin, each.origin),
        Cell("to the end", float("1e18")) if ended and not failure else number(each.steps), percent(each.supernet), percent(each.fine_tuned),
        *(quantity(name, search.known(each.architecture, name)) for name in _costs(search).values()),
    ]  # fmt: skip


def _candidates(search: Search, suffix: str) -> Part:
    """What the search looked at."""
    best = search.in_band[:MOST]
    heads = ["network", "accuracy", *_costs(search), "share of the budget", "on the front by", "proposed by", "trial"]
    tables = [Table(heads, [Row(_candidate(search, each)) for each in best], f"The best {len(best)} {figures.within(search)}", True)]
    there = [each for each in search.candidates if each.accuracy is not None]
    tables.append(Table(heads, [Row(_candidate(search, each)) for each in there], f"All {len(there)} that were evaluated", True))
    failed = sum(each.failure is not None for each in search.candidates)
    text = f"{len(there)} networks were evaluated with the supernet's weights{f', {failed} failed' if failed else ''}."
    unscored = " The supernet does not have the winner: a star on the axis says what it costs." * (
        search.winner is not None and search.winners_score is None
    )
    pictures = [
        Picture(
            save(fronts.front(search, name), "svg"),
            f"Accuracy with the supernet's weights against {QUANTITIES[name].called}; shaded is what is over the budget.{unscored}",
        )
        for name in search.limited
    ]
    pictures.append(
        Picture(save(figures.mixers(search), "svg"), "Which mixers stand where: of all networks looked at, and of the best tenth.")
    )
    tables.append(_mixers(search))
    for effects, unit, about in (
        (
            search.spread,
            "points of accuracy",
            f"How far each decision moves the networks {figures.within(search)} apart, by an additive model.",
        ),
        (search.importances, "% of the whole", "The importance of each decision by Optuna's estimate, of all networks evaluated."),
    ):
        if effects:
            shown = dict(sorted(((name, 100 * each) for name, each in effects.items()), key=lambda each: -each[1]))
            pictures.append(Picture(save(figures.importance(shown, unit), "svg"), about))
            tables.append(
                Table(["decision", unit], [Row([Cell(name, name), Cell(f"{each:.2f}", each)]) for name, each in shown.items()], about, True)
            )
    return Part(f"The search{suffix}", [text], pictures, tables)


def _candidate(search: Search, each: Candidate) -> list[Cell]:
    used = each.usage(search.budgets)
    return [
        Cell(each.architecture.key, each.architecture.key), percent(each.accuracy),
        *(quantity(name, each.known(name)) for name in _costs(search).values()),
        Cell(f"{used:.0%}", used), _fronts(search, each.architecture.key),
        Cell(each.origin, each.origin), number(each.number),
    ]  # fmt: skip


def _fronts(search: Search, key: str) -> Cell:
    """By which quantities a network is on the front."""
    said = ", ".join(QUANTITIES[name].called for name in search.on_fronts.get(key, ()))
    return Cell(said, said)


def _mixers(search: Search) -> Table:
    """The numbers of the picture of the mixers."""
    groups = figures.mixer_groups(search)
    there = sorted({(*place, mixer) for _, shares in groups.values() for place in shares for mixer in shares[place]})
    rows = [
        Row([Cell(f"stage {i}, block {j}", i + j / 1000), Cell(mixer, mixer), *(percent(shares.get((i, j), {}).get(mixer)) for _, shares in groups.values())])
        for i, j, mixer in there
    ]  # fmt: skip
    return Table(["place", "mixer", *(f"of {name} {count}" for name, (count, _) in groups.items())], rows, "Which mixers stand where", True)


def _ranked(found: Mapping[str, Any]) -> Table:
    """The numbers of the picture of a ranking."""
    names = [name for name in ACCURACIES if name in found["figures"]]
    rows = [
        Row([Cell(each["key"], each["key"]), percent(each["truth"]), *(percent(each[name]) for name in names)]) for each in ranked(found)
    ]
    return Table(["network", "alone", *map(title, names)], rows, "Network by network", True)


def _training(story: Story) -> Part:
    """Of a supernet, or of the one network that a run trained."""
    heads = [name for name in ("smallest", "median", "largest", "accuracy") if any(name in line for line in story.curve)]
    rows = [Row([number(line["step"]), *(percent(line.get(name)) for name in heads)]) for line in story.curve]
    about = f"Held-out accuracy on the way ({', '.join(heads)}), and the loss." if rows else "The loss on the way."
    picture = Picture(save(figures.curves(story.curve, story.losses), "svg"), about)
    tables = [Table(["step", *heads], rows, "The accuracies", True)] if rows else []
    if story.losses:
        count, means = figures.mean_losses(story.losses)
        losses = [Row([number(step), Cell(f"{mean:.4g}", mean)]) for step, mean in means]
        tables.append(Table(["step", f"loss, mean of {count} steps" if count > 1 else "loss"], losses, "The losses", True))
    return Part("The supernet" if story.what == "supernet" else "The training", pictures=[picture], tables=tables)


def _commands(story: Story) -> Iterator[str]:
    if story.told.training and (record := story.told.record.retrain):
        weights = story.run.folder / WEIGHTS
        yield pasted("evaluate", weights, "--data", record.data)
        yield pasted("predict", weights, "IMAGE")
        yield pasted("export", weights)
    for search in story.searches.values():
        if search.winner:
            path = story.run.folder / f"{search.name}.yaml"
            yield pasted("retrain", path)
            yield pasted("compare", path)
            by_hand = sorted((story.run.folder / "baselines" / search.name).glob("*.yaml"))
            yield from (pasted("retrain", each) for each in by_hand)
    if story.searches:
        yield pasted("dashboard", story.run.name)
