#!/usr/bin/env bash
# A SLURM of one node, for trying the benchmark on SLURM where there is no cluster.
#
#   apt-get install slurm-wlm munge           (Debian's packages; nothing is installed here)
#   tests/slurm/single_node.sh start FOLDER   FOLDER is created and holds all that is written
#   export SLURM_CONF=FOLDER/slurm.conf PATH=FOLDER/bin:$PATH   now sinfo, sbatch and Snakemake work in this shell
#   tests/slurm/single_node.sh stop FOLDER    ends the daemons and their jobs
#
# The partition is called "test". No accounting and no control groups: it runs in a container or a small VM too.
set -euo pipefail
PATH=$PATH:/usr/sbin  # of the daemons, which a user's may lack

fail() { echo "single_node.sh: $*" >&2; exit 1; }

[ $# -eq 2 ] || fail "usage: single_node.sh start|stop FOLDER"
action=$1
[ -n "$2" ] || fail "the folder's name is empty"

free_port() {  # not in use now; good enough for one machine
  local port
  while :; do
    port=$((20000 + RANDOM % 20000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}

write_configuration() {
  local node memory
  node=$(hostname -s)
  memory=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
  cat >"$folder/slurm.conf" <<CONF
ClusterName=single
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge.socket
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
KillWait=5
SlurmdParameters=config_overrides
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory State=UNKNOWN
PartitionName=test Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
}

start() {
  for program in munged slurmctld slurmd sinfo; do
    command -v "$program" >/dev/null || fail "$program is missing: apt-get install slurm-wlm munge"
  done
  mkdir -p "$2/state" "$2/spool" "$2/bin"
  folder=$(cd "$2" && pwd)
  [ ! -e "$folder/slurmctld.pid" ] || fail "$folder has one that was started; stop it first"
  chmod 755 "$folder"
  write_configuration
  export SLURM_CONF=$folder/slurm.conf
  # Snakemake's jobs call srun without the variable.
  printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' "$SLURM_CONF" "$(command -v srun)" >"$folder/bin/srun"
  chmod 755 "$folder/bin/srun"
  (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
  # --force: the folder may lie below one that others can write to, such as /tmp.
  munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" 2>>"$folder/munged.err"
  slurmctld
  slurmd
  for _ in $(seq 60); do
    if [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ]; then
      echo "export SLURM_CONF=$SLURM_CONF PATH=$folder/bin:\$PATH"
      return
    fi
    sleep 0.5
  done
  tail -n 20 "$folder"/*.log >&2
  stop "$@"
  fail "the node did not become idle; its logs are above"
}

end_daemon() {  # by the process number that it wrote, and only if that process has its name
  local name=$1 file=$2 process
  [ -f "$file" ] || return 0
  process=$(cat "$file")
  if [ -n "$process" ] && [ "$(cat "/proc/$process/comm" 2>/dev/null)" = "$name" ]; then
    kill "$process" 2>/dev/null || true
    for _ in $(seq 40); do
      [ -d "/proc/$process" ] || break
      sleep 0.25
    done
    kill -KILL "$process" 2>/dev/null || true
  fi
  rm -f "$file"
}

stop() {
  [ -d "$2" ] || fail "$2 is not a folder"
  folder=$(cd "$2" && pwd)
  export SLURM_CONF=$folder/slurm.conf
  if [ -f "$folder/slurmctld.pid" ]; then
    timeout 20 scancel --me 2>/dev/null || true
    for _ in $(seq 40); do
      [ -n "$(timeout 5 squeue --noheader 2>/dev/null)" ] || break
      sleep 0.25
    done
  fi
  end_daemon slurmd "$folder/slurmd.pid"
  end_daemon slurmctld "$folder/slurmctld.pid"
  end_daemon munged "$folder/munged.pid"
}

case $action in
  start) start "$@" ;;
  stop) stop "$@" ;;
  *) fail "the action is start or stop, not $action" ;;
esac
