"""What the dashboard shows beside Optuna's own plots: a note for the study and for each network worth a look, with their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from nas.machine import pasted
from nas.networks.architecture import Architecture, describe
from nas.quantities import QUANTITIES
from nas.reporting import figures, fronts
from nas.reporting.drawings import draw, save
from nas.reporting.parts import needs, quantity, told
from nas.reporting.rankings import draw as draw_ranking
from nas.searching.dashboard import Telling
from nas.searching.finalist_study import study_of
from nas.searching.story import Climber, Search, Story

BEST = 10  # networks of the search that get a picture, besides the finalists


def tellings(story: Story) -> dict[str, Telling]:
    """By study."""
    return {name: _telling(story, search) for name, search in story.searches.items()}


def _telling(story: Story, search: Search) -> Telling:
    networks: dict[str, Architecture] = {each.architecture.key: each.architecture for each in search.in_band[:BEST]}
    networks |= {each.architecture.key: each.architecture for each in search.in_band if each.by_hand}
    networks |= {each.architecture.key: each.architecture for name in search.limited for each in search.front(name)}
    networks |= {each.architecture.key: each.architecture for each in search.ladder}
    if search.winner:
        networks[search.winner.architecture.key] = search.winner.architecture
    pictures = {f"{key}.svg": draw({_name(search, key): architecture}, "svg") for key, architecture in networks.items()}
    about = dict[str, str]()  # titles of the pictures of the whole search
    if search.ladder:
        pictures["ladder.svg"], about["ladder.svg"] = save(fronts.ladder(search), "svg"), "Trained alone"
    if search.candidates:
        for each in search.limited:
            name = f"front-{each}.svg"
            pictures[name] = save(fronts.front(search, each), "svg")
            about[name] = f"With the supernet's weights, by {QUANTITIES[each].called}"
        pictures["mixers.svg"], about["mixers.svg"] = save(figures.mixers(search), "svg"), "Which mixers stand where"
    for name, found in story.rankings.items():
        pictures[f"{name}.svg"], about[f"{name}.svg"] = draw_ranking(found, "svg"), f"How well the supernet ranks ({name})"
    notes = {key: _note(story, search, architecture) for key, architecture in networks.items()}
    return Telling(_study_note(story, search, about), notes, pictures, _finalists_note(story, search))


def _name(search: Search, key: str) -> str:
    if search.winner and search.winner.architecture.key == key:
        return f"winner {key}"
    origins = {each.architecture.key: each.origin for each in search.candidates if each.by_hand}
    origins |= {each.architecture.key: each.origin for each in search.ladder if each.by_hand}
    return f"{origins[key]} {key}" if key in origins else key


def _note(story: Story, search: Search, architecture: Architecture) -> str:
    """Picture, figures in a line, the file, and the command that trains it."""
    key = architecture.key
    climber = next((each for each in search.ladder if each.architecture.key == key), None)
    candidate = next((each for each in search.candidates if each.architecture.key == key), None)
    costs = ("macs", "params", *search.beside)
    said = [told(name, known) for name in costs if (known := search.known(architecture, name))]
    if candidate and candidate.accuracy is not None:
        place = [each.architecture.key for each in search.in_band]
        rank = f" (place {place.index(key) + 1} of {len(place)} {figures.within(search)})" if key in place else ""
        said.append(f"{candidate.accuracy:.2%} with the supernet's weights{rank}")
    elif climber and climber.supernet is not None:
        said.append(f"{climber.supernet:.2%} with the supernet's weights")
    if fronts_of := search.on_fronts.get(key):
        said.append(f"on the front by {' and by '.join(QUANTITIES[name].called for name in fronts_of)}")
    if climber:
        where = [each.architecture.key for each in search.ladder].index(key) + 1
        said.append(f"{_alone(climber)}, place {where} of {len(search.ladder)} finalists")
    written = yaml.safe_dump(
        {"format": "architecture 1", "architecture": architecture.to_dict()}, sort_keys=False, default_flow_style=None, width=120
    )
    lines = [
        f"### {_name(search, key)}",
        f"![the network]({{{key}.svg}})",
        "; ".join(said),
        "\n".join(f"- {line}" for line in describe(architecture)),
    ]
    lines += ["Save this as a file to train it, and then:", f"```yaml\n{written}```", f"```\n{pasted('retrain', f'{key}.yaml')}\n```"]
    return "\n\n".join(lines)


def _alone(climber: Climber) -> str:
    if climber.trained.ended and climber.trained.ended.failure:
        return f"alone: {climber.trained.ended.failure}"
    if climber.last is None:
        return "not yet trained alone"
    where = "to the end" if climber.trained.ended else f"left behind after {climber.steps} steps"
    return f"{climber.last:.2%} trained alone ({where})"


def _study_note(story: Story, search: Search, about: Mapping[str, str]) -> str:
    budgets = " and ".join(each.text for each in search.budgets) or "no limit"
    evaluated = sum(each.accuracy is not None for each in search.candidates)
    lines = [_winner(search), *_winners_picture(story, search)]
    lines.append(
        f"{evaluated} networks were evaluated with the supernet's weights, under {budgets}: these are the trials of {search.name}."
    )
    if search.ladder:
        lines.append(
            f"The {len(search.ladder)} finalists, trained alone, are a study of their own: {study_of(search.name)} ([open]({{finalists}}))."
        )
    lines += [f"### {title}\n\n![{title}]({{{name}}})" for name, title in about.items()]
    if search.ladder:
        lines.append(_table(search.ladder, search))
    return "\n\n".join(lines)


def _winner(search: Search) -> str:
    """The first lines of every note of a study: who won, at which trial to find it, and why."""
    if search.winner is None:
        return "**There is no winner yet.**"
    found = search.winner.found
    alone = found.accuracy_alone is not None
    accuracy = found.accuracy_alone if found.accuracy_alone is not None else found.accuracy_supernet or 0.0
    where, number = _winners_trial(search)
    study = study_of(search.name) if where == "finalists" else search.name
    # in the dark the dashboard's links cannot be read: trial and study are named, and the picture below is a link too
    won = f"**The winner is {search.winner.architecture.key}**, trial {number} of {study} ([open]({{{where}}}/trials?numbers={number}))."
    how = "trained alone" if alone else "with the supernet's weights"
    has = f"It has {accuracy:.2%} of {found.held_out_images:,} held-out images {how}: {found.reason}."
    return f"{won}\n\n{has} It costs {needs(search.winner)}."


def _winners_trial(search: Search) -> tuple[str, int | None]:
    """Where the dashboard has the winner: the study, and the trial's number."""
    assert search.winner
    return ("search", search.winner.found.trial) if search.winner.found.accuracy_alone is None else ("finalists", 0)


