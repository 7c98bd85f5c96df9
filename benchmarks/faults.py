"""What a process that failed had to say, in one line."""

from __future__ import annotations


def what_happened(stderr: str) -> str:
    """The line that names the error: the one under the last traceback, or our command's own; else the last.

    torch's compiler says more after it, ending with a hint about its environment variables.
    """
    lines = [line for line in stderr.splitlines() if line.strip()]
    starts = [index for index, line in enumerate(lines) if line.startswith("Traceback ")]
    if starts:
        after = [line for line in lines[starts[-1] + 1 :] if not line[0].isspace()]
        # "backend='inductor' raised:" has what was raised in the next line
        return " ".join(after[: 2 if after[0].endswith(":") else 1]) if after else lines[-1]
    ours = [line for line in lines if line.startswith("error: ")]
    return (ours or lines or ["it said nothing"])[-1]
