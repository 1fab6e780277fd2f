"""From C source to a loaded library: compiled on first use, kept in a cache, and done without where that fails.

The sources lie beside this file. They are compiled for the machine at hand by its own C compiler, in a few seconds,
once: the result is kept under a name made of the sources, the flags, the compiler and the processor, so that another
version, machine or compiler never finds the wrong one. Whatever goes wrong (no compiler or one that does not end, a corrupt
or full cache, an unknown processor), `library()` is None, `why_not()` says why, and a warning says it once.

What is kept is code that will run: only files of this user that nobody else may write are loaded, no links.

    CC                  the compiler; without it the first of cc, gcc, clang that there is
    ZAMBA_LAB_CACHE     the folder in whose subfolder "native" the library is kept; otherwise the user's cache folder
    ZAMBA_LAB_CFLAGS    more flags for it, after ours: for a sanitizer, or for another processor than this one
    ZAMBA_LAB_NATIVE    "off": do without, silently
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from zamba_lab.native.kept import BUILDING, NotPrivate, cache_folder, check_private, private_folder, remove_stale

SOURCES = Path(__file__).parent
# Each source is compiled once for each dtype of its tensors, gemv.c of its weights.
DTYPES = ("f32", "bf16", "f64")
UNITS = {
    "ssd": DTYPES,
    "scan": DTYPES,
    "conv": DTYPES,
    "norm": DTYPES,
    "step": DTYPES,
    "gemv": ("f32", "bf16", "int8"),
    "library": ("any",),
}
# On 64-bit ARM "this processor" is a matter of -mcpu: clang 14 refuses -march=native there.
NATIVE = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
# Of 512 bits where there are such: compilers take 256 unasked for what they make of loops, though beside vectors written of 512.
WIDE = ("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()
FLAGS = ("-O2", "-ftree-vectorize", NATIVE, "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fPIC")
ABI = 7  # library.c says the same: a library that answers another number is not this version's
TIME_LIMIT = 600  # seconds that all compilers together may take: a busy machine needs a minute

_library: ctypes.CDLL | None = None
_reason: str | None = None
_tried = False


class BuildError(RuntimeError):
    """Why there is no native library, in a sentence a user can act on."""


def available() -> bool:
    """Whether the native forms can be used: builds and loads them the first time."""
    return library() is not None


# All that torch.compiler.assume_constant_result does but for importing the compiler, which takes as long as torch itself.
available._dynamo_marked_constant = True


def library() -> ctypes.CDLL | None:
    """The loaded library, or None. The first call may compile, the first one that fails warns."""
    global _library, _reason, _tried
    if not _tried:
        _tried = True
        try:
            _library = _load()
        except (BuildError, OSError) as error:
            _reason = str(error)
            if os.environ.get("ZAMBA_LAB_NATIVE") != "off":
                _warn(
                    f"zamba_lab runs without its native forms, correctly but several times slower: {error}. "
                    "ZAMBA_LAB_NATIVE=off says that this is as it should be"
                )
    return _library


def why_not() -> str | None:
    """Why `library()` is None, or None."""
    return _reason


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=4)


def _load() -> ctypes.CDLL:
    if os.environ.get("ZAMBA_LAB_NATIVE") == "off":
        raise BuildError("they are switched off by ZAMBA_LAB_NATIVE")
    compiler = find_compiler()
    name = f"kernels-{_key(compiler)}.so"
    try:
        folder = private_folder(cache_folder())
        loaded = _open(folder / name)
        if loaded is None:
            build(compiler, folder / name)
            loaded = _open(folder / name)
    except OSError as problem:
        return _build_aside(compiler, problem)
    if loaded is None:
        raise BuildError(f"what {shlex.join(compiler)} built in {folder} does not load")
    return loaded


def _build_aside(compiler: list[str], problem: OSError) -> ctypes.CDLL:
    """Where nothing can be kept: build for this process alone. An open library needs its file no more."""
    if isinstance(problem, NotPrivate):
        _warn(f"the native forms are built anew for this process and not kept: {problem}")
    try:
        with tempfile.TemporaryDirectory(prefix=BUILDING) as folder:
            build(compiler, Path(folder) / "kernels.so")
            loaded = _open(Path(folder) / "kernels.so")
    except OSError as error:
        raise BuildError(
            f"neither the cache folder ({problem}) nor a temporary one ({error}) can be written; ZAMBA_LAB_CACHE names another"
        ) from error
    if loaded is None:
        raise BuildError(f"what {shlex.join(compiler)} built does not load")
    return loaded


def find_compiler() -> list[str]:
    """The command of the C compiler, from $CC or the usual names. Raises BuildError if there is none."""
    if sys.platform == "win32":
        raise BuildError("they are for Linux and macOS")
    named = _words("CC")
    for command in [named] if named else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(command[0]):
            return command
    raise BuildError(
        f"the C compiler {named[0]!r} named by CC is not there"
        if named
        else "there is no C compiler (cc, gcc or clang; on Debian: apt-get install gcc)"
    )


def _words(variable: str) -> list[str]:
    """A variable of the environment as a shell would split it."""
    try:
        return shlex.split(os.environ.get(variable, ""))
    except ValueError as error:
        raise BuildError(f"{variable} is no command line ({error}): {os.environ[variable]!r}") from error


def all_flags() -> list[str]:
    """The compiler's flags: ours, then ZAMBA_LAB_CFLAGS."""
    return [*FLAGS, *_words("ZAMBA_LAB_CFLAGS")]


