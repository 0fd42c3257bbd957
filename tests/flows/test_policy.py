"""Policy documents: made from the settings, and a changed setting is named by the clause that it changes (REQ-KEY-021)."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest

from ca.errors import Malformed
from ca.model import AttestationKind
from ca.system import SystemChance
from fleetca import deployment, forms
from fleetca.evidence import policy, policy_outlines
from fleetca.evidence.policy_facts import Said
from tests.running import exit_code

pytestmark = pytest.mark.req("REQ-KEY-021")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = deployment.create(tmp_path_factory.mktemp("policy") / "fleet", deployment.Wanted(host="pki.example"), chance=SystemChance())
    return made.settings


run = partial(exit_code, "policy")


def test_the_statement_has_every_section_of_rfc_3647_and_says_where_it_says_nothing(settings: Path, tmp_path: Path) -> None:
    assert run("cps", "--out", tmp_path / "cps.md", "--settings", settings) == 0
    text = (tmp_path / "cps.md").read_text()
    counts = {1: 6, 2: 4, 3: 4, 4: 12, 5: 8, 6: 8, 7: 3, 8: 6, 9: 17}
    wanted = [f"{chapter}.{number}" for chapter, count in counts.items() for number in range(1, count + 1)]
    assert re.findall(r"^### (\d+\.\d+) ", text, re.MULTILINE) == wanted
    assert text.count("No stipulation.") > 10
    assert "secrets/" not in text and "keys/" not in text, "where keys and passphrases lie is nobody's business"


@pytest.mark.parametrize("which", ["cps", "kmp"])
def test_a_document_is_fresh_until_something_changes(settings: Path, tmp_path: Path, which: str) -> None:
    assert run(which, "--out", tmp_path / "made.md", "--settings", settings) == 0
    assert run(which, "--check", tmp_path / "made.md", "--settings", settings) == 0
    other = {"cps": "kmp", "kmp": "cps"}[which]
    assert run(other, "--check", tmp_path / "made.md", "--settings", settings) == 8


CHANGES = [
    ("crl", ('nudge = "5s"', 'nudge = "7s"'), {"2.3", "4.9", "7.2"}, {"10"}),
    ("ocsp caches", ('max_age = "5m"', 'max_age = "4m"'), {"4.9", "4.10", "5.5", "7.3"}, {"10"}),
    ("ocsp archive", ("[ocsp]\n", '[ocsp]\narchive = "1y"\n'), {"4.9", "4.10", "5.5", "7.3"}, {"10"}),
    (
        "a maker",
        ("[ocsp]\n", '[[est.manufacturers]]\nname = "acme"\ncertificate = "ca/acme.pem"\nprefix = "acme:"\n\n[ocsp]\n'),
        {"1.3", "3.2", "4.1"},
        set(),
    ),
    ("acts of two persons", ("two_persons = []", 'two_persons = ["profile"]'), {"5.2"}, {"2.2"}),
    ("drills", ("[ocsp]\n", '[custody]\ndrill_every = "90d"\n\n[ocsp]\n'), set(), {"12"}),
    (
        "makers of TPMs",
        ("[ocsp]\n", '[[attestation.tpm_makers]]\nname = "chips"\nroots = "ca/chips.pem"\n\n[ocsp]\n'),
        {"3.2"},
        set(),
    ),
    ("users", ("[ocsp]\n", '[signer.users]\n1001 = ["enroll"]\n\n[ocsp]\n'), {"6.5"}, {"2.3"}),
]


@pytest.mark.parametrize(("what", "edit", "clauses", "others"), CHANGES, ids=[one[0] for one in CHANGES])
def test_a_changed_setting_is_named_by_the_clauses_that_it_changes(
    settings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    what: str,
    edit: tuple[str, str],
    clauses: set[str],
    others: set[str],
) -> None:
    for which, wanted in (("cps", clauses), ("kmp", others)):
        made = tmp_path / f"{which}.md"
        assert run(which, "--out", made, "--settings", settings) == 0
        changed = settings.with_name(f"changed-{which}.toml")
        assert edit[0] in settings.read_text()
        changed.write_text(settings.read_text().replace(*edit))
        capsys.readouterr()
        code = run(which, "--check", made, "--settings", changed, "--json")
        found = {one["clause"] for one in json.loads(capsys.readouterr().out)["differences"]}
        assert (code, found) == (8 if wanted else 0, wanted), what


def test_a_changed_profile_is_named_too(settings: Path) -> None:
    read = forms.read_settings(settings)
    profiles = list(forms.profiles(read).values())
    made = policy.write("x", "", policy_outlines.cps(Said(read, profiles)))
    from dataclasses import replace

    for fields, clauses in (
        ({"lifetime": 86400}, {"4.7", "6.3"}),
        ({"renewable": False}, {"4.6", "4.7", "6.3"}),
        ({"key_algorithms": ("p384",)}, {"6.1", "7.1"}),
        ({"approval_within": 3600}, {"4.2"}),
        ({"attestation": (AttestationKind.tpm,)}, {"3.2"}),
        ({"offline": 3600}, {"4.6"}),
        ({"extended_key_usage": ("server_auth",)}, {"1.4", "4.5", "7.1"}),
    ):
        changed = [replace(one, **fields) if one.name == "device" else one for one in profiles]
        assert {one.clause for one in policy.compare(made, policy_outlines.cps(Said(read, changed)))} == clauses, fields


def test_what_was_edited_by_hand_or_is_missing_is_named(settings: Path) -> None:
    read = forms.read_settings(settings)
    clauses = policy_outlines.cps(Said(read, list(forms.profiles(read).values())))
    made = policy.write("x", "", clauses)
    assert policy.compare(made, clauses) == []
    edited = made.replace("No key of a device", "Every key of a device")
    assert [one.what for one in policy.compare(edited, clauses)] == ["4.12 Key escrow and recovery was edited by hand"]
    start, end = made.index("### 4.12 "), made.index("## 5 ")
    assert [one.clause for one in policy.compare(made[:start] + made[end:], clauses)] == ["4.12"]
    with pytest.raises(Malformed) as told:
        policy.compare("# Something else\n", clauses)
    assert told.value.code == "no-policy"


def test_what_settings_cannot_say_is_said_in_words(settings: Path, tmp_path: Path) -> None:
    (tmp_path / "words.toml").write_text('[clauses]\n"9.14" = "The law of Utopia."\n')
    words = ("--words", tmp_path / "words.toml", "--settings", settings)
    assert run("cps", "--out", tmp_path / "cps.md", *words) == 0
    assert "The law of Utopia." in (tmp_path / "cps.md").read_text()
    assert run("cps", "--check", tmp_path / "cps.md", *words) == 0
    assert run("cps", "--check", tmp_path / "cps.md", "--settings", settings) == 8
    for wrong in ('[clauses]\n"99.1" = "x"\n', "x = 1\n", "[clauses]\n1 = 2\n", "["):
        (tmp_path / "words.toml").write_text(wrong)
        assert run("cps", "--out", tmp_path / "other.md", *words) == 2
        assert not (tmp_path / "other.md").exists()
