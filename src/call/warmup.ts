/**
 * Keeps calls that share a cached prefix from each paying for it.
 *
 * A provider caches a prefix when the first response to it begins. Twenty agents that start together would each write the whole
 * prefix, and each write counts towards the limit on input. So each prefix has a line: the first call is sent alone, and the others
 * are sent when its response begins and read the cache.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { constVoid } from "effect/Function"
import { Hold } from "../line/hold.ts"
import type { Law } from "../line/law.ts"
import { Line } from "../line/line.ts"
import { LocalPort } from "../sharing/local.ts"
import * as Lru from "../domain/input/lru.ts"
import type { Paying } from "../money/paying.ts"

/** How long a provider keeps an unused prefix. Anthropic's shorter cache lasts five minutes. */
const warmMillis = 300_000
/** The longest wait for the first response. After that, waiting costs more than paying for the prefix. */
const patienceMillis = 60_000
/** Bounds the number of remembered keys, because callers may generate them. */
const maxKeys = 1_000

/** Whether a call is filling the cache, and until when the provider keeps the prefix. */
interface PrefixState {
  isWarming: boolean
  warmUntil: number
}

/** The types of the line of a prefix. Nobody asks for anything, and nobody is refused. */
interface PrefixTerms {
  readonly state: PrefixState
  readonly ask: undefined
  readonly grant: { readonly isFirst: boolean }
  readonly refusal: never
}

const law: Law<PrefixTerms> = {
  expires: false,
  admit: (draft, _id, _hold, _weight, now) => {
    const isFirst = draft.warmUntil <= now
    if (isFirst && draft.isWarming) return { by: "concurrency", millis: Infinity }
    if (isFirst) draft.isWarming = true
    return { isFirst }
  },
  wait: constVoid,
  release: (draft, _id, { isFirst }) => leave(draft, isFirst)
}

const leave = (draft: PrefixState, isFirst: boolean): void => {
  if (isFirst) draft.isWarming = false
}

/** The line of one prefix. */
class PrefixLine {
  private readonly port: LocalPort<PrefixState>
  private readonly line: Line<PrefixTerms, Hold<PrefixTerms>>

  constructor(now: () => number) {
    this.port = LocalPort.untimed<PrefixState>(
      (state) => ({ ...state }),
      { isWarming: false, warmUntil: -Infinity },
      now
    )
    this.line = new Line(this.port, law, { granted: constVoid })
  }

  /** Whether no call fills the cache or waits for it. */
  get isIdle(): boolean {
    return !this.port.state.isWarming && this.line.queue.size === 0
  }

  take(paying: Paying): Hold<PrefixTerms> {
    return this.line.ask(new Hold<PrefixTerms>(paying, 1, undefined, paying.wake))
  }

  /** A call waits no longer. */
  leave(hold: Hold<PrefixTerms>): void {
    if (hold.phase === "waiting") this.line.leave(hold)
  }

  /** A call has ended, or its response has begun, also of one that has left the line. */
  end(hold: Hold<PrefixTerms>, isWarm: boolean): void {
    this.leave(hold)
    if (isWarm) this.port.transact((draft, now) => (draft.warmUntil = now + warmMillis))
    this.line.end(hold, (draft) => {
      leave(draft, hold.grant!.isFirst)
      return 1
    })
    this.line.decide()
  }
}

/**
 * Runs an effect that uses the prefix of a key. It waits until another one has filled the cache, but not longer than `until`, in
 * milliseconds of the clock. The effect must succeed only when its response has begun.
 */
export type Warmup = <A, E, R>(
  key: string,
  until: number,
  paying: Paying,
  self: Effect.Effect<A, E, R>
) => Effect.Effect<A, E, R>

export const make = (clock: Clock.Clock): Warmup => {
  const lines = new Lru.Registry<string, PrefixLine>(({ isIdle }) => isIdle)
  const now = (): number => clock.currentTimeMillisUnsafe()

  return (key, until, paying, self) =>
    Effect.suspend(() => {
      const line = Lru.useOrMake(lines, key, maxKeys, () => new PrefixLine(now))
      const hold = line.take(paying)
      const ended = Effect.callback<void>((resume) => hold.listen(() => resume(Effect.void)))
      const duration = Math.max(0, Math.min(until - now(), patienceMillis))
      const waited = Effect.timeoutOrElse(ended, { duration, orElse: () => Effect.sync(() => line.leave(hold)) })
      const warmed = hold.phase === "waiting" ? Effect.andThen(waited, self) : self
      return Effect.onExit(warmed, (exit) => Effect.sync(() => line.end(hold, Exit.isSuccess(exit))))
    })
}
