"""Runs ``train.fit`` and kills it behind its second epoch, as a machine that is switched off."""

import os
import runpy
import signal
import sys
import threading
import time

HISTORY = os.path.join(sys.argv[-1].removeprefix("--output_dir="), "history.csv")


def _kill_after_two_epochs() -> None:
    # A line of names, and one an epoch.
    while not os.path.exists(HISTORY) or open(HISTORY, "rb").read().count(b"\n") < 3:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


threading.Thread(target=_kill_after_two_epochs, daemon=True).start()
sys.argv[0] = "train.fit"
runpy.run_module("train.fit", run_name="__main__", alter_sys=True)
