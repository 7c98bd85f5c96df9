"""A C++ compiler that is found and does not work: a run goes on without it, or says so in one line."""

import os

import pytest

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="the compiler that does not work is a shell script"),
    pytest.mark.slow,  # torch's compiler takes seconds to import
]

WITHOUT_HEADERS = """#!/bin/sh
case "$*" in *--version*) echo "g++ 13.2"; exit 0;; esac
echo "kernel.cpp:1:10: fatal error: Python.h: No such file or directory" >&2
exit 1
"""
NO_COMPILER = "#!/bin/sh\nexit 1\n"


@pytest.fixture
def with_compiler(start, workdir):
    """Run a command where torch.compile finds this compiler, and nothing that an earlier one has built."""

    def run(script, *words):
        compiler = workdir / "broken-compiler"
        compiler.write_text(script, encoding="utf-8")
        compiler.chmod(0o755)
        surroundings = {"CXX": str(compiler), "TORCHINDUCTOR_CACHE_DIR": str(workdir / "cache")}
        process = start(*words, env=os.environ | surroundings)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    return run


def test_a_run_that_would_compile_goes_on_without_and_says_why(with_compiler, tiny):
    """A run of 10²⁸ FLOPs, long enough to compile for, is planned and not waited for."""
    code, out, err = with_compiler(WITHOUT_HEADERS, "plan", *tiny, "train.steps=1_000_000_000_000")
    assert code == 0, err
    assert "Traceback" not in err
    (line,) = (line for line in out.splitlines() if "torch.compile" in line)
    assert "torch.compile off (kernels cannot be built: " in line


def test_a_run_that_was_told_to_compile_ends_with_one_line(with_compiler, tiny):
    code, out, err = with_compiler(NO_COMPILER, "train", *tiny, "train.compile=true")
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert "train.compile: true cannot be had on cpu here (kernels cannot be built: " in err
    assert "broken-compiler" in err
    assert "give train.compile=false" in err