def _winners_picture(story: Story, search: Search) -> list[str]:
    if search.winner is None:
        return []
    command, (where, number) = pasted("retrain", story.run.folder / f"{search.name}.yaml"), _winners_trial(search)
    return [f"[![the winner]({{{search.winner.architecture.key}.svg}})]({{{where}}}/trials?numbers={number})", f"```\n{command}\n```"]


def _finalists_note(story: Story, search: Search) -> str:
    about = "Each trial is a network trained alone, the winner first; who was left behind is pruned, with its accuracies until then."
    of = f"Finalists of {search.name} ([open]({{search}})). {about}"
    return "\n\n".join(
        [_winner(search), *_winners_picture(story, search), of, "![trained alone]({ladder.svg})", _table(search.ladder, search)]
    )


def _table(ladder: Sequence[Climber], search: Search) -> str:
    names = ["macs", *(name for name in search.limited if name != "macs")]
    heads = ["network", "from", *(QUANTITIES[name].called for name in names), "supernet", "alone"]
    rows = [heads, ["---"] * len(heads)]
    for each in ladder:
        supernet = "" if each.supernet is None else f"{each.supernet:.2%}"
        costs = (
            quantity(name, search.known(each.architecture, name)).text.replace(" ", "\u00a0") for name in names
        )  # a number keeps its unit
        rows.append([_name(search, each.architecture.key), each.origin, *costs, supernet, _alone(each)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
