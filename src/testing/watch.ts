/**
 * Keeps simulated time from running on while what is simulated has still something to do now.
 *
 * **Details**
 *
 * After it wakes a sleeper, a `TestClock` waits for the tasks that come of it, and for those only: neither for what is
 * done before anybody has slept, nor for what goes on after a promise. So every task is counted here, and wherever a task
 * or a sleep ends under the clock's eyes, a task of our own makes the clock wait until none is left.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scheduler from "effect/Scheduler"

/** What the simulated effect must run with, and what it has to do. */
export interface Watch {
  readonly clock: Clock.Clock
  readonly scheduler: Scheduler.Scheduler
  /** Whether anything has still to be done at this moment of simulated time. */
  readonly isBusy: () => boolean
  /** Whether nothing was done and nobody slept for so long that there will be no end. */
  readonly isLost: () => boolean
}

/** How long time stands still for what is real, such as a promise, while nobody sleeps: in real milliseconds. */
const patienceMillis = 1_000

/**
 * Watches what will run with a clock and a scheduler. With the `live` clock, all sleepers are known: while there are none
 * before all is done, time stands still.
 */
export const make = (
  clock: Clock.Clock,
  scheduler: Scheduler.Scheduler,
  live: Clock.Clock | undefined,
  isDone: () => boolean
): Watch => {
  const gate = scheduler.makeDispatcher()
  let tasks = 0
  let sleepers = 0
  let steps = 0
  let idle: { readonly steps: number; readonly since: number } | undefined
  let isLost = false
  let holds = false
  const isBusy = (): boolean => {
    isLost = false
    if (tasks > 0 || sleepers > 0 || live === undefined || isDone()) {
      idle = undefined
      return tasks > 0
    }
    const now = live.currentTimeMillisUnsafe()
    if (idle?.steps !== steps) idle = { steps, since: now }
    isLost = now - idle.since >= patienceMillis
    return !isLost
  }
  const hold = (): void => {
    if (holds) return
    holds = true
    gate.scheduleTask(() => {
      holds = false
      if (isBusy()) hold()
    }, 0)
  }
  const asleep = Effect.sync(() => {
    sleepers++
  })
  const awake = Effect.sync(() => {
    sleepers--
    hold()
  })
  return {
    isBusy,
    isLost: () => isLost,
    clock: {
      ...clock,
      sleep: (duration) =>
        Effect.acquireUseRelease(
          asleep,
          () => clock.sleep(duration),
          () => awake
        )
    },
    scheduler: {
      executionMode: scheduler.executionMode,
      shouldYield: (fiber) => {
        steps++
        return scheduler.shouldYield(fiber)
      },
      makeDispatcher: () => {
        const dispatcher = scheduler.makeDispatcher()
        return {
          scheduleTask: (task, priority) => {
            tasks++
            dispatcher.scheduleTask(() => {
              try {
                task()
              } finally {
                tasks--
                hold()
              }
            }, priority)
          },
          flush: () => dispatcher.flush()
        }
      }
    }
  }
}
