/**
 * Keeps simulated time from advancing while the simulated effect can still continue at the current time.
 *
 * **Details**
 *
 * After it wakes a sleeper, a `TestClock` waits only for the tasks that result from it: neither for tasks before the first
 * sleep, nor for those that continue after a promise. So all tasks are counted here, and whenever a task or a sleep ends, a task
 * of our own makes the clock wait until no task is left.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scheduler from "effect/Scheduler"

/** The clock and the scheduler for the simulated effect, and whether it is busy. */
export interface Watch {
  readonly clock: Clock.Clock
  readonly scheduler: Scheduler.Scheduler
  /** Whether there are tasks left at this moment of simulated time. */
  readonly isBusy: () => boolean
  /** Whether there was no task and no sleeper for so long that the effect will never end. */
  readonly isLost: () => boolean
}

/** How long simulated time stands still for something real, such as a promise, while nothing sleeps: in real milliseconds. */
const patienceMillis = 1_000

/**
 * Watches an effect that runs with the returned clock and scheduler. `live` is given if all sleepers are the effect's own: then
 * time stands still while none of them sleeps and the effect has not ended.
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
