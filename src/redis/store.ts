/**
 * The Redis store of one pool: the contract's operations as jobs on the pool's line, and what happens without Redis.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FiberHandle from "effect/FiberHandle"
import type { RedisError } from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { inBatches } from "../BudgetStore.ts"
import type { Ask, Held, PoolOptions, PoolStore, Snapshot, StoreUnavailable, Taken } from "../BudgetStore.ts"
import * as Ledger from "../internal/ledger.ts"
import * as Limits from "../Limits.ts"
import * as Line from "./line.ts"
import { LocalShare } from "./localShare.ts"
import * as Wire from "./wire.ts"

export interface Settings {
  readonly whenAway: "fail" | "wait" | "degrade"
  readonly patienceMillis: number
  readonly leaseMillis: number
  readonly timeoutMillis: number
}

const observationLastsMillis = 5_000

/** Opens a pool. `send` runs the script for it; `onWake` is told who hears when its head may come. */
export const open = Effect.fnUntraced(function* (
  pool: string,
  options: PoolOptions,
  settings: Settings,
  send: (request: string) => Effect.Effect<string, RedisError>,
  onWake: (wake: Line.Wake) => Effect.Effect<void, never, Scope.Scope>
): Effect.fn.Return<PoolStore, StoreUnavailable, Scope.Scope> {
  const clock = yield* Clock.Clock
  const millis = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  const wakes = yield* Queue.sliding<void>(1)
  const runWake = yield* FiberHandle.makeRuntime<never>()
  /** What this process holds in Redis, to say it again when the state is lost. */
  const holds = new Map<number, { readonly charge: Limits.Charge; readonly at: number }>()
  /** Calls of the local share on their way into Redis, and what was settled of them meanwhile. */
  const moving = new Map<number, Line.Job | undefined>()
  /** Their names there. */
  const moved = new Map<number, number>()
  let share: LocalShare | undefined
  let configured: PoolOptions = options
  /** The number of the head that waits in Redis, as far as is known. */
  let waiting = 0

  const wake = (): void => void Queue.offerUnsafe(wakes, undefined)
  const wakeFor = (head: number): void => {
    if (head >= waiting) wake()
  }
  const wakeIn: Line.Wake = (millis, head) =>
    millis <= 0
      ? wakeFor(head)
      : void runWake(
          Effect.andThen(
            Effect.sleep(millis),
            Effect.sync(() => wakeFor(head))
          )
        )

  const line: Line.Line = yield* Line.make({
    pool,
    millis,
    send,
    timeoutMillis: settings.timeoutMillis,
    patienceMillis: settings.whenAway === "wait" ? settings.patienceMillis : 0,
    introduce: () => [Wire.open(configured), join()],
    onAway: () => {
      if (settings.whenAway !== "degrade" || line.view.epoch === 0) return
      share = new LocalShare(
        line.view,
        { headroom: options.headroom, concurrency: configured.concurrency, inRedis: () => holds.size },
        millis()
      )
    },
    onBack: () => {
      if (share !== undefined) comeBack(share)
      share = undefined
      wake()
    },
    onTurn: wakeIn
  })

  const join = (): Wire.Operation => {
    const age = millis() - line.view.at
    return [
      "join",
      [...holds].map(([id, { at, charge }]) => [id, millis() - at, Wire.four(charge)]),
      line.view.epoch === 0
        ? []
        : Limits.dimensions.map((dimension) => {
            const level = line.view.levels[dimension]
            return level === undefined ? false : [level, age]
          })
    ]
  }

  /** Something to say whose reply nobody waits for. */
  const say = (
    operation: () => Wire.Operation | undefined,
    replied: (reply: unknown) => void = () => {}
  ): Line.Job => ({
    operation,
    replied,
    away: () => false
  })

  const comeBack = (local: LocalShare): void => {
    const held = local.holds()
    const report = local.report(millis())
    for (const { id } of held) moving.set(id, undefined)
    line.submitFirst(
      say(
        () => report,
        (ids) => {
          held.forEach(({ charge, id, takenAt }, i) => {
            const name = (ids as ReadonlyArray<number>)[i]!
            const settled = moving.get(id)
            moving.delete(id)
            moved.set(id, name)
            holds.set(name, { charge, at: takenAt })
            if (settled !== undefined) line.submit(settled)
          })
        }
      )
    )
  }

  const settled = (held: Held, used: Limits.Charge, succeeded: boolean): Line.Job =>
    say(
      () => Wire.settle(moved.get(held.id) ?? held.id, used, succeeded),
      () => {
        holds.delete(moved.get(held.id) ?? held.id)
        moved.delete(held.id)
      }
    )

  const settle = (held: Held, used: Limits.Charge, succeeded: boolean): void => {
    if (share?.settle(held, used, millis()) === true) return wake()
    const job = settled(held, used, succeeded)
    if (moving.has(held.id)) moving.set(held.id, job)
    // Used as estimated, with no bound on calls in flight: nobody waits for it.
    else if (!line.view.tight && Ledger.isAsEstimated(held.charge, used)) line.submitLater(job)
    else line.submit(job)
  }

  const zeros = (charge: Limits.Charge): Limits.Charge => Limits.used(charge, Limits.nothing)

  const granted = (asks: ReadonlyArray<Ask>, [ids, blocked]: Wire.TakeReply, now: number): Taken => {
    const at = millis()
    const held = ids.map(([id, left], i): Held => {
      const { charge } = asks[i]!
      holds.set(id, { charge, at })
      return { id, charge, takenAt: now, left: Wire.toCharge(left) }
    })
    if (blocked !== 0 && blocked[0] === "wait") waiting = blocked[3]
    return { granted: held, blocked: Wire.toBlocked(blocked) }
  }

  const take = (asks: ReadonlyArray<Ask>): Effect.Effect<Taken, StoreUnavailable> =>
    Effect.callback<Taken, StoreUnavailable>((resume) => {
      let answered = false
      const answer = (effect: Effect.Effect<Taken, StoreUnavailable>): true => {
        if (!answered) resume(effect)
        return (answered = true)
      }
      line.submit({
        operation: () => (answered ? undefined : Wire.take(asks)),
        replied: (reply, now) => {
          const taken = granted(asks, reply as Wire.TakeReply, now)
          // It was executed after all, and nobody waits for it any more.
          if (answered) for (const held of taken.granted) settle(held, zeros(held.charge), false)
          else answer(Effect.succeed(taken))
        },
        away: (error, lapsed) => {
          if (answered) return true
          const taken = share?.take(asks, millis())
          if (taken !== undefined) return answer(taken === "exhausted" ? Effect.fail(error) : Effect.succeed(taken))
          return lapsed && answer(Effect.fail(error))
        }
      })
    })

  const snapshot = Effect.callback<Snapshot, StoreUnavailable>((resume) => {
    let answered = false
    line.submit({
      operation: () => (answered ? undefined : ["snapshot"]),
      replied: (reply, now) => {
        if (!answered) resume(Effect.succeed(Wire.toSnapshot(reply as Wire.SnapshotReply, now)))
        answered = true
      },
      away: (error) => {
        if (!answered) resume(share === undefined ? Effect.fail(error) : Effect.succeed(share.snapshot(millis())))
        return (answered = true)
      }
    })
  })

  yield* onWake(wakeIn)

  // The first word: the pool is known, and its rules, which others may have learned, are heard.
  const beat = Effect.callback<void, StoreUnavailable>((resume) => {
    let answered = false
    line.submit({
      operation: () => ["beat"],
      replied: () => {
        if (!answered) resume(Effect.void)
        answered = true
      },
      away: (error, lapsed) => {
        if (!answered && lapsed) resume(Effect.fail(error))
        answered ||= lapsed
        return answered
      }
    })
  })
  yield* beat
  const heartbeat = Effect.suspend(() =>
    line.awaySince() !== undefined || millis() - line.view.at < settings.leaseMillis / 4
      ? Effect.void
      : Effect.sync(() => line.submit(say(() => ["beat"])))
  )
  yield* Effect.forkScoped(Effect.repeat(heartbeat, Schedule.spaced(settings.leaseMillis / 4)))

  return {
    rules: () => line.view.rules,
    take,
    settle: (held, used, succeeded) => Effect.sync(() => settle(held, used, succeeded)),
    observe: (signal, answered) =>
      Effect.sync(() => {
        const at = millis()
        if (share !== undefined) return
        line.submit(say(() => (millis() - at > observationLastsMillis ? undefined : Wire.observe(signal, answered))))
      }),
    pause: (pause) =>
      Effect.sync(() => {
        const at = millis()
        share?.pause(pause, at)
        line.submit(say(() => Wire.pause(pause, millis() - at)))
      }),
    resize: ({ concurrency, limits }) =>
      Effect.sync(() => {
        configured = {
          ...configured,
          limits: limits ?? configured.limits,
          concurrency: concurrency ?? configured.concurrency
        }
        // Whoever changes them goes by them at once; what Redis says of them comes with the reply.
        if (limits !== undefined) line.view.rules = Limits.resolve(limits)
        line.submit(say(() => Wire.resize(limits, concurrency)))
      }),
    snapshot,
    drain: inBatches(Stream.fromQueue(wakes))
  }
})
