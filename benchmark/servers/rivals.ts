/**
 * Other ways to choose how many calls are in flight, as their users would configure them for a server of this kind: they get the time per
 * token of whole calls, because the time of a call is mostly its length.
 */
import * as Effect from "effect/Effect"
import type { MakeClient } from "./play.ts"
import type { SentCall } from "./server.ts"

/** A call that has ended. */
interface Ended {
  readonly millis: number
  readonly perToken: number
  readonly isAnswered: boolean
}

interface Limiter {
  readonly limit: () => number
  /** Hears the end of a call, which still counts among those in flight. */
  readonly ended: (call: Ended, inFlight: number) => void
}

/** A process with a queue in order of arrival before the limiter. */
const client =
  (make: () => Limiter): MakeClient =>
  (server, { now }) => {
    const limiter = make()
    const queue: Array<() => void> = []
    let inFlight = 0
    const drain = (): void => {
      while (queue.length > 0 && inFlight < Math.max(1, Math.floor(limiter.limit()))) queue.shift()!()
    }
    return Effect.succeed((job) =>
      Effect.callback<SentCall["outcome"]>((resume) => {
        queue.push(() => {
          inFlight++
          const sentAt = now()
          const call = server.send(job)
          call.onChange = () => {
            if (call.outcome === undefined) return
            const millis = now() - sentAt
            const isAnswered = call.outcome === "answered"
            limiter.ended({ millis, perToken: millis / job.output, isAnswered }, inFlight)
            inFlight--
            resume(Effect.succeed(call.outcome))
            drain()
          }
        })
        drain()
      })
    )
  }

/** A fixed number. */
export const fixed = (limit: number): MakeClient => client(() => ({ limit: () => limit, ended: () => {} }))

/** TCP Vegas, as in Netflix' concurrency-limits: compares with the least time, which is forgotten after 500 calls. */
const vegas = (): Limiter => {
  let limit = 20
  let least = Infinity
  let calls = 0
  return {
    limit: () => limit,
    ended: ({ isAnswered, perToken }, inFlight) => {
      const step = Math.log10(Math.max(10, limit))
      if (!isAnswered) {
        limit = Math.max(4, limit - step)
        return
      }
      if (++calls % 500 === 0) least = Infinity
      least = Math.min(least, perToken)
      if (inFlight < limit / 2) return
      const queued = limit * (1 - least / perToken)
      if (queued < 3 * step) limit += step / 2
      else if (queued > 6 * step) limit = Math.max(4, limit - step / 2)
    }
  }
}

/** The Gradient2 limit of concurrency-limits: compares with a long mean, with a tolerance of 1.5. */
const gradient2 = (): Limiter => {
  let limit = 20
  let long = 0
  return {
    limit: () => limit,
    ended: ({ isAnswered, perToken }, inFlight) => {
      if (!isAnswered) return
      long = long === 0 ? perToken : long + ((perToken - long) * 2) / 601
      if (long / perToken > 2) long *= 0.95
      if (inFlight < limit / 2) return
      const gradient = Math.max(0.5, Math.min(1, (1.5 * long) / perToken))
      limit = Math.max(4, Math.min(1_000, 0.8 * limit + 0.2 * (limit * gradient + 4)))
    }
  }
}

/** Adds one when a round of calls is answered, and multiplies by 0.9 when one is lost. */
const aimd = (): Limiter => {
  let limit = 20
  return {
    limit: () => limit,
    ended: ({ isAnswered }, inFlight) => {
      if (!isAnswered) limit = Math.max(1, 0.9 * limit)
      else if (inFlight >= limit - 1) limit += 1 / limit
    }
  }
}

export const rivals: { readonly [name: string]: MakeClient } = {
  vegas: client(vegas),
  gradient2: client(gradient2),
  aimd: client(aimd)
}
