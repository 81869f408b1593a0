/**
 * Continuous batching, as vLLM, llama.cpp and Ollama do it: a server computes one token of every running sequence at a time, and lets
 * the first of the queue join as soon as there is room. Pure: time is an argument, in milliseconds.
 *
 * **Details**
 *
 * A step reads at most `prefillTokens` tokens of prompts and makes one token for every sequence whose prompt is read. It takes the time
 * of both, and `perSequenceMillis` for each sequence after the first that gets a token. A running sequence needs memory for its prompt,
 * its output and one token more. If that is not there, the sequence that began last returns to the head of the queue, and what
 * was computed of it is read again: vLLM calls this preemption by recomputing. A sequence larger than the memory runs alone.
 *
 * Sources: https://docs.vllm.ai/en/stable/configuration/optimization/ (preemption) and
 * https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md (`--parallel`, `--cont-batching`).
 */

/** A request in the server. */
export interface Sequence<A> {
  readonly owner: A
  readonly prompt: number
  /** The tokens after which it leaves by itself. */
  readonly target: number
  /** Milliseconds in its slot before its prompt is read. */
  readonly baseMillis: number
  /** When its prompt may be read. */
  readyAt: number
  /** The tokens that are in memory, of the prompt and the output. */
  computed: number
  produced: number
}

/** How large a server is, and how fast. */
export interface ServerSize {
  /** The sequences that run at once. */
  readonly concurrency: number
  readonly memoryTokens: number
  readonly prefillTokens: number
  readonly perInputTokenMillis: number
  readonly perOutputTokenMillis: number
  readonly perSequenceMillis: number
  /** The factor of noise on the time of a step, by its number. */
  readonly factor: (step: number) => number
}

/** A server: what runs, what waits, and the step that it computes. */
export interface Batch<A> {
  readonly size: ServerSize
  /** In the order in which they began. */
  running: Array<Sequence<A>>
  readonly waiting: Array<Sequence<A>>
  /** The work of the present step for each sequence: tokens that it reads, or 0 to make one. */
  planned: Array<{ readonly sequence: Sequence<A>; readonly reads: number }>
  /** When the present step ends; infinity if nothing is computed. */
  stepEndsAt: number
  steps: number
}

/** A server without requests. */
export const make = <A>(size: ServerSize): Batch<A> => ({
  size,
  running: [],
  waiting: [],
  planned: [],
  stepEndsAt: Infinity,
  steps: 0
})

const length = ({ produced, prompt }: Sequence<unknown>): number => prompt + produced

/** The memory that a sequence needs for its next token. */
const need = (sequence: Sequence<unknown>): number => length(sequence) + 1

const held = ({ running }: Batch<unknown>): number => running.reduce((sum, sequence) => sum + need(sequence), 0)

/** Lets the first of the queue begin, while there is room. */
const fill = <A>({ running, size, waiting }: Batch<A>, now: number, memory: number): void => {
  let left = size.memoryTokens - memory
  for (let next = waiting[0]; next !== undefined && running.length < size.concurrency; next = waiting[0]) {
    if (need(next) > left && running.length > 0) return
    left -= need(next)
    next.readyAt = now + (next.produced === 0 ? next.baseMillis : 0)
    running.push(waiting.shift()!)
  }
}

/** Returns the sequences that began last to the queue until the others fit. */
const preempt = <A>(batch: Batch<A>): number => {
  const { running, size, waiting } = batch
  let memory = held(batch)
  while (memory > size.memoryTokens && running.length > 1) {
    const last = running.pop()!
    memory -= need(last)
    last.computed = 0
    waiting.unshift(last)
  }
  return memory
}

/** Begins the next step at `now`, unless one is in progress. */
export const begin = <A>(batch: Batch<A>, now: number): void => {
  if (batch.stepEndsAt < Infinity) return fill(batch, now, held(batch))
  fill(batch, now, preempt(batch))
  const { running, size } = batch
  if (running.length === 0) return
  batch.planned = []
  let room = size.prefillTokens
  let read = 0
  let made = 0
  let ready = false
  for (const sequence of running) {
    if (sequence.readyAt > now) continue
    ready = true
    const reads = Math.min(room, length(sequence) - sequence.computed)
    room -= reads
    read += reads
    if (reads > 0) batch.planned.push({ sequence, reads })
    else if (sequence.computed === length(sequence)) {
      made++
      batch.planned.push({ sequence, reads: 0 })
    }
  }
  if (!ready) {
    batch.stepEndsAt = running.reduce((soonest, { readyAt }) => Math.min(soonest, readyAt), Infinity)
    return
  }
  const making = made === 0 ? 0 : size.perOutputTokenMillis + size.perSequenceMillis * (made - 1)
  batch.stepEndsAt = now + size.factor(batch.steps++) * (size.perInputTokenMillis * read + making)
}

/** Takes a request out of the batch or the queue. The step in progress goes on without it. */
export const leave = <A>(batch: Batch<A>, sequence: Sequence<A>): void => {
  for (const list of [batch.running, batch.waiting]) {
    const index = list.indexOf(sequence)
    if (index >= 0) list.splice(index, 1)
  }
}

/** The results of a step. */
interface BatchStep<A> {
  /** The sequences whose prompts are read now, possibly again. */
  readonly read: ReadonlyArray<Sequence<A>>
  /** Those that have a token more. */
  readonly made: ReadonlyArray<Sequence<A>>
  /** Those that have left because they have all their tokens. */
  readonly complete: ReadonlyArray<Sequence<A>>
}

/** Ends the step in progress. */
export const finish = <A>(batch: Batch<A>): BatchStep<A> => {
  const read: Array<Sequence<A>> = []
  const made: Array<Sequence<A>> = []
  const complete = new Set<Sequence<A>>()
  const running = new Set(batch.running)
  for (const { reads, sequence } of batch.planned) {
    if (!running.has(sequence)) continue
    sequence.computed += Math.max(1, reads)
    if (reads === 0) {
      sequence.produced++
      made.push(sequence)
    } else if (sequence.computed === length(sequence)) read.push(sequence)
    if (sequence.computed === length(sequence) && sequence.produced >= sequence.target) complete.add(sequence)
  }
  if (complete.size > 0) batch.running = batch.running.filter((sequence) => !complete.has(sequence))
  batch.planned = []
  batch.stepEndsAt = Infinity
  return { read, made, complete: [...complete] }
}
