#!/usr/bin/env bash
# Ends the daemons that start.sh started in a folder, and the jobs with them.
set -uo pipefail
export PATH="$PATH:/usr/sbin" SLURM_CONF="$1/slurm.conf"
scancel --full --signal=KILL --user="$(id -un)" 2>/dev/null
scancel --user="$(id -un)" 2>/dev/null
for _ in $(seq 40); do
	[ -z "$(squeue --noheader --states=RUNNING,COMPLETING,CONFIGURING 2>/dev/null)" ] && break
	sleep 1
done
for daemon in slurmd slurmctld munged; do
	[ -f "$1/$daemon.pid" ] && kill "$(cat "$1/$daemon.pid")" 2>/dev/null
done
exit 0
