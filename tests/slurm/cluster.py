"""A one-node SLURM on loopback, from Debian's packages; everything that it writes lies in one folder."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil

DAEMONS = ("munged", "slurmctld", "slurmd")
CPUS = 8
MEMORY_MB = 256_000  # on paper, as the cores are: jobs wait for each other only where they ask for the one GPU

SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
# A requeued job waits until its credential has expired: 120 s by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmdParameters=config_overrides
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/completed.txt
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
MinJobAge=3600
KillWait=5
SlurmdTimeout=4
MessageTimeout=3
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory_mb} Gres=gpu:1 State=UNKNOWN
PartitionName=batch Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""
OTHER_FILES = {
    "cgroup.conf": "CgroupPlugin=cgroup/v1\n",
    "gres.conf": "AutoDetect=off\nName=gpu File=/dev/null\n",
}
# The plugin's inner process strips every SLURM_* variable, SLURM_CONF too.
SRUN = """\
#!/bin/sh
SLURM_CONF={folder}/slurm.conf exec {srun} "$@"
"""


def missing() -> str | None:
    """Why no cluster can be started here; None if one can."""
    absent = [name for name in (*DAEMONS, "sbatch", "srun", "squeue") if not shutil.which(name, path=_path())]
    if absent:
        return f"{', '.join(absent)} not installed (Debian: apt-get install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "slurmd must be run by root"


def install() -> None:
    """Installs what is missing, where that is possible; :func:`missing` tells whether it was."""
    if missing() and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for options in ("update", "install -y --no-install-recommends slurm-wlm munge"):
            subprocess.run(["apt-get", "-qq", *options.split()], env=quiet, capture_output=True)


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def until(true: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Waits for something to become true."""
    limit = time.monotonic() + seconds
    while not true():
        if time.monotonic() > limit:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.1)


class Cluster:
    """The daemons and what they tell.

    Attributes:
        folder: Configuration, state and logs.
        environment: With which SLURM's commands reach this cluster.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.host = folder, socket.gethostname().split(".")[0]
        wrappers = folder / "bin"
        wrappers.mkdir(parents=True)
        path = f"{wrappers}:{_path()}"
        self.environment = {**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
        (wrappers / "srun").write_text(SRUN.format(folder=folder, srun=shutil.which("srun")))
        (wrappers / "srun").chmod(0o755)
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Starts the daemons and waits until the node takes jobs."""
        # slurmctld asks the resolver for the name, whatever address the configuration gives.
        try:
            socket.gethostbyname(self.host)
        except OSError:
            with Path("/etc/hosts").open("a") as hosts:
                hosts.write(f"127.0.0.1 {self.host}\n")
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o400)
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        ports = (_free_port(), _free_port())
        values = {"folder": self.folder, "host": self.host, "ports": ports, "cpus": CPUS, "memory_mb": MEMORY_MB}
        (self.folder / "slurm.conf").write_text(SLURM_CONF.format(**values))
        for name, text in OTHER_FILES.items():
            (self.folder / name).write_text(text)
        munge = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        self._start("munged", "--foreground", "--force", *munge, f"--socket={self.folder}/munge.socket")
        until((self.folder / "munge.socket").exists, "munge's socket")
        self._start("slurmctld", "-D")
        self.start_node()

    def start_node(self) -> None:
        """Starts slurmd and waits for its node."""
        self._start("slurmd", "-D", "-N", self.host)
        until(lambda: self._node_state() in ("idle", "mix", "alloc"), f"node up; see {self.folder}")

    def crash_node(self) -> None:
        """Kills slurmd and every process of the jobs on it, at once and without notice, until SLURM has noticed."""
        node = psutil.Process(self._daemons["slurmd"].pid)
        for victim in (node, *self._job_processes()):
            _send(victim, signal.SIGKILL)
        self._daemons.pop("slurmd").wait()
        until(lambda: self._node_state().startswith("down"), "node down")

    def stop(self) -> None:
        """Ends all jobs and all daemons, whatever state they are in."""
        for process in self._job_processes():
            _send(process, signal.SIGKILL)
        for name in ("slurmd", "slurmctld", "munged"):
            if daemon := self._daemons.pop(name, None):
                daemon.terminate()
                try:
                    daemon.wait(5)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()

    def command(self, *words: str) -> str:
        """What a command of SLURM prints; empty if it fails."""
        finished = subprocess.run(words, env=self.environment, capture_output=True, text=True)
        return finished.stdout.strip() if finished.returncode == 0 else ""

    def jobs(self, folder: Path, states: str = "all") -> dict[str, str]:
        """Jobs that were sent from a folder: comment (rule and wildcards) of each id."""
        rows = self.command("squeue", "-h", "-t", states, "-o", "%A|%Z|%k").splitlines()
        parts = [row.split("|") for row in rows]
        return {number: comment for number, sent_from, comment in parts if sent_from == str(folder)}

    def requests(self, folder: Path) -> list[tuple[str, tuple[str, ...]]]:
        """Comment of each of a folder's jobs, in order, with the time, memory and cores that it asked for."""
        shown = ("--noconvert", "-h", "-t", "all", "-S", "i", "-o", "%Z|%k|%l|%m|%C")
        rows = self.command("squeue", *shown).splitlines()
        parts = [row.split("|") for row in rows]
        return [(comment, tuple(asked)) for sent_from, comment, *asked in parts if sent_from == str(folder)]

    def records(self, folder: Path) -> list[dict[str, str]]:
        """SLURM's records of a folder's jobs, by its own names of their fields."""
        rows = self.command("scontrol", "--oneliner", "show", "job").splitlines()
        records = [dict(re.findall(r"(\w+)=(\S*)", row)) for row in rows]
        return [record for record in records if record.get("WorkDir") == str(folder)]

    def ended(self, folder: Path) -> list[str]:
        """States in which a folder's jobs have ended, in order of time; a job that was requeued stands twice."""
        log = self.folder / "completed.txt"
        rows = [dict(word.split("=", 1) for word in row.split() if "=" in word) for row in log.read_text().splitlines()]
        return [row["JobState"] for row in rows if row["WorkDir"] == str(folder)]

    def _node_state(self) -> str:
        return self.command("sinfo", "-h", "-p", "batch", "-o", "%t")

    def _start(self, name: str, *options: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            # They die with the tests, should these be killed themselves.
            command = ["setpriv", "--pdeathsig", "KILL", str(shutil.which(name, path=_path())), *options]
            # Step daemons inherit the folder of slurmd: that is how they are found again.
            self._daemons[name] = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=output, stderr=output
            )

    def _job_processes(self) -> list[psutil.Process]:
        """Every process of this cluster's jobs, their step daemons first: these have the folder of slurmd."""
        found = []
        for process in psutil.process_iter(["name", "cwd"]):
            if process.info["name"] == "slurmstepd" and process.info["cwd"] == str(self.folder):
                found += [process, *process.children(recursive=True)]
        return found


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


if __name__ == "__main__":
    install()
    sys.exit(missing() and f"no SLURM to test on: {missing()}")
