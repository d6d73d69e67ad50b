"""Start of an agent: ``python -u -X faulthandler .../agent [--backend NAME=FILE.py ...]``, from a directory or from a packed ``.pyz``.

Run as a script, Python puts this directory (or archive) first on ``sys.path``, where ``protocol`` or ``measure`` would shadow modules of
the frameworks. It is taken off, and the files here become the package ``inference_gate_agent``, of which only relative imports know.
"""

import importlib
import os
import sys
import types

PACKAGE = "inference_gate_agent"


def main():
    # type: () -> int
    if sys.version_info < (3, 6):
        sys.stderr.write("The agent needs Python 3.6 or later, and this is %s.\n" % sys.version.split()[0])
        return 2
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or os.getcwd()) != here]
    package = types.ModuleType(PACKAGE)
    package.__path__ = [here]
    sys.modules[PACKAGE] = package
    if sys.argv[1:2] == ["--sample-telemetry"]:  # an agent starts itself again so, beside a measurement
        telemetry = importlib.import_module(PACKAGE + ".telemetry")
        return int(telemetry.main(sys.argv[2:]))
    serve = importlib.import_module(PACKAGE + ".serve")
    return int(serve.main(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
