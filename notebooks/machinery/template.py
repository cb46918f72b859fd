"""The words that all notebooks share: how one opens and closes, and what an exercise looks like.

Plain functions from what an author wrote (dictionaries read from YAML) to Markdown. Know no files and no cells.
"""

LEVELS = ("warm-up", "core", "stretch")
LINE = "\n\n"


def header(name, front, *, edition, home, minutes, neighbours, exercises):
    """The first cell.

    Args:
        name: of the master, such as "03_orders".  front: its front matter.
        edition: "student", "solutions" or "instructor".
        home: the course's address "owner/name" on GitHub, or "".
        minutes: what the last committed run measured: {"minutes", "cores", "memory_gb"}, or {}.
        neighbours: (words, name, title) of the notebooks before and after.
        exercises: the notebook's exercises, as read from the master.
    """
    kind = {"student": "", "solutions": " · worked solutions", "instructor": " · instructor's edition"}[edition]
    parts = [f"# {name[:2]} · {front['title']}{kind}"]
    if edition == "solutions":
        parts += [f"Every exercise of [notebook {name[:2]}](../{name}.ipynb), solved, checked and explained. Try it "
                  "yourself first: the hints there unfold one by one."]
    else:
        parts += ["**You will be able to**", bullets(front["goals"]), f"**You need** {front['needs']}"]
    facts = [f"**Time** {time_text(minutes)}", *memory_text(minutes), f"**Hardware** {front['hardware']}"]
    parts += [" · ".join(facts)]
    if exercises and edition != "solutions":
        folder = "" if edition == "student" else "../"
        parts += [f"**Exercises** {len(exercises)}, about {sum(e['minutes'] for e in exercises)} minutes more · "
                  f"[worked solutions]({folder}solutions/{name}.ipynb)"]
    ways = [f"{words}: [{other[:2]} {title}]({other}.ipynb)" for words, other, title in neighbours]
    parts += [" · ".join(ways + launch_links(name, edition, home))]
    return LINE.join(part for part in parts if part)


def time_text(minutes):
    if "minutes" not in minutes:
        return "not measured yet"
    return f"{minutes['minutes']:.1f} minutes to run, measured on {minutes['cores']} CPU cores"


def memory_text(minutes):
    return [f"**Memory** {minutes['memory_gb']:.1f} GB at most"] if "memory_gb" in minutes else []


def launch_links(name, edition, home):
    if not home:
        return []
    path = f"notebooks/{name}.ipynb" if edition == "student" else f"notebooks/{edition}/{name}.ipynb"
    page = f"{home}/blob/main/{path}"
    return [f"[open in Colab](https://colab.research.google.com/github/{page})",
            f"[open in Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/{page})",
            f"[open in Binder](https://mybinder.org/v2/gh/{home}/main?labpath={path})"]


def exercise_text(number, exercise):
    """An exercise: what to do, how it looks when right, and hints that unfold one by one."""
    level = LEVELS[exercise["level"] - 1]
    parts = [f"### Exercise {number} · {exercise['title']}", f"*{exercise['minutes']} minutes · {level}*",
             exercise["task"].strip(), f"**When it is right:** {exercise['right'].strip()}"]
    parts += [unfold(f"Hint {i}", hint) for i, hint in enumerate(exercise["hints"], start=1)]
    return LINE.join(parts)


def why_text(number, exercise):
    """What stands behind a solution, for those who have seen it."""
    return f"**Why** ({number}) {exercise['why'].strip()}"


def plan_text(plan):
    """The instructor's first page: what to do in which minute."""
    clock, rows = 0, ["| minute | what |", "|---|---|"]
    for step in plan:
        rows.append(f"| {clock} to {clock + step['minutes']} | {' '.join(step['do'].split())} |")
        clock += step["minutes"]
    return LINE.join([f"## Plan for {clock} minutes", "\n".join(rows)])


def closing_text(closing):
    """Recap, a quiz whose answers unfold, references."""
    quiz = [LINE.join([f"**{i}.** {ask['q'].strip()}", unfold("Answer", ask["a"])])
            for i, ask in enumerate(closing["quiz"], start=1)]
    return LINE.join(["## Recap", bullets(closing["recap"]), "## Self-quiz", *quiz, "## References",
                      bullets(closing["references"])])


def provenance_text(name, code, run):
    """Where the outputs come from: the source and its hash, and of the run that made them the versions and the date."""
    source = f"Built from `notebooks/masters/{name}.py`, SHA-256 of the code `{code[:12]}`"
    if run is None or run["code"] != code:
        return f"*{source}; not run yet.*"
    versions = ", ".join(f"{package} {version}" for package, version in run["versions"].items())
    return f"*{source}; run on {run['date']} with {versions}.*"


def bullets(items):
    return "\n".join("- " + "\n  ".join(item.strip().splitlines()) for item in items)


def unfold(summary, text):
    """Markdown behind a line that opens; the empty lines make GitHub and JupyterLab read it as Markdown."""
    return f"<details><summary>{summary}</summary>\n\n{text.strip()}\n\n</details>"
