"""Starts the agent whose file is named among the arguments as on a machine with an Edge TPU.

The folder ``DOUBLE_EDGETPU_ROOT`` stands for / where the agent looks for Edge TPUs, and nowhere else: all other facts are this machine's.
"""

import importlib
import importlib.util
import os
import sys
import types


def main():
    place = next(number for number, argument in enumerate(sys.argv) if argument.endswith("__main__.py"))
    path, sys.argv = sys.argv[place], sys.argv[place:]
    specification = importlib.util.spec_from_file_location("agent_main", path)
    agent = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(agent)

    def import_module(name):
        facts = importlib.import_module(agent.PACKAGE + ".accelerator_facts")
        look = facts.edge_tpus
        facts.edge_tpus = lambda root: look(os.environ["DOUBLE_EDGETPU_ROOT"])
        return importlib.import_module(name)

    agent.importlib = types.SimpleNamespace(import_module=import_module)
    return agent.main()


if __name__ == "__main__":
    sys.exit(main())