def _key(compiler: list[str]) -> str:
    """Everything the library depends on, as a name."""
    parts = [
        *WIDE,
        *all_flags(),
        *compiler,
        str(shutil.which(compiler[0])),
        _output([*compiler, "--version"], min(60, TIME_LIMIT)),
        _processor(),
    ]
    for file in sorted([*SOURCES.glob("*.c"), *SOURCES.glob("*.h"), *SOURCES.glob("*.inc")]):
        parts += [file.name, file.read_text(encoding="utf-8")]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:20]


def _processor() -> str:
    """What NATIVE depends on: a home folder may be shared by machines of several kinds."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    told = {line for line in lines if line.startswith(("flags", "Features", "model name", "CPU part"))}
    return "\n".join([platform.machine(), platform.processor(), *sorted(told)])


def _start(command: list[str]) -> subprocess.Popen:
    try:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, **pipes, encoding="utf-8", errors="replace", start_new_session=True)
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run ({error})") from error


def _outputs(processes: list[subprocess.Popen], deadline: float) -> list[str]:
    """What each wrote, once all have ended. Raises BuildError at the deadline, when all that still run are ended."""
    try:
        return [process.communicate(timeout=max(0.1, deadline - time.monotonic()))[0] for process in processes]
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{shlex.join(processes[0].args[:1])} did not end in time") from error
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()
            process.stdout.close()


def _output(command: list[str], seconds: float) -> str:
    return _outputs([_start(command)], time.monotonic() + seconds)[0]


def build(compiler: list[str], file: Path) -> None:
    """Compile the sources, each by a process of its own, and link them to `file`, which appears whole or not at all.

    Raises BuildError with the compiler's own words if it refuses or does not end, OSError if the folder cannot be written.
    """
    flags, deadline = all_flags(), time.monotonic() + TIME_LIMIT
    remove_stale(file.parent, 2 * TIME_LIMIT)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=BUILDING) as folder:
        units = [(SOURCES / f"{name}.c", dtype, Path(folder) / f"{name}-{dtype}.o") for name, dtypes in UNITS.items() for dtype in dtypes]
        # Apple's compiler has no OpenMP of its own: then each call runs on one thread. Very old ones do not know WIDE.
        for some in dict.fromkeys([(*WIDE, "-fopenmp"), ("-fopenmp",), WIDE, ()]):
            command = [*compiler, *some, *flags]
            processes = [_start([*command, f"-DTYPE_{dtype}", "-c", str(source), "-o", str(out)]) for source, dtype, out in units]
            errors = _outputs(processes, deadline)
            if not any(process.returncode for process in processes):
                break
        else:
            _raise(f"{shlex.join(compiler)} does not compile them", errors, folder)
        made = Path(folder) / "kernels.so"
        linker = _start([*command, "-shared", *(str(out) for _, _, out in units), "-o", str(made), "-lm"])
        errors = _outputs([linker], deadline)
        if linker.returncode:
            _raise(f"{shlex.join(compiler)} does not link them", errors, folder)
        made.chmod(0o600)
        _seal(made).replace(_seal(file))
        made.replace(file)


def _raise(what: str, texts: list[str], folder: str) -> None:
    """BuildError with the compiler's own words; OSError if the reason is a full disk."""
    (Path(folder) / "room").write_bytes(bytes(4 << 20))
    lines = [line for text in texts for line in text.splitlines() if line.strip()]
    words = next((line for line in lines if "error" in line), lines[0] if lines else "it says nothing").strip()
    raise BuildError(f"{what}: {words}")


def _seal(file: Path) -> Path:
    """Write the file's hash beside it if it is not there; return where it stands."""
    seal = file.with_suffix(".sha256")
    if file.exists() and not seal.exists():
        seal.touch(mode=0o600)
        seal.write_text(hashlib.sha256(file.read_bytes()).hexdigest())
    return seal


def _open(file: Path) -> ctypes.CDLL | None:
    """Load a library if it is the one that was built: opening half a file can end the process, so its hash comes first.

    None if it is not there or another. Raises NotPrivate if it may be somebody else's.
    """
    try:
        for path in (file, file.with_suffix(".sha256")):
            check_private(path, stat.S_ISREG)
        if hashlib.sha256(file.read_bytes()).hexdigest().encode() != file.with_suffix(".sha256").read_bytes():
            return None
        loaded = ctypes.CDLL(str(file))
        return loaded if loaded.zamba_native_abi() == ABI else None
    except NotPrivate:
        raise
    except (OSError, AttributeError):
        return None
