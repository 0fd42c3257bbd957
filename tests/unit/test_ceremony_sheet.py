"""A sheet says what is made, all of it and nothing else: what is unknown, unused or missing is refused by name (R32)."""

from __future__ import annotations

from pathlib import Path

import pytest

from ca.errors import Misconfigured
from ca.rules.ceremony import IntermediateAct, RootAct, RootCrlAct
from config.sheet import shipped_sheet, with_values
from fleetca import ceremonies, forms

GOOD = """
[ceremony]
name = "first"
[values]
label = "Example"
[[acts]]
act = "root"
id = "root"
algorithm = "p256"
subject = { common_name = "{label} Root", country = "AT" }
not_after = "20y"
[[acts]]
act = "intermediate"
id = "issuing"
issuer = "root"
algorithm = "p256"
subject = { common_name = "{label} Issuing" }
not_after = 2031-01-01T00:00:00Z
crl_url = "http://pki.example/crl/root.crl"
issuer_url = "http://pki.example/ca/root.cer"
[[acts]]
act = "root-crl"
id = "root-crl"
issuer = "root"
next_update = "90d"
[[acts.revoked]]
serial = "4d"
revoked_at = 2026-11-01T00:00:00Z
reason = "keyCompromise"
"""


def read(tmp_path: Path, text: str) -> object:
    file = tmp_path / "first.toml"
    file.write_text(text)
    return ceremonies.read(file)[1]


def test_a_sheet_becomes_the_acts_it_says(tmp_path: Path) -> None:
    file = tmp_path / "first.toml"
    file.write_text(GOOD)
    _, sheet = ceremonies.read(file)
    root, issuing, crl = sheet.acts
    assert isinstance(root, RootAct)
    assert root.subject == {"common_name": "Example Root", "country": "AT"}
    assert isinstance(issuing, IntermediateAct)
    assert issuing.not_after == 1924992000
    assert isinstance(crl, RootCrlAct)
    assert (crl.revoked[0].serial, crl.revoked[0].reason.name) == (0x4D, "keyCompromise")
    assert sheet.octets == GOOD.encode()


WRONG = [
    pytest.param('act = "root"', 'act = "rot"', "unknown-act", "acts[1].act", id="an unknown act"),
    pytest.param('act = "root"\n', "", "bad-setting", "acts[1]", id="an act that does not say what it is"),
    pytest.param("algorithm", "algoritm", "unknown-setting", "acts[1].algoritm", id="a misspelt key"),
    pytest.param('issuer = "root"\nnext', 'issuer = "root"\npath_length = 0\nnext', "unknown-setting", "acts[3].path_length", id="a key that means nothing to its act"),
    pytest.param('next_update = "90d"\n', "", "missing-setting", "acts[3].next_update", id="a missing date"),
    pytest.param('"20y"', '"20 years"', "bad-setting", "acts[1].not_after", id="a date in words"),
    pytest.param('"20y"', "20", "bad-setting", "acts[1].not_after", id="a date that is a number"),
    pytest.param("2031-01-01T00:00:00Z", "2031-01-01T00:00:00", "bad-setting", "time zone", id="a date without its time zone"),
    pytest.param("2031-01-01T00:00:00Z", "2031-01-01", "bad-setting", "acts[2].not_after", id="a date without its time"),
    pytest.param("[values]", '[values]\nurl = "x"', "unused-value", "values.url", id="a value that nothing uses"),
    pytest.param('label = "Example"', "", "missing-value", "{label}", id="a placeholder without its value"),
    pytest.param('label = "Example"', "label = 3", "missing-value", "label", id="a value that is no text"),
    pytest.param('country = "AT"', 'country = "Austria"', "bad-setting", "acts[1].subject.country", id="a country in words"),
    pytest.param('country = "AT"', 'mail = "a"', "unknown-setting", "acts[1].subject.mail", id="an unknown part of a subject"),
    pytest.param('serial = "4d"', 'serial = "0x4d"', "bad-setting", "serial", id="a serial number that is not hexadecimal"),
    pytest.param('"keyCompromise"', '"stolen"', "unknown-reason", "root-crl", id="an unknown reason"),
    pytest.param('algorithm = "p256"\nsubject = { common_name = "{label} Issuing"', 'subject = { common_name = "{label} Issuing"', "bad-setting", "needs csr", id="neither a CSR nor a key to be made"),
    pytest.param('algorithm = "p256"\nsubject = { common_name = "{label} Issuing"', 'csr = "absent.csr"\nsubject = { common_name = "{label} Issuing"', "no-such-file", "absent.csr", id="a CSR that is not there"),
    pytest.param('algorithm = "p256"\nsubject = { common_name = "{label} Issuing"', 'csr = "first.toml"\nsubject = { common_name = "{label} Issuing"', "bad-file", "CSR of act issuing", id="a CSR file that holds something else"),
    pytest.param("[[acts]]", '[secrets]\npassphrase = "x"\n[[acts]]', "unknown-setting", "secrets", id="a secret in a sheet"),
    pytest.param('name = "first"', 'name = "First!"', "bad-setting", "ceremony.name", id="a name that is no name"),
    pytest.param("[ceremony]", "[ceremony", "not-toml", "line 2", id="broken TOML"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "code", "names"), WRONG)
