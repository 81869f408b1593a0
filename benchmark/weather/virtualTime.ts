/**
 * Runs an effect in virtual time, synchronously, with its own clock and scheduler. It does what `TestClock` does, but with a
 * heap and without yielding to the platform, so that an hour with 60,000 calls a minute takes minutes.
 *
 * Time passes in whole milliseconds, as timers do, or in finer steps on request. The effect must not wait for anything real.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Scheduler from "effect/Scheduler"
import * as Agenda from "./agenda.ts"

export interface VirtualTime {
  readonly now: () => number
  /** `soon` calls a function when everything due now has run, `after` when this time has passed. */
  readonly soon: (then: () => void) => void
  readonly after: (millis: number, then: () => void) => void
  /**
   * Runs an effect to its end; throws if it waits for anything but time. `uncaught` gets what tasks and timers throw, which
   * would end a Node process.
   */
  readonly run: <A, E>(effect: Effect.Effect<A, E>, uncaught?: (error: unknown) => void) => Exit.Exit<A, E>
}

/** A clock whose time, in milliseconds, comes from a function. */
export const clockOf = (millis: () => number, sleep: Clock.Clock["sleep"]): Clock.Clock => {
  const nanos = () => BigInt(Math.round(millis() * 1e6))
  return {
    currentTimeMillisUnsafe: millis,
    currentTimeMillis: Effect.sync(millis),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos),
    monotonicTimeNanosUnsafe: nanos,
    monotonicTimeNanos: Effect.sync(nanos),
    sleep
  }
}

export const make = (tick: (millis: number) => number = Math.ceil): VirtualTime => {
  let now = 0
  let tasks: Array<() => void> = []
  const sleepers = Agenda.make<() => void>()
  let onError = (error: unknown): void => {
    throw error
  }

  const guarded = (task: () => void): void => {
    try {
      task()
    } catch (error) {
      onError(error)
    }
  }

  const runTasks = () => {
    while (tasks.length > 0) {
      const batch = tasks
      tasks = []
      for (const task of batch) guarded(task)
    }
  }
  const scheduler: Scheduler.Scheduler = {
    executionMode: "sync",
    shouldYield: (fiber) => fiber.currentOpCount >= fiber.cache.maxOpsBeforeYield,
    makeDispatcher: () => ({ scheduleTask: (task) => void tasks.push(task), flush: runTasks })
  }

  const clock = clockOf(
    () => now,
    (duration) =>
      Effect.callback<void>((resume) => {
        let isInterrupted = false
        const wake = () => {
          if (!isInterrupted) resume(Effect.void)
        }
        sleepers.add(tick(now + Duration.toMillis(duration)), wake)
        return Effect.sync(() => {
          isInterrupted = true
        })
      })
  )

  return {
    now: () => now,
    soon: (then) => void tasks.push(then),
    after: (millis, then) => sleepers.add(tick(now + Duration.toMillis(millis)), then),
    run: (effect, uncaught) => {
      onError = uncaught ?? onError
      const fiber = Effect.runFork(Effect.provideService(effect, Clock.Clock, clock), { scheduler })
      for (;;) {
        runTasks()
        const exit = fiber.pollUnsafe()
        if (exit !== undefined) return exit
        const next = sleepers.next()
        if (next === Infinity) throw new Error("the effect waits for something other than time")
        now = Math.max(now, next)
        while (sleepers.next() <= now) guarded(sleepers.take()!)
      }
    }
  }
}
