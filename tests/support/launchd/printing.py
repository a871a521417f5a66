"""What `launchctl print`, `list` and `print-disabled` show, in the form of macOS 13 and later."""

from __future__ import annotations

from tests.support.launchd.jobs import Job, Settings

DEFAULT_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"


def no_service(domain: str, label: str) -> str:
    return f'Bad request.\nCould not find service "{label}" in domain for {spoken(domain)}\n'


def spoken(domain: str) -> str:
    kind, _, uid = domain.partition("/")
    return "system" if kind == "system" else f"user {kind}: {uid}"


def job(job: Job, settings: Settings) -> str:
    kind = "LaunchDaemon" if job.domain == "system" else "LaunchAgent"
    lines = [
        f"{job.domain}/{job.label} = {{",
        f"\tactive count = {1 if job.process is not None else 0}",
        f"\tpath = {job.path}",
        f"\ttype = {kind}",
        f"\tstate = {job.state}",
        "",
        f"\tprogram = {job.arguments[0]}",
        "\targuments = {",
        *(f"\t\t{word}" for word in job.arguments),
        "\t}",
        "",
    ]
    for key, name in (
        ("WorkingDirectory", "working directory"),
        ("StandardOutPath", "stdout path"),
        ("StandardErrorPath", "stderr path"),
        ("UserName", "username"),
    ):
        if key in job.plist:
            lines += [f"\t{name} = {job.plist[key]}", ""]
    environment = {**job.plist.get("EnvironmentVariables", {}), "XPC_SERVICE_NAME": job.label}
    lines += [
        "\tdefault environment = {",
        f"\t\tPATH => {DEFAULT_PATH}",
        "\t}",
        "",
        "\tenvironment = {",
        *(f"\t\t{name} => {value}" for name, value in environment.items()),
        "\t}",
        "",
        f"\tdomain = {job.domain}" + ("" if job.domain == "system" else " [100007]"),
        *([] if job.domain == "system" else ["\tasid = 100007"]),
        f"\tminimum runtime = {job.plist.get('ThrottleInterval', 10)}",
        f"\texit timeout = {job.plist.get('ExitTimeOut', 5)}",
        f"\truns = {job.runs}",
    ]
    if job.process is not None:
        lines += [f"\tpid = {job.process.pid}", "\timmediate reason = inefficient"]
    lines += [
        "\tforks = 2",
        "\texecs = 1",
        "\tinitialized = 1",
        f"\tlast exit code = {_last_exit(job)}",
        "",
        "\tspawn type = daemon (3)",
        "\tproperties = " + " | ".join(_properties(job)),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _last_exit(job: Job) -> str:
    if job.last_exit is None:
        return "(never exited)"
    return str(job.last_exit) if job.last_exit >= 0 else f"0 (signal {-job.last_exit})"


def _properties(job: Job) -> list[str]:
    named = {"KeepAlive": "keepalive", "RunAtLoad": "runatload"}
    return [word for key, word in named.items() if job.plist.get(key)] + ["inferred program"]


def disabled(overrides: dict[str, bool]) -> str:
    rows = [
        f'\t\t"{name}" => {"disabled" if off else "enabled"}' for name, off in overrides.items()
    ]
    return "\n".join(["\tdisabled services = {", *rows, "\t}"]) + "\n"


def table(jobs: list[Job]) -> str:
    rows = ["PID\tStatus\tLabel"]
    for each in jobs:
        pid = "-" if each.process is None else str(each.process.pid)
        rows.append(f"{pid}\t{each.last_exit or 0}\t{each.label}")
    return "\n".join(rows) + "\n"


def entry(job: Job) -> str:
    pid = [] if job.process is None else [f'\t"PID" = {job.process.pid};']
    body = [
        f'\t"Label" = "{job.label}";',
        '\t"OnDemand" = false;',
        f'\t"LastExitStatus" = {job.last_exit or 0};',
        *pid,
        f'\t"Program" = "{job.arguments[0]}";',
    ]
    return "\n".join(["{", *body, "};"]) + "\n"


def domain(domain: str, jobs: list[Job]) -> str:
    rows = []
    for each in jobs:
        pid = "0" if each.process is None else str(each.process.pid)
        rows.append(f"\t\t{pid:>8}      {each.last_exit or '-'} \t{each.label}")
    kind = "system" if domain == "system" else "login"
    lines = [f"{domain} = {{", f"\ttype = {kind}", "\thandle = 100007", "\tservices = {"]
    return "\n".join([*lines, *rows, "\t}", "}"]) + "\n"
