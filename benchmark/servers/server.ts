/**
 * A server in virtual time: the batches of `ProviderSim`, whose size and speed may change, a way to it, and a client that gives up
 * after its timeout.
 */
import * as Batch from "../../src/testing/batch.ts"
import type { VirtualTime } from "../weather/virtualTime.ts"
import type { Job, Scenario } from "./scenarios.ts"

/** A call as its client sees it. */
export interface SentCall {
  readonly job: Job
  /** Whether the client has its first token. */
  hasBegun: boolean
  /** Undefined while it runs; lost to the timeout, or cancelled. */
  outcome: "answered" | "lost" | undefined
  /** Called when one of the two changes. */
  onChange: () => void
  /** Hangs up. */
  readonly cancel: () => void
}

export interface Server {
  readonly send: (job: Job) => SentCall
}

/** Starts a server at time 0. */
export const make = (time: VirtualTime, { gathered = false, server, streams, timeout }: Scenario): Server => {
  const { away = 0, replicas = () => 1, slowness = () => 1, stopped = [0, 0] } = server
  const seconds = (): number => time.now() / 1_000
  const batch = Batch.make<SentCall>({
    get concurrency() {
      return server.concurrency * replicas(seconds())
    },
    get memoryTokens() {
      return server.memoryTokens * replicas(seconds())
    },
    get prefillTokens() {
      return 2_048 * replicas(seconds())
    },
    get perInputTokenMillis() {
      return server.perInputTokenMillis / replicas(seconds())
    },
    get perSequenceMillis() {
      return server.perSequenceMillis / replicas(seconds())
    },
    perOutputTokenMillis: server.perOutputTokenMillis,
    factor: () => slowness(seconds())
  })

  let isWaking = false
  const proceed = (at: number): void => {
    if (isWaking && batch.stepEndsAt === Infinity) return
    const isStopped = seconds() >= stopped[0] && seconds() < stopped[1]
    if (!isStopped) Batch.begin(batch, at)
    const next = isStopped ? 1_000 * stopped[1] : batch.stepEndsAt
    if (isWaking || next === Infinity) return
    isWaking = true
    time.after(next - time.now(), wake)
  }
  const wake = (): void => {
    isWaking = false
    // Timers fire in whole milliseconds; the batch itself counts fractions, so that rounding does not slow it down.
    const at = Math.min(time.now(), batch.stepEndsAt)
    const { complete, made } = Batch.finish(batch)
    proceed(at)
    if (streams && !gathered) {
      for (const { owner, produced } of made) if (produced === 1) arrive(() => begun(owner))
    }
    for (const { owner } of complete) {
      arrive(() => {
        if (streams && gathered) begun(owner)
        end(owner, "answered")
      })
    }
  }
  const arrive = (then: () => void): void => (away === 0 ? then() : time.after(500 * away, then))

  const begun = (call: SentCall): void => {
    if (call.outcome !== undefined) return
    call.hasBegun = true
    call.onChange()
  }
  const end = (call: SentCall, outcome: "answered" | "lost"): void => {
    if (call.outcome !== undefined) return
    call.outcome = outcome
    call.onChange()
  }

  return {
    send: (job) => {
      const hangUp = (): void => {
        if (call.outcome !== undefined) return
        Batch.leave(batch, sequence)
        end(call, "lost")
      }
      const call: SentCall = { job, hasBegun: false, outcome: undefined, onChange: () => {}, cancel: hangUp }
      const sequence: Batch.Sequence<SentCall> = {
        owner: call,
        prompt: job.input,
        target: job.output,
        baseMillis: 0,
        readyAt: 0,
        computed: 0,
        produced: 0
      }
      arrive(() => {
        if (call.outcome !== undefined) return
        batch.waiting.push(sequence)
        proceed(time.now())
      })
      if (timeout !== undefined) time.after(1_000 * timeout, hangUp)
      return call
    }
  }
}
