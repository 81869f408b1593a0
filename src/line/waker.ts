/**
 * Resumes callers in a later task, so that their code never runs inside a loop of the pool.
 *
 * A caller that resumes may end at once, run its finalizers and observers, and call the pool again. It does so on an empty
 * stack, and an error that it throws does not reach other callers.
 */
import type * as Scheduler from "effect/Scheduler"

/** Calls functions in a later task, in the order in which they were given. */
export type Wake = (resume: () => void) => void

/** How many callers resume in one task: as many as the steps that Effect lets a fiber take before it yields. */
const maxInTask = 2_048

/** Makes a waker with a dispatcher of its own. It schedules no task while no caller is to be resumed. */
export const make = (scheduler: Scheduler.Scheduler): Wake => {
  const dispatcher = scheduler.makeDispatcher()
  let due: Array<() => void> = []
  const run = (): void => {
    let count = 0
    // Resuming one may add more.
    for (; count < due.length && count < maxInTask; count++) {
      try {
        due[count]!()
      } catch (error) {
        report(scheduler, error)
      }
    }
    due = due.slice(count)
    if (due.length > 0) dispatcher.scheduleTask(run, 0)
  }
  return (resume) => {
    if (due.push(resume) === 1) dispatcher.scheduleTask(run, 0)
  }
}

/** Throws an error in a dispatcher of its own: Effect's dispatcher loses the rest of a batch when a task throws. */
const report = (scheduler: Scheduler.Scheduler, error: unknown): void =>
  scheduler.makeDispatcher().scheduleTask(() => {
    throw error
  }, 0)
