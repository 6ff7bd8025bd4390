"""docs/install.md as a new user reads it, by copy and paste and with a clock: a clean system with Postfix and Unbound of Debian, the
.deb in the home folder, and the internet of internet.py. Each command has to print what the page shows. What was typed and
printed, and how long each command took, goes to target/packages/clock.txt. How long is shown, and is no verdict.
"""

import re
import shutil
import subprocess
import textwrap
import time

from .internet import Internet
from .machine import Machine, expect, wait
from .service import PACKAGES, only

PAGE = PACKAGES.parents[1] / "docs/install.md"
# Lines of `apply` about waiting, which depend on how fast the machine is.
WAITING = ("not yet", "waiting until", "You can leave with Ctrl-C")
RECORD = re.compile(r"\s*(\S+?)\.? +(?:\d+ +)?IN +(TXT|CNAME|A) +(.+)")
TRANSCRIPT = PACKAGES / "clock.txt"


def commands(title):
    """The commands of a section of the page, in its order, each with the lines that it has to print; None for any."""
    section = PAGE.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    found = []
    for indent, kind, block in re.findall(r"^( *)```(sh|console)\n(.*?)^ *```", section, re.DOTALL | re.MULTILINE):
        block = textwrap.dedent(block)
        if kind == "sh":
            found.append((block.strip(), None))
            continue
        for part in block.split("$ ")[1:]:
            command, *shown = part.splitlines()
            found.append((command, shown))
    return found


def masked(line):
    return re.sub(r"\b20\d{12}\b", "TIME", line.rstrip())


def fits(shown, printed):
    """Whether a line is as shown, where `…` stands for anything."""
    return re.fullmatch(".*".join(re.escape(part) for part in shown.split("…")), printed) is not None


def matches(shown, printed):
    """Whether lines are as shown, where a line `…` stands for any number of lines."""
    if not shown:
        return not printed
    if shown[0].strip() == "…":
        return any(matches(shown[1:], printed[skipped:]) for skipped in range(len(printed) + 1))
    return bool(printed) and fits(shown[0], printed[0]) and matches(shown[1:], printed[1:])


class Terminal:
    """Where the new user types."""

    def __init__(self, machine, internet, transcript):
        self.machine, self.internet, self.transcript = machine, internet, transcript

    def type(self, command, shown):
        """Types a command, with all records published that it prints. It has to print what is shown. Returns the seconds."""
        begun = time.monotonic()
        inside = ["nsenter", f"--target={self.machine.leader}", "--all", "--", "env", "-i", "su", "-", "admin", "-c", command]
        process = subprocess.Popen(inside, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        printed = []
        for line in process.stdout:
            printed.append(line.rstrip("\n"))
            record = RECORD.fullmatch(printed[-1])
            if "sternpost apply" in command and record:
                self.internet.publish(f"{record[1]}. IN {record[2]} {record[3]}")
        code = process.wait()
        seconds = time.monotonic() - begun
        self.transcript.write("".join(f"{line}\n" for line in [f"$ {command}", *printed, f"[{seconds:.1f} s]", ""]))
        self.transcript.flush()
        text = "\n".join(printed)
        expect(code == 0 or (shown is not None and "check" in command), f"{command} ended with {code}:\n{text}{self.machine.journal()}")
        if shown is not None:
            lines = [masked(line) for line in printed if not line.strip().startswith(WAITING)]
            expect(matches(list(map(masked, shown)), lines), f"{command}\nhas to print\n" + "\n".join(shown) + f"\nprinted\n{text}")
        return seconds


def mail_server(machine, internet):
    """The mail server of example.org, before Sternpost comes: Postfix with a certificate."""
    for kind, file in zip(("chain", "key"), internet.certificate("mail.example.org"), strict=True):
        shutil.copy(file, machine.root / f"etc/postfix/{kind}.pem")
    settings = ["myhostname=mail.example.org", "mydestination=example.org, localhost", "inet_interfaces=all", "inet_protocols=ipv4"]
    settings += ["smtpd_tls_chain_files=/etc/postfix/key.pem, /etc/postfix/chain.pem", "smtpd_tls_security_level=may"]
    machine.run("postconf", "-e", *settings)
    machine.run("systemctl", "restart", "postfix.service")


def new_user():
    """Postfix in five commands, and the first domain."""
    with Machine("mail") as machine, Internet(machine) as internet, open(TRANSCRIPT, "w") as transcript:
        mail_server(machine, internet)
        machine.copy(only(PACKAGES, "*.deb"), "home/admin")
        terminal = Terminal(machine, internet, transcript)
        for title, most, after in [
            ("Postfix in five commands", 5, lambda: delivered(machine, internet)),
            ("The first domain in ten minutes", 10, lambda: None),
        ]:
            steps = commands(title)
            transcript.write(f"=== {title}\n\n")
            seconds = sum(terminal.type(*step) for step in steps)
            words = f"{title}: {len(steps)} commands, {seconds:.0f} seconds without reading and typing"
            print(f"     {words}")
            transcript.write(f"=== {words}; the page promises {most} minutes\n\n")
            after()
        expect(len(commands("Postfix in five commands")) == 5, "these are not five commands")


def delivered(machine, internet):
    """What the page promises of Postfix: a message to gmail.com leaves over verified TLS, and the log says so."""
    message = "Subject: trial\n\nHello.\n"
    machine.run("su", "-", "admin", "-c", f"printf '{message}' | /usr/sbin/sendmail -f admin@example.org somebody@gmail.com")
    wait("the message arrives", lambda: "True RCPT TO:<somebody@gmail.com>" in internet.log("mail"))
    wait("it is logged", lambda: "status=sent" in machine.run("journalctl", "--no-pager", "--grep=status=sent", check=False))
    log = machine.run("journalctl", "--no-pager", "--grep=TLS connection established", check=False)
    expect("Verified TLS connection established to mx.gmail.com" in log, f"the mail log:\n{log}")


TRIALS = [("docs/install.md by copy and paste, with a clock", new_user)]
