"""The commands, one file each; what they need besides click is imported when one runs, so that help comes at once."""

from nas.commands.command_line import run
from nas.commands.compare import compare
from nas.commands.dashboard import dashboard
from nas.commands.evaluate import evaluate
from nas.commands.export import export
from nas.commands.fidelity import fidelity
from nas.commands.import_weights import import_weights
from nas.commands.measure import measure
from nas.commands.pick import pick
from nas.commands.plan import plan
from nas.commands.predict import predict
from nas.commands.presets import presets
from nas.commands.profile import profile
from nas.commands.report import report
from nas.commands.retrain import retrain
from nas.commands.runs import runs
from nas.commands.search import search
from nas.commands.show import show
from nas.commands.train import train

COMMANDS = (
    search,
    plan,
    train,
    pick,
    retrain,
    predict,
    evaluate,
    export,
    fidelity,
    compare,
    profile,
    measure,
    show,
    dashboard,
    report,
    runs,
    presets,
    import_weights,
)


def main() -> int:
    """Runs the command that `sys.argv` names; the exit status."""
    return run(COMMANDS)
