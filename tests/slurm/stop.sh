#!/usr/bin/env bash
# Ends the daemons that start.sh started in a folder, and the jobs with them.
set -uo pipefail
export PATH="$PATH:/usr/sbin" SLURM_CONF="$1/slurm.conf"
scancel --state=RUNNING,PENDING --user=root 2>/dev/null
for daemon in slurmd slurmctld munged; do
	[ -f "$1/$daemon.pid" ] && kill "$(cat "$1/$daemon.pid")" 2>/dev/null
done
exit 0
