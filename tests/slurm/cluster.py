"""A real SLURM of one machine in a folder: its daemons, a queue of two partitions, and what to ask of it."""

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
NEEDED = (*DAEMONS, "sbatch", "srun", "scontrol", "squeue", "scancel")
ENDED = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL")
SECONDS = 300.0

# Works without cgroups, accounting and a system user. Jobs of `urgent` push those of `usual` out, who get a grace.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
JobRequeue=1
KillWait=10
SlurmctldPort={controller_port}
SlurmdPort={node_port}
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=usual Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=CANCEL GraceTime=60
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=2
"""


def missing() -> str:
    """Says why there can be no cluster here; empty if there can."""
    lacking = [name for name in NEEDED if shutil.which(name) is None and not Path("/usr/sbin", name).exists()]
    if lacking:
        return f"no SLURM on this machine ({', '.join(lacking)} missing): apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "the daemons of the SLURM test want root"


class Cluster:
    """Starts the daemons; `stop` ends them.

    Args:
        folder: for everything they write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.host = folder, socket.gethostname().split(".")[0]
        for name in ("state", "spool"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        configuration = folder / "slurm.conf"
        ports = {"controller_port": _free_port(), "node_port": _free_port()}
        configuration.write_text(CONFIGURATION.format(folder=folder, host=self.host, user="root", **ports), "utf-8")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLURM")},
            "SLURM_CONF": str(configuration),
            "PATH": f"{os.environ['PATH']}:/usr/sbin",
        }
        options = [f"--{name}={folder}/munge{end}" for name, end in _MUNGE_FILES.items()]
        self.daemons = [self._start("munged", "--foreground", "--force", *options)]
        self.until("munge's socket", lambda: (folder / "munge.socket").exists())
        self.daemons += [self._start("slurmctld", "-D"), self._start("slurmd", "-D", "-N", self.host)]
        self.until("an idle node", lambda: "idle" in self.ask("sinfo", "--noheader", "--format=%T"))

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{command[0]}.out").open("wb") as output:
            return subprocess.Popen(command, env=self.environment, stdout=output, stderr=output, start_new_session=True)

    def ask(self, *command: str) -> str:
        """Runs a command of SLURM's and gives what it prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def job(self, number: str) -> dict[str, str]:
        """Returns what SLURM knows of a job."""
        words = self.ask("scontrol", "show", "job", "-o", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def until(self, what: str, is_so: Callable[[], bool], seconds: float = SECONDS) -> None:
        """Waits for something."""
        end = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < end, f"no {what} after {seconds:.0f} s; {self.folder} has the daemons' logs"
            time.sleep(0.2)

    def ended(self, number: str) -> str:
        """Waits for a job's end and gives its state; a requeued job starts again at once and has five minutes.

        A busy machine needs half a minute to start: with the time limit of a test of time limits it would get nowhere.
        """
        end = time.monotonic() + SECONDS
        while (job := self.job(number)).get("JobState") not in ENDED:
            assert time.monotonic() < end, f"job {number} is {job.get('JobState')} after {SECONDS:.0f} s: {self.folder}"
            if job.get("JobState") == "PENDING" and job.get("Reason") == "BeginTime":
                self.until("an idle node", lambda: "idle" in self.ask("sinfo", "--noheader", "--format=%T"))
                # A start while the node still cleans up after the last turn fails for good.
                time.sleep(4)
                self.ask("scontrol", "update", f"JobId={number}", "StartTime=now", "TimeLimit=5")
            time.sleep(0.2)
        return job["JobState"]

    def stop(self) -> None:
        """Cancels what still runs and ends the daemons."""
        self.ask("scancel", "--user=root")
        self.until("empty queue", lambda: not self.ask("squeue", "--noheader").strip(), 30)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            daemon.wait(20)


_MUNGE_FILES = {"key-file": ".key", "socket": ".socket", "pid-file": ".pid", "log-file": ".log", "seed-file": ".seed"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