def test_R32_a_wrong_sheet_is_refused_by_name(tmp_path: Path, old: str, new: str, code: str, names: str) -> None:
    assert old in GOOD
    with pytest.raises(Misconfigured) as caught:
        read(tmp_path, GOOD.replace(old, new, 1))
    assert caught.value.code == code
    assert names in f"{caught.value.what} {caught.value.why}"
    assert "first.toml" in caught.value.what or "absent.csr" in caught.value.what


def test_a_sheet_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no ceremony sheet"):
        ceremonies.read(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("name", ["demo", "root-and-issuing"])
def test_shipped_sheets_take_other_values_and_keep_everything_else(tmp_path: Path, name: str) -> None:
    source = shipped_sheet(name).read_bytes()
    changed = with_values(source, {"status_url": 'http://other.example:1"x'}, name="mine")
    before, after = source.decode().splitlines(), changed.splitlines()
    assert len(before) == len(after)
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 2
    import tomllib

    read_again = tomllib.loads(changed)
    assert read_again["ceremony"]["name"] == "mine"
    assert read_again["values"]["status_url"] == 'http://other.example:1"x'


def test_what_a_shipped_sheet_does_not_have_cannot_be_set() -> None:
    with forms.our_errors(), pytest.raises(Exception, match="no value nothing"):
        with_values(shipped_sheet("demo").read_bytes(), {"nothing": "x"}, name="mine")


def test_the_demo_sheet_marks_every_subject() -> None:
    text = shipped_sheet("demo").read_text()
    assert text.count("subject = ") == text.count('organization = "NOT FOR PRODUCTION" }') == 2


# ---- The acts beside root, intermediate and CRL ---------------------------------------------------------------------------

MORE = """
[ceremony]
name = "more"
confirm = ["witness"]
[[roles]]
role = "witness"
person = "Wanda"
key_sha256 = "{zeros}"
[[issuers]]
id = "root"
certificate = "{examples}/root.cer"
[[acts]]
act = "root-crls"
id = "chain"
issuer = "root"
previous = "{examples}/root-crl.crl"
count = 3
each = "45d"
overlap = "15d"
[[acts]]
act = "link"
id = "linked"
signer = "root"
subject = "root"
crl_url = "http://pki.example/crl/root.crl"
issuer_url = "http://pki.example/ca/root.cer"
[[acts]]
act = "root-crl"
id = "single"
issuer = "root"
previous = "{examples}/root-crl.crl"
overlap = "10d"
next_update = "90d"
"""

EXAMPLES = Path(__file__).parents[2] / "config/ceremonies/example"
WHOLE = MORE.format(zeros="0" * 64, examples=EXAMPLES)


def test_a_chain_becomes_one_act_for_each_crl(tmp_path: Path) -> None:
    (tmp_path / "first.toml").write_text(WHOLE)
    _, made = ceremonies.read(tmp_path / "first.toml")
    chain = [act for act in made.acts if isinstance(act, RootCrlAct) and act.id.startswith("chain")]
    assert [act.id for act in chain] == ["chain-01", "chain-02", "chain-03"]
    assert [act.follows for act in chain] == [None, "chain-01", "chain-02"]
    assert [act.previous is None for act in chain] == [False, True, True]
    assert set(made.inputs or {}) == {"root.cer", "root-crl.crl"}


WRONG_MORE = [
    pytest.param('overlap = "15d"\n', "", "missing-setting", "overlap", id="a chain without its overlap"),
    pytest.param("count = 3", "count = 1", "bad-chain", "chain of 1", id="a chain of one"),
    pytest.param("count = 3", "count = 99", "bad-chain", "chain of 99", id="a chain without end"),
    pytest.param('each = "45d"', 'each = "45 days"', "bad-setting", "each", id="a span in words"),
    pytest.param('previous = "{examples}/root-crl.crl"\noverlap', "overlap", "bad-setting", "overlap", id="an overlap with nothing"),
    pytest.param('overlap = "10d"', 'overlap = "10d"\nthis_update = "now"', "bad-setting", "this_update and overlap", id="two beginnings"),
    pytest.param('subject = "root"', 'subject = {{ common_name = "Root" }}', "bad-setting", "subject", id="a link with a subject in words"),
    pytest.param('person = "Wanda"', 'person = ""', "bad-setting", "person", id="nobody"),
    pytest.param('key_sha256 = "00', 'key_sha256 = "0', "bad-setting", "key_sha256", id="a digest that is too short"),
    pytest.param('role = "witness"', 'role = "witness"\nmail = "x"', "unknown-setting", "roles[1].mail", id="an unknown key of a person"),
    pytest.param(
        'id = "root"\n', 'id = "root"\nkey = "root.key"\n', "unknown-setting", "issuers[1].key", id="a key's place in the reviewed file"
    ),
    pytest.param('confirm = ["witness"]', 'confirm = "witness"', "bad-setting", "confirm", id="confirmations that are no list"),
]


@pytest.mark.parametrize(("old", "new", "code", "names"), WRONG_MORE)
def test_R32_wrong_acts_are_refused_by_name(tmp_path: Path, old: str, new: str, code: str, names: str) -> None:
    old, new = old.replace("{examples}", str(EXAMPLES)), new.replace("{{", "{").replace("}}", "}")
    assert old in WHOLE
    with pytest.raises(Misconfigured) as caught:
        read(tmp_path, WHOLE.replace(old, new, 1))
    assert caught.value.code == code
    assert names in f"{caught.value.what} {caught.value.why}"


def test_a_root_is_not_linked_with_itself(tmp_path: Path) -> None:
    from ca.rules.ceremony_dates import accept

    (tmp_path / "first.toml").write_text(WHOLE)
    _, made = ceremonies.read(tmp_path / "first.toml")
    with pytest.raises(Misconfigured) as caught:
        accept(made, profiles=forms.shipped_profiles(), now=1_795_305_600)
    assert caught.value.code == "link-to-itself"


CREDENTIALS = [
    pytest.param('[issuers.root]\nkey = "sealed:root.pem"\n', "bad-setting", id="a file that is no key"),
    pytest.param('[issuers.root]\nkey = "sealed:root.key"\npin = "1234"\n', "unknown-setting", id="a PIN in the file"),
    pytest.param('[issuers.root]\nkey = "sealed:root.key"\npassphrase = "hunter2"\n', "bad-setting", id="a passphrase in the file"),
    pytest.param("[secrets]\n", "unknown-setting", id="an unknown table"),
]


@pytest.mark.parametrize(("text", "code"), CREDENTIALS)
def test_credentials_say_where_and_never_what(tmp_path: Path, text: str, code: str) -> None:
    from config.credentials import read_credentials

    (tmp_path / "credentials.toml").write_text(text)
    with forms.our_errors(), pytest.raises(Exception) as caught:
        read_credentials(tmp_path / "credentials.toml")
    assert caught.value.code == code  # type: ignore[attr-defined]
    assert "hunter2" not in str(caught.value)
