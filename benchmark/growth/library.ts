/**
 * What grows within one process, with a turn each: calls of a budget in which a number of others wait, and prompts of which a number
 * of prefixes is remembered.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Budget from "floodgate/Budget"
import { Conversations } from "../../src/call/conversations.ts"
import { read } from "../../src/call/reported.ts"
import { timed, type Turn } from "../support/inTurns.ts"

const plenty = 1e12
const permits = 10

/** Who the waiting calls belong to. */
type Owner = (call: number) => Budget.ReserveOptions

/**
 * Makes calls on ten permits, while a number of others wait all the time: whoever is served joins the queue again. Between turns,
 * the calls that run are held.
 */
const queue = async (waiting: number, ownerOf: Owner): Promise<(count: number) => Promise<Turn>> => {
  let left = 0
  let [more, ended] = [Deferred.makeUnsafe<void>(), Deferred.makeUnsafe<void>()]
  const work = Effect.suspend(() => {
    if (left > 0) {
      left--
      return Effect.yieldNow
    }
    Deferred.doneUnsafe(ended, Effect.void)
    return Deferred.await(more)
  })
  const caller = (n: number) => Effect.forever(Budget.withReservation({ tokens: 100 }, () => work, ownerOf(n)))
  const callers = Effect.forEach(
    Array.from({ length: permits + waiting }, (_, n) => n),
    caller,
    {
      concurrency: "unbounded",
      discard: true
    }
  )
  const limits = { tokens: { perSecond: plenty, burst: plenty } }
  Effect.runFork(Effect.provide(callers, Budget.layer({ limits, concurrency: permits })))
  await Effect.runPromise(Deferred.await(ended))
  return (count) =>
    timed(count, () => {
      left = count
      ended = Deferred.makeUnsafe()
      Deferred.doneUnsafe(more, Effect.void)
      more = Deferred.makeUnsafe()
      return Effect.runPromise(Deferred.await(ended))
    })
}

/** Looks up and remembers conversations of 20 prefixes each, one after the other, with so many prefixes remembered. */
const prefixes = (remembered: number): ((count: number) => Promise<Turn>) => {
  const memory = new Conversations()
  const length = Math.min(20, remembered)
  let now = 0
  const lookups = Array.from({ length: Math.ceil(remembered / length) }, (_, n) => {
    const fingerprints = Array.from({ length }, (_, index) => n * 2 ** 21 + index)
    const bytes = fingerprints.map((_, index) => 1_000 * (index + 1))
    const marks = [{ index: length - 1, life: 300_000 }]
    const found = { fingerprints, bytes, shared: Math.min(2, length), marks, automatic: undefined }
    return { scope: "pool", continues: undefined, prefixes: found }
  })
  const actual = read({ inputTokens: 3, cacheCreationTokens: 500, cacheReadTokens: 7_000, outputTokens: 5 })
  const one = (n: number): void => {
    const lookup = lookups[n % lookups.length]!
    memory.again(undefined, lookup, ++now)
    memory.began(lookup, actual, now, now)
  }
  for (let n = 0; n < lookups.length; n++) one(n)
  return (count) =>
    timed(count, () => {
      for (let n = 0; n < count; n++) one(n)
    })
}

/** Everybody waits behind the same agent, unless agents or jobs are what grows. */
const nobody: Owner = () => ({})

/** Prepares so much of something. What it returns makes a turn of so many calls. */
export const kinds: Readonly<
  Record<string, (size: number) => Promise<(count: number) => Promise<Turn>> | ((count: number) => Promise<Turn>)>
> = {
  waiting: (size) => queue(size, nobody),
  agents: (size) => queue(10_000, (n) => ({ agent: `agent ${n % size}` })),
  jobs: (size) => queue(10_000, (n) => ({ agent: `agent ${n}`, job: `job ${n % size}` })),
  prefixes
}
