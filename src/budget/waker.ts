/**
 * Resumes callers in a task of their own, so that none of their code runs inside a loop of ours.
 *
 * Whoever is resumed may end at once, run its finalizers and observers, and come back to the pool. Here it does that on an
 * empty stack, and what it throws reaches nobody else.
 */
import type * as Scheduler from "effect/Scheduler"

/** Calls a function soon, in the order in which they were given. */
export type Wake = (resume: () => void) => void

/** As many resume in one task as Effect lets a fiber take steps before it yields. */
const mostInTask = 2_048

/** Makes a waker over one dispatcher. While nobody is due, it has no task. */
export const make = (scheduler: Scheduler.Scheduler): Wake => {
  const dispatcher = scheduler.makeDispatcher()
  let due: Array<() => void> = []
  const run = (): void => {
    let count = 0
    // Resuming one may make the next one due.
    for (; count < due.length && count < mostInTask; count++) {
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

/** Throws an error where nothing else is lost: a task that throws takes the rest of its dispatcher's batch with it. */
const report = (scheduler: Scheduler.Scheduler, error: unknown): void =>
  scheduler.makeDispatcher().scheduleTask(() => {
    throw error
  }, 0)
