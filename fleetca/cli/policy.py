"""`fleetca policy`: the policy documents of a deployment, made from its settings, and whether one that was made still says what they do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetca.cli import output, reach

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fleetca.evidence.policy import Clause

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(
    help="Make the certification practice statement (cps, RFC 3647) or the key management policy (kmp) from the settings: to --out, or stdout. With"
    " --check, say which clauses of FILE are not what the settings say now, or were edited by hand; ends with 8 where there are any."
)
@click.argument("which", type=click.Choice(["cps", "kmp"]))
@click.option("--out", type=_FILE, help="Where it goes (Markdown); must not exist.")
@click.option("--check", type=_FILE, metavar="FILE", help="A document that was made before.")
@click.option(
    "--words", type=_FILE, help='What settings cannot say: a TOML file with `[clauses]` and `"9.14" = "..."`, by the number of the clause.'
)
@output.settings_option
@output.json_option
def policy(which: str, out: Path | None, check: Path | None, words: Path | None, settings: str, as_json: bool) -> int:
    from fleetca import forms
    from fleetca.evidence import policy as rule
    from fleetca.evidence import policy_outlines as outlines
    from fleetca.evidence.policy_facts import Said

    if out is not None and check is not None:
        raise click.UsageError("Give --out or --check, not both.")
    read = forms.read_settings(Path(settings))
    said = Said(read, list(forms.profiles(read).values()))
    title, outline = {"cps": (outlines.CPS_TITLE, outlines.cps), "kmp": (outlines.KMP_TITLE, outlines.kmp)}[which]
    clauses = rule.with_words(outline(said), {} if words is None else _words(words))
    if check is not None:
        return _checked(check, clauses, as_json=as_json)
    about = f"Of `{read.deployment.name}`. Made from its settings by `fleetca policy {which}`; `fleetca policy {which} --check` says whether it still holds."
    made = rule.write(title, about, clauses)
    if out is None:
        output.result({"document": made}, made.rstrip("\n"), as_json=as_json)
    else:
        reach.write_new(str(out), made.encode())
        output.result({"out": str(out), "clauses": len(clauses)}, f"{out}: {len(clauses)} clauses", as_json=as_json)
    return 0


def _checked(file: Path, clauses: Sequence[Clause], *, as_json: bool) -> int:
    from fleetca.evidence import policy as rule

    found = rule.compare(reach.read(str(file)).decode(errors="replace"), clauses)
    document = {"file": str(file), "differences": [{"clause": one.clause, "what": one.what} for one in found]}
    output.result(document, "\n".join(f"{one.what}." for one in found) or f"{file} says what the settings do.", as_json=as_json)
    return output.FINDINGS if found else 0


def _words(file: Path) -> Mapping[str, str]:
    import tomllib

    from ca.errors import Malformed

    try:
        found = tomllib.loads(reach.read(str(file)).decode())
        words = found["clauses"]
        if set(found) != {"clauses"} or not all(isinstance(one, str) for one in words.values()):
            raise ValueError("it holds something else than texts of clauses")
    except (ValueError, KeyError, AttributeError) as error:
        raise Malformed(
            "bad-words", f"{file} holds no words for clauses.", why=str(error), fix='Write [clauses] and "9.14" = "..."'
        ) from None
    return dict(words)
