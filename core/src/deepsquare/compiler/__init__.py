"""Workflow → batch script: a pure function of the workflow, the same bytes at every call.

Scripts are compiled before a provider is chosen. What differs between providers is left to variables that the supervisor
sets when it submits; unset, the reference's paths count:

| variable | default | what is there |
|---|---|---|
| DEEPSQUARE_SHARED_ROOT | /opt/cache/shared | `UID/JOB.SLURMID`, a job's scratch; `UID/started/JOB`, its marker |
| DEEPSQUARE_PERSISTENT_ROOT | /opt/cache/persistent | `user-UID`, the account's cache on the shared file system |
| DEEPSQUARE_WORLD_TMP_ROOT | /opt/cache/world-tmp | everybody's cache on the shared file system |
| DEEPSQUARE_DISK_ROOT | /opt/cache/disk | `tmp/user-UID` and `world-tmp`, the same on a node's own disk |
| DEEPSQUARE_RUNTIME | (none) | a folder whose `bin` comes first on the PATH of steps on the host |
| DEEPSQUARE_APPTAINER | apptainer | the program that runs containers of Apptainer |
| DEEPSQUARE_ENROOT | enroot | the program that runs those of Enroot |
| DEEPSQUARE_S5CMD | s5cmd | the program that moves data from and to S3 |
| DEEPSQUARE_BORE | dpsproxy | the client of bore servers; a provider's own finds the secret in BORE_SECRET |
| DEEPSQUARE_IMAGES_ROOT | /cvmfs/containers.deepsquare.run | images that the provider hosts; `.sif` may be left out |
| DEEPSQUARE_BINDS | (none) | folders of the provider's that containers see too, at the same place; joined by `:` |
"""

from deepsquare.compiler.script import EXIT_STARTED_BEFORE, LATE_BOUND, compile_workflow

__all__ = ["EXIT_STARTED_BEFORE", "LATE_BOUND", "compile_workflow"]
