/** Runs an effect when it is due, one run after another. */
import * as Effect from "effect/Effect"
import type { After } from "./port.ts"
import type * as Time from "./time.ts"

export class DueTimer {
  private readonly time: Time.Time
  private readonly after: After
  private readonly run: Effect.Effect<void>
  /** When the next run is due at the latest, by this process's clock. It is asked after each run. */
  private readonly latest: () => number
  private dueAt = Infinity
  private cancel: (() => void) | undefined = undefined
  private isRunning = false
  private isStopped = false

  constructor(time: Time.Time, after: After, run: Effect.Effect<void>, latest: () => number) {
    this.time = time
    this.after = after
    this.run = run
    this.latest = latest
  }

  /** Makes a run due within this many milliseconds. */
  within(millis: number): void {
    const at = this.time.own + Math.max(0, millis)
    if (at >= this.dueAt || this.isStopped) return
    this.dueAt = at
    if (this.isRunning) return
    this.cancel?.()
    this.cancel = this.after(Math.max(0, millis), this.turn)
  }

  /** No further run becomes due. */
  stop(): void {
    this.isStopped = true
  }

  private readonly turn: Effect.Effect<void> = Effect.suspend(() => {
    this.isRunning = true
    this.dueAt = Infinity
    this.cancel = undefined
    return Effect.ensuring(
      this.run,
      Effect.sync(() => {
        const at = Math.min(this.dueAt, this.latest())
        this.isRunning = false
        this.dueAt = Infinity
        if (at < Infinity) this.within(at - this.time.own)
      })
    )
  })
}
