#!/usr/bin/env bash
# A Slurm of one node, for tests: munged, slurmctld and slurmd without systemd, on loopback, in a folder of their own.
#
#   apt-get install slurm-wlm munge
#   export SLURM_CONF=$(tests/slurm/start.sh FOLDER)      # as root, because slurmd starts jobs of any user
#   sbatch --wrap hostname
#   tests/slurm/stop.sh FOLDER
#
# The scheduler looks every second, and what a job prints is in the file that it names. There is no accounting.
set -euo pipefail
mkdir -p "$1"
folder=$(cd "$1" && pwd)
export PATH="$PATH:/usr/sbin"
mkdir -p "$folder/state" "$folder/spool"
chmod 755 "$folder"
node=$(hostname -s)
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

umask 077
head -c 1024 /dev/urandom >"$folder/munge.key"
umask 022
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
	--log-file="$folder/munged.log" --seed-file="$folder/munged.seed" >&2

# Elsewhere a job waits for seconds; submitit makes the folder that its output goes to when sbatch has returned.
printf '#!/bin/sh\nsleep 3\n' >"$folder/prolog"
chmod 755 "$folder/prolog"

cat >"$folder/slurm.conf" <<CONF
ClusterName=tests
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
JobRequeue=1
KillWait=30
PrologSlurmctld=$folder/prolog
MinJobAge=3600
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=tests Nodes=$node Default=YES MaxTime=INFINITE OverTimeLimit=0 State=UP
CONF

export SLURM_CONF="$folder/slurm.conf"
slurmctld >&2
slurmd >&2
for _ in $(seq 60); do
	sinfo --noheader --format=%T 2>/dev/null | grep -q idle && break
	sleep 0.5
done
sinfo --noheader --format=%T | grep -q idle || { tail "$folder"/*.log >&2; exit 1; }
echo "$SLURM_CONF"
