"""What the words of the API mean: for fields and parameters without a description of their own."""

_LINES = """
name: What people call it.
id: Its id; ids sort by the time of creation.
kind: Which kind it is.
status: Its state.
type: Its form: each has fields of its own.
title: The problem in a few words, the same for every problem of this type.
detail: What is wrong here, and what to do about it.
errors: What is wrong with single values, each with its place.
message: The message, for people.
level: info, warning or error.
seq: Its number in the job's events, rising without gaps.
at: When it happened.
job_id: Id of its job.
run_id: Id of its run.
run_ids: Ids of the runs concerned.
key_id: Id of the key that was used; null without keys.
tenant: Whose it is: only its keys see it.
model: What is trained: a name of `/v1/models`, and its parameters.
dataset: What it is trained on: a built-in's name, or the name or id of an upload.
optimizer: What it is trained with: a name of `/v1/optimizers`, and its parameters.
optimizers: Optimizers to compare, each with a grid of hyperparameters.
params: Parameters; `/v1/models`, `/v1/datasets` and `/v1/optimizers` have their schemas.
budget: When a run ends: the first limit that is reached ends it.
batch_size: Samples in a batch.
batch_sizes: Batch sizes to draw from, in samples.
evaluation: How often, and on how many samples, loss and accuracy are measured.
every_epochs: Epochs between two evaluations.
resources: What a run needs of the machine it is trained on.
device: `cpu`, `cuda`, or `auto`: what the worker has.
seed: Seed of initial weights, order of the data and all else that is drawn.
seeds: Seeds; each is a run of its own.
target: A loss or accuracy to reach; the comparison counts what it took.
metric: Name of a metric, such as `test_loss`.
metrics: Names of metrics, or what is measured by metric.
value: Its value.
when: On which side of the value the condition holds.
tags: Labels of your own, by key.
error: The problem that ended it; null if it has not failed.
runs: Its runs.
rows: Its rows.
row: Its row.
priority: Among the jobs of the same key, the higher start first.
progress: How far it is.
max_parallel_runs: How many of its runs may be trained at once; null: all.
spec: What was submitted, defaults written out.
retried_from: Id of the job whose failed runs these are.
cloned_from: Id of the job that this is a copy of.
created_at: When it was made.
started_at: When it was first started; null before.
finished_at: When it ended; null before.
created_by: Id of the key that made it.
expires_at: When it ends to be valid; null: never.
revoked_at: When it was revoked; null while it is valid.
last_used_at: When it was last used.
last_run_at: When it was last carried out.
last_result: What came of it the last time.
delivered_at: When it was taken by the receiver.
attempts: How often it was tried.
body: What is sent.
queue: `cpu` or `gpu`: which workers take it.
data: The items.
next_cursor: Give it as `cursor` for the next page; null on the last one.
queued: How many wait.
running: How many run.
paused: How many are paused.
succeeded: How many succeeded.
failed: How many failed.
cancelled: How many were cancelled.
step: Steps of the optimizer.
steps: Steps of the optimizer.
total_steps: Steps of the whole budget; null when time alone ends it.
samples: Training samples seen.
epoch: Passes over the training set.
epochs: Passes over the training set.
wall_seconds: Seconds of training alone.
cpu_seconds: CPU seconds of training, of all threads.
fraction: How much is done, from 0 to 1.
eta_seconds: Seconds until it ends, estimated; null where nothing can be said.
last: The last value.
best: The best value.
best_step: The step of the best value.
mean: Mean over the seeds.
std: Standard deviation over the seeds.
min: Smallest over the seeds.
max: Largest over the seeds.
final: At the end.
final_loss: Loss at the end.
best_loss: The best loss on the way.
final_accuracy: Accuracy at the end.
best_accuracy: The best accuracy on the way.
ratio_to_best: How many times what the best needed.
group: The group of seeds it is in.
groups: Runs that differ by nothing but the seed.
label: What it is called in tables and figures.
curve: Mean and band over the seeds.
warnings: What makes the runs less than comparable.
code: A fixed word for it.
x: The axis: samples, steps, epochs, wall_seconds or cpu_seconds.
series: A curve for each metric.
downsampled: Whether points were left out.
total_points: How many points there are.
url: Its address.
content_type: Its media type.
size: Size in bytes.
sha256: SHA-256 of its content, in hexadecimal.
source: Where it comes from.
format: Its format.
description: A sentence or two, for people.
available: Whether it can be used here.
info: Shapes and sizes.
task: What is learned, such as classification or detection; or the name of the task.
train_samples: Samples of the training set.
test_samples: Samples of the test set.
vocabulary: How many words or characters there are; null unless it is text.
class_names: Names of the classes in order; null where there are none.
train: Of the training set.
test: Of the test set.
role: input, target, weight or ignored.
columns: The columns of a table.
splits: Its parts: training and test.
dropped_rows: Rows that were left out.
outputs: How many numbers the network gives for a sample.
input_shape: Shape of one sample.
parameters: Trainable parameters of the network.
activations_per_sample: Floats of activations that one sample needs.
valid: Always true: what is not valid is refused with a problem.
changes: What to change; the other fields stay.
ids: Ids of what is meant.
filter: Which are meant.
q: Part of the name.
created_before: Made before this time.
dry_run: Whether nothing was changed.
deleted: Ids of what was deleted, or would be.
kept: What was kept, and why.
dependants_total: How many depend on it.
action: `archive` or `delete`.
rule: Which things are dropped, and when.
enabled: Whether it is in force.
dropped: How many were dropped.
total: How many there are.
events: Kinds of events it is told of.
secret: The secret; it is shown once.
scopes: What it may do: read, write, admin, metrics.
quota: The most that there may be at a time; null: no limit.
overlap_seconds: Seconds for which the old secret stays valid.
address: The client's address.
request_id: Id of the request, as in `X-Request-ID`.
method: The request's method.
route: The route's template.
path: The request's path.
reason: Why it is so.
version: Version of the program.
memory_bytes: Memory in bytes.
cores: CPU cores.
seen_seconds_ago: Seconds since it was last heard of.
meta_checkpoint_id: Id of a meta-checkpoint, `mc_…`.
pcg_iterations: Iterations of preconditioned conjugate gradients in each step.
replay: How tasks are drawn again.
estimator: How the gradient of the meta-loss is estimated.
tasks: What is trained on: models, data sets and batch sizes.
seconds: Seconds.
grid: Values to try, by parameter; every combination is a run for each seed.
form: The solver variant.
aliases: Other names.
max_parameters: Most parameters of a network.
max_running_per_tenant: Most runs at a time of one tenant; null: no limit.
max_priority: The highest priority.
max_json_bytes: Most bytes of a JSON body.
max_upload_bytes: Most bytes of an upload.
max_expanded_bytes: Most bytes of an upload, unpacked.
max_upload_entries: Most files in an archive.
quota_queued_runs: Most runs that may wait; null: no limit.
quota_storage_bytes: Most bytes in the store; null: no limit.
validate_only: Check everything, answer with an estimate, and create nothing.
sort: The order; `-` in front turns it round.
last-event-id: The last event that was received; the stream goes on after it.
dependants: What depends on it.
dtype: Type of its numbers.
inputs: What goes in.
weights: Whether weights came with it.
ended_at: When it ended; null while it lasts.
file: The file that is sent.
run: The run that it is about.
points: Points of curves.
values: Values by metric.
alias: The name that is given, such as `default`.
with_ended: Also keys that are revoked or expired.
decision: Only requests that were allowed, or that were refused.
"""
WORDS = dict(line.split(": ", 1) for line in _LINES.strip().splitlines())
