"""`fleetca`: the one command. Each subcommand is a file beside this one, imported only when it is called, so that `--help` is quick."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import click

from fleetca.cli import output

# name -> (module, attribute, what the list of commands says)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "agent": ("fleetca.cli.agent", "agent", "Keep a device's certificate: enrol once, renew for ever."),
    "approvals": ("fleetca.cli.approvals", "approvals", "List requests that wait for an operator; approve or refuse them."),
    "audit": ("fleetca.cli.audit", "audit", "Show and verify the tamper-evident record."),
    "ceremony": ("fleetca.cli.ceremony", "ceremony", "Make root and issuing certificates offline."),
    "certificates": ("fleetca.cli.certificates", "certificates", "List, show and search certificates."),
    "checklist": ("fleetca.cli.checklist", "checklist", "Answer the boxes of auditors' checklists from the deployment as it is."),
    "crl": ("fleetca.cli.crl", "crl", "Show, compare, verify, ask for and fetch CRLs."),
    "demo": ("fleetca.cli.demo", "demo", "Make a whole PKI on loopback, check it, serve it."),
    "devices": ("fleetca.cli.devices", "devices", "List, show and search devices."),
    "doctor": ("fleetca.cli.doctor", "doctor", "Check a deployment and say what to mend."),
    "evidence": ("fleetca.cli.evidence", "evidence", "Write what an auditor takes away: a signed pack that verifies offline."),
    "import": ("fleetca.cli.import_", "import_", "Bring the outputs of a ceremony into a deployment."),
    "init": ("fleetca.cli.init", "init", "Set up a deployment."),
    "issue": ("fleetca.cli.issue", "issue", "Issue a certificate for a CSR."),
    "issuers": ("fleetca.cli.issuers", "issuers", "List and show issuers."),
    "keys": ("fleetca.cli.keys", "keys", "List, check and destroy keys; shares and backups of custodians."),
    "line": ("fleetca.cli.line", "line", "Make and check a factory line's provisioning records."),
    "migrate": ("fleetca.cli.migrate", "migrate", "Bring the database to this version's tables."),
    "ocsp": ("fleetca.cli.ocsp", "ocsp", "Sign OCSP answers ahead, as a spool or as files."),
    "operators": ("fleetca.cli.operators", "operators", "Add and list operators."),
    "pins": ("fleetca.cli.pins", "pins", "Trust anchors for update systems, verified on the device without a network."),
    "policy": ("fleetca.cli.policy", "policy", "Make the policy documents from the settings, and check one that was made."),
    "process": ("fleetca.cli.process", "process", "Run one process of a deployment (for systemd and containers)."),
    "profiles": ("fleetca.cli.profiles", "profiles", "List and show certificate profiles."),
    "recover": ("fleetca.cli.recover", "recover", "Classify what a crash left unfinished."),
    "renew": ("fleetca.cli.renew", "renew", "Renew a certificate over the network."),
    "renewals": ("fleetca.cli.renewals", "renewals", "Have certificates renewed before their time, see what was ordered, end it."),
    "revoke": ("fleetca.cli.revoke", "revoke", "Revoke a certificate or a whole device."),
    "scan": ("fleetca.cli.scan", "scan", "Look for private keys in firmware images."),
    "serve": ("fleetca.cli.serve", "serve", "Start and watch all processes of a deployment."),
    "status": ("fleetca.cli.status", "status", "Say whether a certificate still holds, as a relying party."),
    "tenants": ("fleetca.cli.tenants", "tenants", "Show the tenants: what each may have, and what it has."),
    "token": ("fleetca.cli.token", "token", "Create, list and withdraw one-time enrolment tokens."),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, _, about) in sorted(COMMANDS.items())])
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), about) for code, about in output.EXIT_CODES.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fleetca", prog_name="fleetca")
@click.option(
    "--tenant", envvar="FLEETCA_TENANT", metavar="NAME", help="Whose things are listed, shown and added; the house's when absent."
)
def fleetca(tenant: str | None) -> None:
    """A private PKI for fleets of devices.

    Start with `fleetca demo`; for a real deployment, `fleetca init`.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with the code of `output.EXIT_CODES`."""
    from ca.errors import FleetcaError

    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = fleetca.main(given, prog_name="fleetca", standalone_mode=False)
    except FleetcaError as error:
        code = output.report(error, as_json="--json" in given)
    except click.exceptions.Abort:
        output.note("fleetca: interrupted")
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except BrokenPipeError:
        # Who read us has gone (`| head`): nothing left to say, and Python must not complain while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:  # noqa: BLE001 - the last wall: a person gets words, never a traceback
        if os.environ.get("FLEETCA_DEBUG"):
            traceback.print_exc()
        output.note(
            f"fleetca: this should not have happened ({type(error).__name__}: {error}) [internal]\n"
            "  fix: run it again with FLEETCA_DEBUG=1 and report what it prints"
        )
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
