"""A run's folder: metrics, TensorBoard events and resumable checkpoints.

    config.gin            the operative configuration, by the command line
                          (eval.gin and infer.gin of those commands)
    metrics.jsonl         one line per logged step and prompt
    events.out.tfevents*  the same for TensorBoard
    settings.json         what the run depends on
    checkpoints/step_*.safetensors
                          step, trained leaves, optimizer state, best so far
    checkpoints/step_*/   the same by Orbax, where leaves lie across processes

A checkpoint holds the trained part only. Running the same command again goes
on from the last one; metrics logged after it are dropped and logged again. One
run at a time trains into a folder, and with the same settings each time. Of its
processes (`processes`) the first reads and writes, and tells the others; only
what lies across them do all read and write.

`folder`: the whole <- `checkpoints`: files <- `spread`: folders of Orbax
"""

from prompt_tuning.run_folder.folder import SETTINGS, RunFolder

__all__ = ["SETTINGS", "RunFolder"]
