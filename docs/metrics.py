"""Writes docs/metrics.md from the table of metrics: `python3 docs/metrics.py`. The file is not edited by hand."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cc_slurm_adapter.counters import BUCKETS
from cc_slurm_adapter.daemon.metrics import METRICS, PREFIX, Metric

BEGINNING = """\
# Metrics

- [Prometheus asks the daemon](#prometheus-asks-the-daemon) ·
  [Through the node exporter](#through-the-node-exporter) · [All metrics](#all-metrics) · [Labels](#labels)

The daemon counts what it does and says how it is, in the text format of Prometheus 0.0.4. Names and labels are a
contract: they change only with a new minor version, and [Changes](../CHANGELOG.md) says so. No metric has the name of
a user, a job or a host. A scrape asks neither Slurm nor cc-backend, and costs less than a millisecond: see
[What it costs](costs.md#what-metrics-cost).

## Prometheus asks the daemon

Set `metricsListen`, for example to `127.0.0.1:9517`: see [The control socket](control-api.md#metricslisten). In
Prometheus' configuration:

```yaml
scrape_configs:
  - job_name: cc-slurm-adapter
    static_configs:
      - targets: ["slurmctld.example.org:9517"]
```

## Through the node exporter

If nothing may listen on the network, the textfile collector of Prometheus' node exporter can read the metrics from a
file, at no cost but a call a minute. `-metrics` prints them. If the daemon does not run, it prints nothing, writes the
reason to standard error and exits with 1: so the file is not replaced, and
`node_textfile_mtime_seconds` says how old it is. A line for `/etc/cron.d`, for a user who may use the control socket
and writes to the folder of the collector:

```
* * * * * root cd /var/lib/prometheus/node-exporter && \
/usr/sbin/cc-slurm-adapter -metrics >adapter.tmp && mv adapter.tmp adapter.prom
```

The same as a service of systemd, with a timer that has `OnCalendar=minutely`:

```
[Service]
Type=oneshot
WorkingDirectory=/var/lib/prometheus/node-exporter
ExecStart=/bin/sh -c '/usr/sbin/cc-slurm-adapter -metrics >adapter.tmp && mv adapter.tmp adapter.prom'
```

`mv` puts the new file in the place of the old one in one step, so the collector never reads half of it.

## All metrics

This table and the code are one: `python3 docs/metrics.py` writes it. All times are Unix times in seconds. A time of
something that has not happened since the start is left out.

"""

LABELS = """\

## Labels

| Label | Values |
|---|---|
| `command` | `squeue`, `scontrol`, `sacct`, `sacctmgr`, `sdiag`, `sinfo`, `slurmd`, or `other` |
| `kind` | `start`, `stop`, or the removal of a run: `withdraw` for the next run of its job, `remove` to send it anew |
| `level` | `error` if an administrator must act, `warning` for what an administrator should check |
| `missing` | what a run is reported without: `cores`, `gpus` and `sharing` (who else was on its nodes), joined by `_` |
| `reason` | Slurm's word for the end of the run, such as `requeued` |
| `result` of a command | `ok`; `exit_code` for any but 0; `failed` if it could not be started or gave no answer; \
`broken_off` if the rest was not needed |
| `result` of a delivery | the meaning of the answer: see \
[the verdicts](how-it-works.md#what-an-answer-does-to-its-row), in small letters |
| `result` of a step | `succeeded` or `failed` |
| `sink` | `cc_rest` or `cc_nats` |
| `slurm`, `python`, `version` | the versions of Slurm, of Python and of this program |
| `stage` | `started`, `preparing` while the start time may still move, `ignored` for what is left out |
| `state` of a node | `allocated`, `mixed`, `idle`, `reserved` or `down` |
| `state` of a row | `pending`, `parked` or `conflict`: see [States of a row](how-it-works.md#states-of-a-row) |
| `step` | `poll`; `lookup` for hook events; `nodes`; `accounting` for the catch-up; `comparison` with cc-backend's \
running jobs; `upkeep` of the state file |
| `way` | how a hook event came: `file` or `socket` |
| `why` | `late` if the run was over when it was first seen, `not_told` if Slurm does not say it |

The histogram has these upper bounds, in seconds: {buckets}. An event counts from the moment when its file was written
or its message arrived, until the lead destination has accepted the start or stop. What takes longer than ten minutes
is not in it: {lag} shows that.
"""


def write() -> str:
    """Return the whole document."""
    head = ["| Metric | Type | Labels | What it is |", "|---|---|---|---|"]
    buckets = ", ".join(f"{bucket:g}" for bucket in BUCKETS)
    end = LABELS.format(buckets=buckets, lag=f"`{PREFIX}lag_seconds`")
    return BEGINNING + "\n".join([*head, *map(_row, METRICS)]) + "\n" + end


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{PREFIX}{metric.name}` | {metric.kind} | {labels} | {metric.help} |"


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(write(), encoding="utf-8")
